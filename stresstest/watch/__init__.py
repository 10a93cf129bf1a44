"""The rules on a run that is training now."""
