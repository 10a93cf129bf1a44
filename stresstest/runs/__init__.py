"""Durable cells, and the processes that train them."""
