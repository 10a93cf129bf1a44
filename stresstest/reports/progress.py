"""Progress on stderr: a bar that moves with the steps on a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from stresstest.reports.numbers import bracket, cell_name, number
from stresstest.results.progress import Progress, SizeTime, TimeLeft

if TYPE_CHECKING:
    from stresstest.reports.notebook import NotebookBar
    from stresstest.results.records import Cell

LINE_SECONDS = 30.0  # between two lines in a pipe, at most
_WIDE = 1.3  # times the lowest estimate: from there on a range is said
_SHORT = 10.0  # seconds: a run of less needs no estimate
_MOST_RUNNING = 4  # groups of cells that a terminal shows
_CELL = re.compile(r"\[\d+/\d+\] ")  # what is said in a pipe, for who reads it there
_TIME = re.compile(r"\d+%(; |$)|\d+ cells?: about .* on \d+ process(es)?(; |$)")
_LEFT = re.compile(r", about [^,]*(, at most [^,]*)? left$")


class ProgressBar:
    """Hears how a run goes, and shows it."""

    def __init__(self, console: Console, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._console = console
        self._progress = Progress(0, 0, 0.0, None)
        self._started = self._said = time.monotonic()
        self._notebook: NotebookBar | None = None
        self._live: Live | None = None
        if console.is_terminal and not console.is_jupyter and not quiet:
            self._live = Live(console=console, get_renderable=self._shown, transient=True, refresh_per_second=2)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start(refresh=True)
        elif self._console.is_jupyter and not self._quiet:
            from stresstest.reports.notebook import NotebookBar

            self._notebook = NotebookBar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._notebook is not None:
            self._notebook.remove()

    def cells_known(self, finished: Sequence[Cell], missing: int) -> None:
        """More cells belong to the run: those that are on the disk, and so many others."""
        if finished:
            failed = sum(cell.status != "done" for cell in finished)
            failures = f", {failed} of them failed (--retry-errors trains them again)" if failed else ""
            rest = "training the rest" if missing else "nothing to train"
            self.note(
                f"{len(finished)} of {len(finished) + missing} cells were already finished{failures}; {rest} "
                "(--fresh trains all cells again)"
            )

    def estimate(self, progress: Progress, at_once: int) -> None:
        """Before the first step: how long it will take, unless that is short."""
        if not self._quiet and progress.left is not None and progress.left.seconds >= _SHORT:
            self._say(estimated(progress, at_once))

    def progress(self, progress: Progress) -> None:
        """How far the run is now."""
        self._progress = progress
        if self._notebook is not None:
            self._notebook.show(progress, time.monotonic() - self._started)
        elif not self._quiet and self._live is None and time.monotonic() - self._said >= LINE_SECONDS:
            self._say(line(progress))

    def cell_ended(self, cell: Cell, progress: Progress) -> None:
        """One more cell has ended."""
        self.cell_line(f"[{progress.ended}/{progress.total}] {describe(cell)}", progress)

    def cell_line(self, text: str, progress: Progress) -> None:
        """A line about one more cell that has ended, in a pipe or where it was asked for; how far the run is then."""
        self._progress = progress
        left = progress.left if progress.ended < progress.total else None
        self.detail(f"{text}, {time_left(left)} left" if left is not None else text)

    def detail(self, text: str) -> None:
        """A line that a bar makes needless: it is for pipes and for who asked for it."""
        if not (self._live or self._notebook) or self._verbose:
            self.note(text)

    def note(self, text: str) -> None:
        """A line."""
        if not self._quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=True)

    def _shown(self) -> RenderableType:
        return shown(self._progress, time.monotonic() - self._started, self._console.width)


def shown(progress: Progress, elapsed: float, width: int) -> RenderableType:
    """A bar, how much is done and left, and below it what trains now, each in one line of the terminal's width."""
    left = f"{time_left(progress.left)} left" if progress.left else "starting"
    text = f"{progress.share:4.0%}  {progress.ended}/{progress.total} cells  {duration(elapsed)}  {left}"
    if len(text) > width - 8:
        text = f"{progress.share:4.0%}  {left}"
    top = Table.grid(padding=(0, 1))
    top.add_row(Bar(1.0, progress.share, width=max(4, min(40, width - len(text) - 2))), Text(text, no_wrap=True))
    running = [f"  {each}" for each in progress.running[:_MOST_RUNNING]]
    if len(progress.running) > _MOST_RUNNING:
        running.append(f"  and {len(progress.running) - _MOST_RUNNING} more")
    return Group(top, *(Text(each, style="dim", no_wrap=True, overflow="ellipsis") for each in running))


