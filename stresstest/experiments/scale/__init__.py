"""`stresstest scale`."""
