"""The best constant predictor of the user's own loss, and the module whose outputs make the loss."""
