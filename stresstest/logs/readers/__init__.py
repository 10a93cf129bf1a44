"""A reader for each family of formats."""
