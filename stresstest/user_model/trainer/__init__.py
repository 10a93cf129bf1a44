"""transformers' Trainer, asked for the parts of its training in turn."""
