"""What a run's signals usually are, and which of them moved when it broke."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence

from stresstest.watch.verdict import Moved

_KEPT = 200  # values of each signal
_USUAL = 40  # values whose median is the usual one
_LEAST = 4  # values before one can be unusual
_LOOK_BACK = 20  # steps before the first bad loss
_TIMES = 3.0  # the usual value, or a third of it
_BEYOND = 1.5  # times the largest of them, or the smallest
_SET = ("lr", "loss_scale")  # by a schedule: they do not scatter, and half of that is a move


class Signals:
    """Keeps the last values of each signal, by step; the loss is none."""

    def __init__(self) -> None:
        self._values: dict[str, deque[tuple[int, float]]] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take what was read of a step."""
        for name, value in values.items():
            self._values.setdefault(name, deque(maxlen=_KEPT)).append((step, value))

    def forget_after(self, step: int | None) -> None:
        """Drop what came after a step to which the run goes back, None for its start."""
        for name, values in self._values.items():
            kept = (value for value in values if step is not None and value[0] <= step)
            self._values[name] = deque(kept, maxlen=_KEPT)

    def moved(self, first_bad_step: int) -> tuple[Moved, ...]:
        """The signals that left their usual range about the first bad loss, in the order in which they did."""
        found = [self._first_move(name, list(values), first_bad_step) for name, values in self._values.items()]
        moved = sorted((one for one in found if one is not None), key=lambda one: (one.step, one.signal))
        rates = {(one.step, one.times) for one in moved if one.signal == "lr"}  # groups mostly share a schedule
        return tuple(one for one in moved if not (one.signal.startswith("lr_") and (one.step, one.times) in rates))

    def _first_move(self, name: str, values: Sequence[tuple[int, float]], first_bad_step: int) -> Moved | None:
        for i, (step, value) in enumerate(values):
            if step < first_bad_step - _LOOK_BACK:
                continue
            before = [value for _, value in values[max(0, i - _USUAL) : i]]
            scatters = not name.startswith(_SET)
            times = _times(value, before, scatters)
            if name.startswith("lr") and times is not None and times < 1.0 and before[-1] - value < max(before) / 3.0:
                continue  # a decay, as schedules have it
            stays = i + 1 == len(values) or _times(values[i + 1][1], before, scatters) is not None
            if times is not None and stays:
                return Moved(name, step, times, first_bad_step - step)
        return None


def _times(value: float, before: Sequence[float], scatters: bool) -> float | None:
    """How many times the usual a value is, where it is unusual."""
    known = [one for one in before if math.isfinite(one)]
    if len(known) < _LEAST:
        return None
    if not math.isfinite(value):
        return value
    usual = statistics.median(known)
    if usual <= 0.0:
        return None
    least, beyond = (_TIMES, _BEYOND) if scatters else (_TIMES / 2.0, 1.0)
    above = value > least * usual and value > beyond * max(known)
    below = value < usual / least and value < min(known) / beyond
    return value / usual if above or below else None
