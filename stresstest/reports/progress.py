"""Progress on stderr: a bar with the time left on a terminal, a line per finished cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from stresstest.reports.numbers import bracket, cell_name
from stresstest.results.records import Cell


class Clock:
    """Counts cells; the time left goes by their depth, which is most of their cost."""

    def __init__(self) -> None:
        self.total = 0
        self.ended = 0
        self._work_left = 0
        self._work_done = 0
        self._started = time.monotonic()

    def cells_known(self, finished: int, missing: Sequence[int]) -> None:
        """More cells belong to the run: so many that are on the disk, and others of these depths."""
        self.total += finished + len(missing)
        self.ended += finished
        self._work_left += sum(missing)

    def cell_ended(self, depth: int) -> None:
        """One more cell has ended."""
        self.ended += 1
        self._work_left -= depth
        self._work_done += depth

    @property
    def seconds_left(self) -> float | None:
        """An estimate, once a cell has ended."""
        if not self._work_done:
            return None
        return (time.monotonic() - self._started) / self._work_done * self._work_left


class ProgressBar:
    """Hears of cells as they end, and shows how many there are and the time left."""

    def __init__(self, console: Console, quiet: bool, verbose: bool) -> None:
        self._clock = Clock()
        self._quiet = quiet
        self._verbose = verbose
        self._console = console
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=None, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def cells_known(self, finished: Sequence[Cell], missing: Sequence[int]) -> None:
        """More cells belong to the run: those that are on the disk, and others of these depths."""
        self._clock.cells_known(len(finished), missing)
        self._bar.update(self._task, total=self._clock.total, completed=self._clock.ended)
        if finished and not self._quiet:
            failed = sum(cell.status != "done" for cell in finished)
            failures = f", {failed} of them failed (--retry-errors trains them again)" if failed else ""
            rest = "training the rest" if missing else "nothing to train"
            self._console.print(
                f"{len(finished)} of {len(finished) + len(missing)} cells were already finished{failures}; {rest} "
                "(--fresh trains all cells again)"
            )

    def cell_ended(self, cell: Cell) -> None:
        """One more cell has ended."""
        clock = self._clock
        clock.cell_ended(cell.depth)
        left = f"about {duration(clock.seconds_left)} left" if clock.seconds_left else ""
        self._bar.update(self._task, completed=clock.ended, left=left)
        if self._quiet or (self._console.is_terminal and not self._verbose):
            return
        self._console.print(
            f"[{clock.ended}/{clock.total}] {describe(cell)}{', ' + left if left else ''}", markup=False
        )


def duration(seconds: float) -> str:
    """Seconds or minutes, as one reads them."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def describe(cell: Cell) -> str:
    """One line about a finished cell."""
    name = cell_name(cell)
    if cell.status != "done":
        last = cell.error.splitlines()[-1] if cell.error else "no message"
        return f"{name}: {cell.status} ({last})"
    parts = []
    if cell.recipe:
        loss = f", loss {cell.recipe['loss']:.2f}" if cell.point else ""
        parts.append(f"{'' if cell.point else 'fixed recipe '}{cell.recipe['outcome']}{loss}")
    if cell.ramp:
        onset = cell.metrics.get("onset_lr")
        parts.append("no onset_lr (learned nothing on the ramp)" if onset is None else f"onset_lr {bracket(onset)}")
    stable = cell.metrics.get("max_stable_lr")
    if stable is not None:
        low = "none" if stable.low is None else bracket(stable) if stable.high is None else f"{stable.low:.2g}"
        parts.append(f"max_stable_lr {low}")
    if not parts:
        back = cell.metrics.get("grad_ratio")
        parts.append(f"gradient, first over last block: {'-' if back is None else bracket(back)}")
    return f"{name}: {', '.join(parts)}, {cell.seconds:.0f} s"