def line(progress: Progress) -> str:
    """How far a run is, in one line."""
    parts = [f"{progress.share:.0%}", *progress.running[:1]]
    if len(progress.running) > 1:
        parts.append(f"and {len(progress.running) - 1} more")
    if progress.left is not None:
        parts.append(f"{time_left(progress.left)} left")
    return "; ".join(parts)


def estimated(progress: Progress, at_once: int) -> str:
    """Before the first step: how long how many cells will take, on how many processes."""
    assert progress.left is not None, "a step was timed"
    cells = progress.total - progress.ended
    where = f"{at_once} process{'es' * (at_once > 1)}"
    return f"{cells} cell{'s' * (cells > 1)}: {time_left(progress.left)} on {where}{_most_of_it(progress.sizes)}"


def _most_of_it(sizes: Sequence[SizeTime]) -> str:
    """The size that takes more than half of the time, where one does."""
    whole = sum(each.seconds for each in sizes)
    most = max(sizes, key=lambda each: each.seconds, default=None)
    return f"; {most.size} takes {most.seconds / whole:.0%} of it" if most and most.seconds > whole / 2 else ""


def size_times(sizes: Sequence[SizeTime]) -> Table:
    """What each size of a path takes."""
    table = Table("size", "cells", "a step", "all cells, one after the other", box=None, pad_edge=False)
    for each in sizes:
        table.add_row(each.size, str(each.cells), f"{each.step_seconds * 1e3:.3g} ms", duration(each.seconds))
    return table


def is_cell(text: str) -> bool:
    """Whether a line that a run said in a pipe is of a cell that has ended."""
    return _CELL.match(text) is not None


def is_time(text: str) -> bool:
    """Whether it is of how far the run is alone, or how long it will take."""
    return _TIME.match(text) is not None


def without_time_left(text: str) -> str:
    """A line of a cell, without the time left of its run."""
    return _LEFT.sub("", text)


def time_left(left: TimeLeft) -> str:
    """A time and its range, where that is wide: "about 4 min (3 to 6), at most 12 min"."""
    middle, low, high = (duration(seconds) for seconds in (left.seconds, left.low, left.high))
    most = f", at most {duration(left.at_most)}" if left.at_most is not None else ""
    if left.high < _WIDE * left.low or low == high:
        return f"about {middle}{most}"
    unit = middle.rpartition(" ")[2]
    if low.endswith(f" {unit}") and high.endswith(f" {unit}"):
        low, high = low.removesuffix(f" {unit}"), high.removesuffix(f" {unit}")
    return f"about {middle} ({low} to {high}){most}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as one reads them."""
    if seconds < 100:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
    if cell.shock:
        parts += _survival(cell)
    if cell.coords:
        parts.append(f"{len(cell.coords['places'])} outputs followed")
    if not parts:
        back = cell.metrics.get("grad_ratio")
        parts.append(f"gradient, first over last block: {'-' if back is None else bracket(back)}")
    return f"{name}: {', '.join(parts)}, {cell.seconds:.0f} s"


def _survival(cell: Cell) -> Iterator[str]:
    """What became of a shocked run, and up to which dose it takes the shock."""
    at = f" at dose {number(cell.shock['dose'])}" if "dose" in cell.shock else ""
    yield f"{cell.shock['outcome']}{at}"
    for name, words in (("shock_tolerance", "no scar"), ("break_tolerance", "no break")):
        if name in cell.metrics and len(cell.shock["doses"]) > 1:  # one alone has no largest
            yield f"{words} up to {bracket(cell.metrics[name])}"
