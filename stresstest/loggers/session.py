"""The trackers of a run: each finished cell is told to each of them once, and none of them can stop the run.

`logged.jsonl` in the run directory says which cell was told to which tracker, so that a run that goes on tells no cell
twice, and tells those that were finished before anybody asked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from stresstest.json_text import parse_json
from stresstest.loggers.scalars import RunFacts as RunFacts
from stresstest.loggers.scalars import logged_cell
from stresstest.loggers.table import Target, Tracker, first_line, open_target
from stresstest.results.cell import Cell
from stresstest.results.courses import read_courses
from stresstest.runs.store import LOGGED


class CellLog:
    """The trackers that were asked for; opening one that does not answer is a `ConfigError`."""

    def __init__(self, targets: Sequence[Target], folder: Path, facts: RunFacts, note: Callable[[str], None]) -> None:
        self._open: dict[Target, Tracker] = {target: open_target(target) for target in targets}
        self._folder, self._facts, self._note = folder, facts, note
        self._told = _told(folder / LOGGED) if targets else set()

    def tell(self, cell: Cell) -> None:
        """Tell a cell that lies in the run directory, if it has a result, to all that do not know it."""
        wanted = [target for target in self._open if (str(target), cell.key) not in self._told]
        if cell.status != "done" or not wanted:
            return
        for target in wanted:
            try:
                self._open[target].log(logged_cell(cell, read_courses(self._folder, cell), self._facts))
                self._remember(target, cell)
            except Exception as error:  # of another package, or its server: no reason to lose a run
                del self._open[target]
                self._note(
                    f"--log {target} failed ({first_line(error)}) and gets no more of this run; training goes on. "
                    "The same command tells it the rest"
                )

    def _remember(self, target: Target, cell: Cell) -> None:
        self._told.add((str(target), cell.key))
        with (self._folder / LOGGED).open("a") as file:
            file.write(json.dumps({"to": str(target), "cell": cell.key}) + "\n")


def _told(path: Path) -> set[tuple[str, str]]:
    """(tracker, cell) of what was told; a last line that was cut short is none."""
    found = set()
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            each = parse_json(line)
            found.add((each["to"], each["cell"]))
    return found
