"""What all torture of the store shares: cells that were never trained, and what a run directory must hold of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stresstest.results.records import Bracket, Cell
from stresstest.runs.store import RunStore, open_run

MANIFEST: Mapping[str, Any] = {
    "identity": "one",
    "command": "lr-range",
    "again": "stresstest lr-range",
    "spec": {"seeds": [0]},
}
MOST = 24  # cells of one run


def key_of(number: int) -> str:
    """The key of a cell."""
    return f"{number:024x}"


def cell(number: int) -> Cell:
    """A cell whose numbers tell which one it is."""
    metrics = {"max_stable_lr": Bracket(low=0.125 * (number + 1), high=0.25 * (number + 1))}
    error = "" if number % 5 else "a warning\nof two lines"
    return Cell(key=key_of(number), variant="pre-ln", depth=6, seed=number, status="done", error=error, metrics=metrics)


def curves(number: int) -> dict[str, Any]:
    """Curves of it, of another length each."""
    return {"ramp_loss": np.linspace(3.0, 1.0 + number, 16 + number), "ramp_lr": np.geomspace(1e-4, 1.0, 16 + number)}


@contextmanager
def opened(path: Path, told: list[str] | None = None) -> Iterator[RunStore]:
    """The run directory, held."""
    with open_run(path, MANIFEST, tell=(told if told is not None else []).append) as store:
        yield store


def go_on(path: Path, acknowledged: Callable[[int], object], most: int = MOST) -> None:
    """What a driver does: take what is there, store what is missing, one cell after the other, and the result."""
    with opened(path) as store:
        store.write_plan([key_of(number) for number in range(most)], [key_of(number) for number in range(most)])
        there = store.finished()
        for number in range(most):
            if key_of(number) not in there:
                store.append(cell(number), curves(number))
                acknowledged(number)
        store.write_result(['{\n "cells": 0\n}\n'])


def faults(path: Path, acknowledged: set[int]) -> list[str]:
    """What is wrong with a run directory: a cell that was acknowledged and is lost, one that is changed or twice."""
    told: list[str] = []
    with opened(path, told) as store:
        found = store.finished()
    wrong = [f"told of damage: {text}" for text in told]
    wrong += [f"cell {number} is lost" for number in sorted(acknowledged) if key_of(number) not in found]
    for key, one in found.items():
        number = int(key, 16)
        if one.model_copy(update={"curves_sum": ""}) != cell(number):
            wrong.append(f"cell {number} is changed")
        with np.load(path / "curves" / f"{key}.npz") as stored:
            if any(not np.array_equal(stored[name], curve) for name, curve in curves(number).items()):
                wrong.append(f"the curves of cell {number} are changed")
    keys = [line.split('"')[3] for line in (path / "cells.jsonl").read_text().splitlines()] if found else []
    wrong += [f"cell {key} is there twice" for key in {key for key in keys if keys.count(key) > 1}]
    return wrong


@dataclass
class Tally:
    """How often it was tried, what went wrong, and how long it took."""

    what: str
    started: float = field(default_factory=time.perf_counter)
    tries: int = 0
    wrong: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str, number: int = 1) -> None:
        """Count something beside the tries."""
        self.counts[kind] = self.counts.get(kind, 0) + number

    def line(self) -> str:
        """The line of result."""
        beside = "".join(f", {number:,} {kind}" for kind, number in self.counts.items())
        seconds = time.perf_counter() - self.started
        return f"{self.what}: {len(self.wrong)} wrong of {self.tries:,}{beside}; {seconds:.0f} s"

    def end(self) -> int:
        """Print the line, with the first that went wrong; the exit code."""
        print(self.line())
        for text in self.wrong[:10]:
            print(f"  {text}")
        return int(bool(self.wrong))


def arguments(about: str | None, count: int) -> argparse.Namespace:
    """--count and --seed of a script, whose first line says what it does."""
    return parser(about, count).parse_args()


def parser(about: str | None, count: int) -> argparse.ArgumentParser:
    """Of a script that has more options."""
    found = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    found.add_argument("--count", type=int, default=count)
    found.add_argument("--seed", type=int, default=0)
    return found
