"""Batches from a DataLoader: the same for each seed and step in every run."""
