"""How far a run is, and how long it may still take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TimeLeft:
    """Seconds that are left, and between which they lie in 8 of 10 runs."""

    seconds: float
    low: float
    high: float


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
