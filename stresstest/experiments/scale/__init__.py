"""`stresstest scale`: the boundary along growing sizes, its law, and the target that cannot be afforded."""
