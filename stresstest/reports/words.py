"""Sentences that several reports share."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text


def paragraph(console: Console, text: str, bullet: str = "", style: str = "") -> None:
    """Wrapped text without the trailing blanks that a padded block would print into a pipe."""
    indent = " " * len(bullet)
    for line in textwrap.wrap(text, min(console.width, 110), initial_indent=bullet, subsequent_indent=indent):
        console.print(Text(line, style=style))


def data_words(spec: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """What the model is and what it learns."""
    examples = (
        f"{spec['batch_size']} images a step"
        if spec["task"] == "images"
        else f"{spec['heads']} heads, {spec['batch_size']} x {spec['seq_len']} bytes a step"
    )
    return f"{spec['norm']}, {examples} of {data['name']} (constant predictor: {data['baseline_loss']:.2f} nats)"
