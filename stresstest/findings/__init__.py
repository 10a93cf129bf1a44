"""Sentences about a result: what was found, how sure it is, and what to do."""
