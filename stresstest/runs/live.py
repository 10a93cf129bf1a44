"""How far the cells in training are: a small file of each worker's, at most twice a second, and who reads them.

A worker writes where its group of cells says; a folder that is not there (on another machine, say) costs the news and
nothing else. No number of a cell depends on any of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stresstest.json_text import parse_json

WRITE_SECONDS = 0.5  # between two writes
ENDED = "ended"
_BLOCKS = 15  # of steps, whose median is what a step takes


@dataclass(frozen=True)
class LiveRecord:
    """What a group of cells is at; a step of one replica counts as one."""

    cells: list[str] = field(default_factory=list)  # keys
    doing: str = ""  # ramp, hold, schedule, or what else
    step: int = 0  # of the course that is under way
    num_steps: int = 0
    lrs: list[float] = field(default_factory=list)  # smallest and largest of this step
    loss: float | None = None  # nats, median over the replicas in training; None: not finite
    left: int = 0  # steps that the course may still take, of all its replicas
    taken: int = 0  # steps of all courses so far, those before an interruption too
    step_seconds: float | None = None  # of one replica, median of the latest
    seconds: float = 0.0  # since the group began here
    trained: int = 0  # steps taken here, in these seconds


class Pulse:
    """Tells of one group: counts its steps, and writes its record once that is due."""

    def __init__(self, path: Path, cells: Sequence[str]) -> None:
        self._path: Path | None = path
        self._cells = list(cells)
        self._began = time.monotonic()
        self._written = -math.inf
        self._latest: deque[float] = deque(maxlen=_BLOCKS)
        self._taken = 0
        self._trained = 0

    def passed(self, steps: int) -> None:
        """So many steps were taken before an interruption."""
        self._taken += steps

    def doing(self, what: str) -> None:
        """What takes no steps begins: it is told at once."""
        self._write(LiveRecord(doing=what))

    def stepped(self, steps: int, seconds: float, record: Callable[[], LiveRecord]) -> None:
        """So many steps of one replica ended; `record` says of which course, once that is due."""
        self._taken += steps
        self._trained += steps
        self._latest.append(seconds / max(1, steps))
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write(record())

    def end(self) -> None:
        """All cells of the group have ended."""
        self._write(LiveRecord(doing=ENDED))

    def _write(self, said: LiveRecord) -> None:
        if self._path is None:
            return
        now = time.monotonic()
        self._written = now
        stored = asdict(said) | {
            "cells": self._cells,
            "taken": self._taken,
            "trained": self._trained,
            "step_seconds": statistics.median(self._latest) if self._latest else None,
            "seconds": now - self._began,
        }
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(json.dumps(stored))
            draft.replace(self._path)
        except OSError:
            self._path = None


_pulse: Pulse | None = None


@contextlib.contextmanager
def telling(path: Path | None, cells: Sequence[str]) -> Iterator[None]:
    """While this lasts, what this process trains is told in a file; in none without a path."""
    global _pulse
    before, _pulse = _pulse, None if path is None else Pulse(path, cells)
    try:
        yield
        if _pulse is not None:
            _pulse.end()
    finally:
        _pulse = before


def pulse() -> Pulse | None:
    """Whom to tell, if anybody listens."""
    return _pulse


def read_records(folder: Path) -> list[LiveRecord]:
    """The latest record of each group that has one."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):  # removed, or of another version
                found.append(LiveRecord(**parse_json(path.read_text())))
    return found
