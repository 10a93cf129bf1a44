"""A training step that the user's own code takes as a whole."""
