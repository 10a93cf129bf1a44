"""`stresstest depth-sweep`."""
