"""`stresstest batch-sweep`."""
