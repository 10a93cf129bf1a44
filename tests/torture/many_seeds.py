"""Ten times the seeds: what reducing, the report, its page and the tables of every experiment take then.

    python -m tests.torture.many_seeds [--count 3000] [--seed 0]

A tiny run of each experiment is trained, and its cells are repeated as those of other seeds: so many times, and a tenth
of that. What is linear takes ten times as long, what looks at all seeds for each seed a hundred times.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from stresstest import api
from stresstest.experiments.reduction import result_of
from stresstest.experiments.result_views import document_of
from stresstest.reports.output import render
from stresstest.results.records import Cell, Result
from stresstest.results.tables import result_tables
from tests.experiments.test_conformance import SHAPE, TINY
from tests.torture.stored import arguments

_MOST = 30.0  # times as long for ten times the seeds
_LEAST = 0.1  # seconds of a CPU that count as a time


def seconds_of(result: Result, times: int) -> dict[str, float]:
    """Of a CPU, for each step from the cells of so many times the seeds to what is read."""
    cells = repeated(result.cells, times)
    manifest = {**vars(result), "spec": {**result.spec, "seeds": list(dict.fromkeys(cell.seed for cell in cells))}}
    made: dict[str, Any] = {}
    steps: dict[str, Callable[[], Any]] = {
        "reduce": lambda: result_of(manifest, cells),
        "report": lambda: document_of(made["reduce"]),
        "page": lambda: render(made["report"], "html"),
        "tables": lambda: result_tables(made["reduce"]),
        "json": lambda: sum(map(len, made["reduce"].json_parts())),
    }
    found = {}
    for name, step in steps.items():
        begun = time.process_time()
        made[name] = step()
        found[name] = time.process_time() - begun
    return found


def repeated(cells: Sequence[Cell], times: int) -> list[Cell]:
    """The cells so many times, each time under other keys and seeds."""
    seeds = 1 + max(cell.seed for cell in cells)
    return [
        cell.model_copy(update={"key": f"{cell.key}{place}", "seed": cell.seed + seeds * place})
        for place in range(times)
        for cell in cells
    ]


def main(count: int, seed: int) -> int:
    """A line for each experiment; 1 where a step takes more than 30 times as long for ten times the seeds."""
    slow = 0
    for name, settings in TINY.items():
        given = SHAPE | settings | {"seeds": (seed, seed + 1)}
        trained = getattr(api, name.replace("-", "_"))("decoder", **given, device="cpu", quiet=True)
        few, many = (seconds_of(trained, times) for times in (count // 10, count))
        slow += sum(many[step] > _MOST * max(_LEAST, few[step]) for step in few)
        told = "; ".join(f"{step} {few[step]:.1f} to {many[step]:.1f} s" for step in few)
        print(
            f"{name}, {count // 10 * len(trained.cells):,} to {count * len(trained.cells):,} cells: {told}", flush=True
        )
    return int(slow > 0)


if __name__ == "__main__":
    asked = arguments(__doc__, 3000)
    sys.exit(main(asked.count, asked.seed))
