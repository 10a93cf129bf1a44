"""The executor of `--parallel fsdp`: each cell on all ranks, and a note of the one under way for ranks after these."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresstest.errors import ExitCode, InterruptedRunError
from stresstest.json_text import parse_json
from stresstest.runs.executor import Answer, Done, Hooks, Task
from stresstest.runs.ranks import LEFT, STOPPED, RanksLostError, ranks
from stresstest.runs.stopping import stopping

_ATTEMPTS = 2  # of a cell in which all ranks died


@dataclass(frozen=True)
class AllRanks:
    """An `Executor` that does each task on every rank. `name` is a task's own, for a note of what is under way.

    A task in which a rank died fails, also where this one died: then its note in the `folder` says so.
    """

    folder: Path
    name: Callable[[Any], str]

    def run(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks = Hooks()
    ) -> Generator[Done[Task, Answer], None, None]:
        """See `Executor`."""
        group = ranks()
        note = _Note(self.folder / "in-training.json", group.here.restarts)
        with stopping(hooks.on_stop) as signals:
            for task in tasks:
                if signals.code is not None:
                    raise signals.error
                hooks.on_start(task)
                if note.tells_of(self.name(task)):
                    yield Done(task, None, "crashed", "a rank died in this cell; --retry-errors tries it again")
                    note.remove()
                    continue
                note.write(self.name(task))
                try:
                    answer, (kind, text, _) = group.train(work, task)
                except BaseException:  # this rank is alive and says what happened
                    note.remove()
                    raise
                if kind == STOPPED:
                    note.remove()
                    raise signals.error if signals.code else InterruptedRunError("interrupted", ExitCode.TERMINATED)
                yield Done(task, answer, "" if answer is not None else "crashed", text)
                note.remove()
                if kind == LEFT:
                    raise RanksLostError(
                        f"a rank was lost ({text.splitlines()[-1][:200]}); its cell is recorded as crashed. The same "
                        "command goes on with the next cell; torchrun --max-restarts N does so by itself"
                    )
            if signals.code is not None:
                raise signals.error


class _Note:
    """Which task is under way, on the disk: for the ranks that come after these."""

    def __init__(self, path: Path, restarts: int) -> None:
        self._path = path
        self._restarts = restarts

    def tells_of(self, name: str) -> bool:
        """Whether ranks died in this task: torchrun has restarted them since, or it was begun as often as it may be."""
        found = self._read()
        return found.get("name") == name and (self._restarts > 0 or int(found["begun"]) >= _ATTEMPTS)

    def write(self, name: str) -> None:
        found = self._read()
        begun = int(found["begun"]) if found.get("name") == name else 0
        self._path.write_text(json.dumps({"name": name, "begun": begun + 1}) + "\n")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = parse_json(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found
