"""A check as it goes: one bar, or lines in a pipe, over both sides, and a file that says the same to others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stresstest.commands.check_estimate import estimate_line, forecast_of_check
from stresstest.commands.check_request import CheckRequest
from stresstest.gate.forecast import CheckForecast
from stresstest.gate.sides import Side
from stresstest.gate.under_way import progress_file
from stresstest.reports.output import console
from stresstest.reports.progress import ProgressBar, is_cell, is_time, without_time_left
from stresstest.results.progress import Progress
from stresstest.runs.stopping import signals_blocked

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan

_LOOK_SECONDS = 0.5


def showing(
    asked: CheckRequest, plans: Sequence[Plan], sides: Sequence[Side], looks: Sequence[int] = ()
) -> CheckProgress:
    """Of a check whose `sides` run in this order; says first how long that will take, unless it is short."""
    forecast = forecast_of_check(asked, plans, sides, looks)
    bar = ProgressBar(console(stderr=True), quiet=asked.quiet, verbose=asked.verbose)
    if said := estimate_line(forecast):
        bar.note(said)
    return CheckProgress(forecast, bar, progress_file(asked.scenario.name))


class CheckProgress:
    """Reads what the runs of the sides tell of themselves, about twice a second, and tells of the whole.

    `file` is there while this lasts.
    """

    def __init__(self, forecast: CheckForecast, bar: ProgressBar, file: Path) -> None:
        self._forecast, self._bar, self._file = forecast, bar, file
        self._side: Side | None = None  # that runs
        self._names: Sequence[str] = ()  # its experiments
        self._since = 0.0
        self._look = 0
        self._said: dict[tuple[str, str], int] = {}  # at which look first, so that the second repeats nothing
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)

    def __enter__(self) -> Self:
        self.look()
        self._bar.__enter__()
        with signals_blocked():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._bar.__exit__(kind, error, trace)
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def running(self, side: Side, names: Sequence[str], look: int) -> Iterator[None]:
        """While this lasts, a side runs these experiments."""
        with self._lock:
            self._side, self._names, self._look, self._since = side, names, look, time.time()
            self._forecast.began(side.name, names, look, self._since)
        try:
            yield
        finally:
            with self._lock:
                self._hear()
                self._side = None
                self._forecast.ended(time.time())

    def note(self, text: str) -> None:
        """A line."""
        self._bar.note(text)

    def said(self, text: str) -> None:
        """A line that the side that runs said: what it says of its time is not that of the whole."""
        assert self._side is not None, "a side says it"
        side = self._side.name
        if is_time(text) or self._said.setdefault((side, text), self._look) < self._look:
            return
        if is_cell(text):
            self._bar.cell_line(f"{side}: {without_time_left(text)}", self.look())
        elif text.partition(": ")[0] in self._names:
            self._bar.detail(f"{side}: {text}")
        else:
            self._bar.note(f"{side}: {text}")

    def look(self) -> Progress:
        """Read what the side tells, write down how far the whole is, and tell it."""
        with self._lock:
            running = self._hear()
            progress = self._forecast.progress(time.time(), running)
            with contextlib.suppress(OSError):  # whoever stores a cell finds out
                draft = self._file.with_suffix(".part")
                draft.write_text(progress.to_json())
                draft.replace(self._file)
        self._bar.progress(progress)
        return progress

    def _look_again(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self.look()

    def _hear(self) -> tuple[str, ...]:
        """Tell the forecast what the side has begun; what it trains now, in words."""
        if self._side is None:
            return ()
        running = [f"{self._side.name}: starting"]
        for name in self._names:
            try:
                path = self._side.path / name / "progress.json"
                at, told = path.stat().st_mtime, Progress.from_json(path.read_text())
            except OSError:
                continue
            if at < self._since:
                continue  # of a run before this one
            self._forecast.heard(name, at, told)
            where = f"{self._side.name}: {f'{name}: ' * (len(self._names) > 1)}"
            running = [f"{where}{each}" for each in (told.running if told else ())]
        return tuple(running)
