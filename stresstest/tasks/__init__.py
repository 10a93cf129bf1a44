"""What is learned: examples by (seed, step), the same on every machine."""

from __future__ import annotations

from stresstest.tasks.images import load_images
from stresstest.tasks.language import load_language
from stresstest.tasks.task import Task


def load_task(name: str, data: str, batch_size: int, seq_len: int) -> Task:
    """The task `language` or `images` on a data source, NAME[:argument]; what does not suffice is a `ConfigError`."""
    return load_images(data, batch_size) if name == "images" else load_language(data, batch_size, seq_len)
