"""What the cells of a run tell TensorBoard, Weights & Biases, MLflow and Trackio."""
