"""Progress on stderr: a bar with the time left on a terminal, a line per finished cell elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from stresstest.findings import bracket
from stresstest.results import Cell


class Progress:
    """Hears of cells as they end."""

    def __init__(self, console: Console, total: int, quiet: bool, verbose: bool) -> None:
        self.ended = 0
        self._total = total
        self._found = 0
        self._quiet = quiet
        self._verbose = verbose
        self._console = console
        self._started = time.monotonic()
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
        self._task = self._bar.add_task("training", total=total, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def cells_found(self, count: int) -> None:
        """`count` cells are on the disk already."""
        self._found = self.ended = count
        self._bar.update(self._task, completed=count)
        if count and not self._quiet:
            rest = "nothing to train" if count == self._total else "training the rest"
            self._console.print(f"{count} of {self._total} cells were finished before; {rest} (--fresh trains all)")

    def cell_ended(self, cell: Cell) -> None:
        """One more cell has ended."""
        self.ended += 1
        left = self._time_left()
        self._bar.update(self._task, completed=self.ended, left=left)
        if self._quiet or (self._console.is_terminal and not self._verbose):
            return
        self._console.print(f"[{self.ended}/{self._total}] {describe(cell)}{', ' + left if left else ''}", markup=False)

    def _time_left(self) -> str:
        trained = self.ended - self._found
        rest = self._total - self.ended
        if not rest:
            return ""
        seconds = (time.monotonic() - self._started) / trained * rest
        return f"about {seconds:.0f} s left" if seconds < 100 else f"about {seconds / 60:.0f} min left"


def describe(cell: Cell) -> str:
    """One line about a finished cell."""
    name = f"{cell.variant} seed {cell.seed}"
    if cell.status != "done":
        last = cell.error.splitlines()[-1] if cell.error else "no message"
        return f"{name}: {cell.status} ({last})"
    onset = cell.metrics.get("onset_lr")
    shown = "did not learn on the ramp" if onset is None else f"onset_lr {bracket(onset)}"
    stable = cell.metrics["max_stable_lr"]
    low = "none" if stable.low is None else bracket(stable) if stable.high is None else f"{stable.low:.2g}"
    return f"{name}: {shown}, max_stable_lr {low}, {cell.seconds:.0f} s"
