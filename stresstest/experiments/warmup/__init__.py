"""`stresstest warmup`."""
