"""`stresstest lr-range`."""
