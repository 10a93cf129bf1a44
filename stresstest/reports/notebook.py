"""Progress in a notebook: one output that is written again, with the browser's own bar; no widgets needed."""

from __future__ import annotations

from html import escape
from typing import Any

from stresstest.reports.progress import duration, time_left
from stresstest.results.progress import Progress


class NotebookBar:
    """The output of the cell that runs."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._output: Any = display(HTML(""), display_id=True)

    def show(self, progress: Progress, elapsed: float) -> None:
        """Write it again."""
        self._output.update(self._html(page(progress, elapsed)))

    def remove(self) -> None:
        """Leave nothing: the result comes after it."""
        self._output.update(self._html(""))


def page(progress: Progress, elapsed: float) -> str:
    """A bar, how much is done and left, and what trains now."""
    left = f"{time_left(progress.left)} left" if progress.left else "starting"
    text = f"{progress.share:.0%}, {progress.ended} of {progress.total} cells, {duration(elapsed)}, {left}"
    running = "".join(f"<br><small>{escape(each)}</small>" for each in progress.running)
    return f'<progress max="1" value="{progress.share:.3f}" aria-label="training"></progress> {escape(text)}{running}'
