"""The user's own model: from a factory, a loss and an optimizer to a population that trains."""
