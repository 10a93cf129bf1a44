"""`stresstest race`."""
