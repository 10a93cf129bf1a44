"""Timing side by side: contenders take turns in one run, and ratios are taken round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Chunk = Callable[[int], None]  # trains that many steps


def take_turns(chunks: Mapping[str, Chunk], rounds: int, steps: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds per step of each, round by round; a chunk of each goes first, untimed."""
    found: dict[str, list[float]] = {name: [] for name in chunks}
    for chunk in chunks.values():
        chunk(steps)
    for _ in range(rounds):
        for name, chunk in chunks.items():
            started = now(device)
            chunk(steps)
            found[name].append(1000 * (now(device) - started) / steps)
    return found


def now(device: torch.device) -> float:
    """CPU time of this process on a CPU; on a GPU the wall clock, once the device is idle."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median, minimum and maximum of the ratios round by round."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
