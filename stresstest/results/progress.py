"""How far a run is, and how long it may still take."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Self

from stresstest.json_text import parse_json


@dataclass(frozen=True)
class TimeLeft:
    """Seconds that are left, and between which they lie in 8 of 10 runs.

    at_most: with everything that may still be asked for, the further looks of a gate; `None` where nothing is.
    """

    seconds: float
    low: float
    high: float
    at_most: float | None = None


@dataclass(frozen=True)
class SizeTime:
    """What the cells of one size take: seconds of a step of the slowest, and seconds of all of them on one process."""

    size: str
    cells: int
    step_seconds: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """A run at one moment.

    total: its cells as far as they are known. share: of the work that is done, 0 to 1, by the time that it takes. left:
    `None` while nothing is known of any step. running: what trains now, a line each.
    """

    ended: int
    total: int
    share: float
    left: TimeLeft | None
    running: tuple[str, ...] = ()
    sizes: tuple[SizeTime, ...] = ()  # before the training, along a path of growing ones

    def to_json(self) -> str:
        """As `progress.json` has it, with the time of now, `time.time()`, as `at`."""
        return json.dumps({**asdict(self), "at": time.time()}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """What was written; `None` where it is nothing yet, or of another version."""
        try:
            told = parse_json(text)
            left = None if told["left"] is None else TimeLeft(**told["left"])
            return cls(int(told["ended"]), int(told["total"]), float(told["share"]), left, tuple(told["running"]))
        except (ValueError, TypeError, KeyError):
            return None
