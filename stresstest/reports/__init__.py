"""Renderings of a stored result; nothing here trains."""
