"""What is learned: examples by (seed, step), the same on every machine."""

from __future__ import annotations

from stresstest.tasks.images import load_images
from stresstest.tasks.language import load_language
from stresstest.tasks.masked import load_masked
from stresstest.tasks.task import Task
from stresstest.tasks.translation import load_translation


def load_task(name: str, data: str, batch_size: int, seq_len: int) -> Task:
    """The task on a data source, NAME[:argument]; what does not suffice is a `ConfigError`."""
    if name == "images":
        return load_images(data, batch_size)
    if name == "translation":
        return load_translation(data, batch_size, seq_len)
    load = load_masked if name == "masked-language" else load_language
    return load(data, batch_size, seq_len)
