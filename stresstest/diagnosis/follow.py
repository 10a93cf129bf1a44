"""A log that grows: when it is read again, and what is said of a run that has not ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stresstest.diagnosis.diagnose import Choices, diagnose_file
from stresstest.diagnosis.records import Diagnosis
from stresstest.diagnosis.words import loss, outcome_line, spike_line, step, worst_segment
from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile

LOOKS_EVERY = 1.0  # seconds
_READING_SHARE = 0.1  # of the time that reading may take, of a log so long that reading lasts
# What is said of a run once it has ended: on its first rows each would be said of every run.
AT_THE_END = ("flat", "failed-to-train")


@dataclass(frozen=True)
class Look:
    """What a look at the log showed: its newest run, or why it cannot be read."""

    run: Diagnosis | None
    problem: str = ""


def looks(path: Path, shown: str, choices: Choices, sleep: Callable[[float], None] = time.sleep) -> Iterator[Look]:
    """One look now and one each time the file has changed: grown, been cut, replaced or taken away."""
    seen: object = ()
    while True:
        state = _state(path)
        if state != seen:
            began = time.monotonic()
            yield _look(path, shown, choices)
            seen = state
            sleep(max(LOOKS_EVERY, (time.monotonic() - began) / _READING_SHARE))
        else:
            sleep(LOOKS_EVERY)


def _state(path: Path) -> object:
    """What changes with the file; a rotated log has another inode."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _look(path: Path, shown: str, choices: Choices) -> Look:
    try:
        if not path.exists():
            return Look(None, "the file is not there")
        if not path.stat().st_size:
            return Look(None, "nothing was logged yet")
        *_, newest = diagnose_file(LogFile(path, shown), choices)
    except ConfigError as error:
        return Look(None, str(error).removeprefix(f"{shown}: "))
    return Look(newest)


def so_far(run: Diagnosis) -> str:
    """The state of a run that may go on, without its changing numbers: it is said again once it changes."""
    segment = run.segments[-1]
    spikes = f", {len(segment.spikes)} spikes" if len(segment.spikes) > 1 else ", 1 spike" if segment.spikes else ""
    if segment.outcome is None:
        return "cannot be judged yet"
    outcome = "stable" if segment.outcome in AT_THE_END else segment.outcome
    part = f"segment {segment.index}: " if segment.index else ""
    return f"{part}{outcome}{spikes}"


def look_line(run: Diagnosis) -> str:
    """A line about a run that may go on."""
    segment = run.segments[-1]
    where = f"step {step(segment.last_step)}"
    if segment.outcome is None:
        return f"{where}: cannot be judged yet: {segment.why_undecided}"
    if segment.outcome in AT_THE_END or segment.outcome == "stable":
        return f"{where}: stable so far; loss {loss(segment.first_loss)} -> {loss(segment.last_loss)}"
    if segment.outcome == "spiked" and segment.spikes:
        return f"{where}: {spike_line(segment.spikes[-1])}"
    return f"{where}: {outcome_line(segment)}"


def verdict_so_far(run: Diagnosis) -> str:
    """Of the whole log; what is only said at the end counts as stable."""
    worst = worst_segment(run)
    late = run.verdict == "broken" and worst is not None and worst.outcome in AT_THE_END
    return "stable" if late else run.verdict
