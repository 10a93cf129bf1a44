"""What is said of a watched run, in one line and as a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from stresstest.errors import StresstestError
from stresstest.watch.alarm import Event

_WORDS = {
    "exploded": "the loss rose above its start and stayed there",
    "relapsed": "the loss gave back half of what was learned, and stayed there",
    "nonfinite": "the loss is not finite",
}
_AT_END = {
    "": "too few losses to judge",
    "stable": "stable",
    "spiked": "stable, with a rise of the loss that came back",
    "flat": "the loss never fell by more than its noise",
    "failed-to-train": "the loss never fell by more than its noise",
}


@dataclass(frozen=True)
class Moved:
    """A signal that left its usual range about the time of a break: a coincidence in time, no proof.

    times: its value then, over the median of up to 40 values before. steps_before: the first bad loss; negative after.
    """

    signal: str
    step: int
    times: float
    steps_before: int

    def __str__(self) -> str:
        if not math.isfinite(self.times):
            return f"{self.signal} not finite, {_when(self.steps_before)}"
        times = (
            f"{self.times:.3g}"
            if self.times < 100
            else f"{self.times:,.0f}"
            if self.times < 1e6
            else f"{self.times:.1e}"
        )
        return f"{self.signal} {times} times its usual value, {_when(self.steps_before)}"


@dataclass(frozen=True)
class Verdict:
    """What became of a run, or of its start where it goes on.

    outcome: the rules' word, empty where there were too few losses. first_bad_step: of the last break. moved: signals
    that moved about then, the first ones first. nonfinite: name of the first parameter or gradient that is not
    finite. checkpoint: the file from before the break.
    """

    outcome: str
    first_bad_step: int | None = None
    last_step: int | None = None
    alarms: int = 0
    moved: tuple[Moved, ...] = ()
    nonfinite: str = ""
    checkpoint: Path | None = None

    @property
    def broken(self) -> bool:
        """Whether training broke and had not come back."""
        return self.outcome in _WORDS

    def __str__(self) -> str:
        if not self.broken:
            end = "" if self.last_step is None else f" at step {self.last_step}"
            return f"{_AT_END.get(self.outcome, self.outcome)}{end}"
        text = f"{self.outcome}: {_WORDS[self.outcome]}, from step {self.first_bad_step} on"
        if self.nonfinite:
            text += f"; not finite: {self.nonfinite}"
        if self.moved:
            text += f"; moved first (a coincidence in time): {'; '.join(map(str, self.moved[:3]))}"
        return text + (f"; from before: {self.checkpoint}" if self.checkpoint else "")


class TrainingBrokeError(StresstestError):
    """Raised by `update` where the watch is to raise; `verdict` says what happened."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


def line_of(event: Event) -> str:
    """What is told of an alarm while it is provisional, or once it is over."""
    rise = f"loss {event.loss:.4g}, {event.level_before:.4g} before"
    if event.kind == "alarm":
        return f"step {event.step}: alarm, provisional: {rise}"
    if event.kind == "taken-back":
        return f"step {event.step}: alarm of step {event.first_bad_step} taken back: {rise}"
    return f"step {event.step}: recovered: {rise}"


def _when(steps_before: int) -> str:
    if steps_before == 0:
        return "at the first bad loss"
    steps = f"{abs(steps_before)} step{'' if abs(steps_before) == 1 else 's'}"
    return f"{steps} {'before' if steps_before > 0 else 'after'} the first bad loss"
