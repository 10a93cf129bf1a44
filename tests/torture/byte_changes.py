"""Single bytes of stored files change: told, or without any effect on what is read; never another number.

    python -m tests.torture.byte_changes [--count 10000] [--seed 0]

A small learning-rate range test is trained and stored. Then, time and again, one byte of one of its files is another
one, and the run is read in every way there is: its result, its cells, its curves, its status, its page, and by a driver
that goes on with it. What is read is what it was, or an error of one line names the file.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import stresstest
from stresstest.commands.run_index import index_runs
from stresstest.errors import ConfigError, StresstestError
from stresstest.results.courses import read_courses
from stresstest.results.records import Result, read_result
from stresstest.runs.directory import planned_cells, read_manifest, stored_cells, stored_status
from stresstest.runs.status import read_status
from stresstest.runs.store import open_run
from tests.torture.stored import Tally, arguments

# Made of the cells, for people, or written again and again.
_UNREAD = ("report.html", "lock", "progress.json")
_WRITTEN_AGAIN = ("cells.jsonl", "manifest.json", "result.json", "result.sum", "answer.json")
TINY: Mapping[str, Any] = {
    "variant": ["pre-ln"],
    "depth": 1,
    "width": 8,
    "heads": 2,
    "seq_len": 8,
    "batch_size": 2,
    "num_steps": 50,
    "hold_steps": 50,
    "theory": False,
    "probes": "off",
}


def byte_changes(count: int, seed: int) -> Tally:
    """So many changes, the bytes of small files as often as those of large ones."""
    draw, tally = random.Random(seed), Tally("changed bytes: unseen, or another number")
    with tempfile.TemporaryDirectory() as folder:
        whole, path = Path(folder) / "whole", Path(folder) / "run"
        result = stresstest.lr_range("decoder", seeds=2, device="cpu", quiet=True, run_dir=whole, **TINY)
        files = [file for file in sorted(whole.rglob("*")) if file.is_file() and file.name not in _UNREAD]
        manifest = read_manifest(whole) or {}
        shutil.copytree(whole, path)
        before = {name: reading(path, result, manifest) for name, reading in READINGS.items()}
        for _ in range(count):
            file = draw.choice(files)
            content = file.read_bytes()
            if not content:
                continue
            at, other = draw.randrange(len(content)), draw.randrange(1, 256)
            mine = path / file.relative_to(whole)
            mine.write_bytes(content[:at] + bytes([content[at] ^ other]) + content[at + 1 :])
            place = f"{file.relative_to(whole)}, byte {at} of {len(content)}, xor {other}"
            tally.tries += 1
            tally.wrong += [f"{place}: {fault}" for fault in _faults(path, result, manifest, before, tally)]
            for part in (mine, *(path / name for name in _WRITTEN_AGAIN)):
                if (whole / part.relative_to(path)).exists():
                    shutil.copyfile(whole / part.relative_to(path), part)
            (path / "damaged.jsonl").unlink(missing_ok=True)
    return tally


def _faults(
    path: Path, result: Result, manifest: Mapping[str, Any], before: Mapping[str, Any], tally: Tally
) -> list[str]:
    """What is read otherwise than it was, and not told."""
    wrong, told = [], False
    for name, reading in READINGS.items():
        try:
            found = reading(path, result, manifest)
        except StresstestError as error:
            told = True
            if len(str(error).splitlines()) != 1:
                wrong.append(f"{name} says {str(error)!r}")
        except Exception as error:
            wrong.append(f"{name} ends with {type(error).__name__}: {error}")
        else:
            if name in _FEWER:
                wrong += [f"{name} has another {key}" for key in found if found[key] != before[name].get(key)]
                told = told or found.keys() < before[name].keys()
            elif found != before[name]:
                wrong.append(f"{name} reads otherwise")
    tally.note("told" if told else "without effect")
    return wrong


def _gone_on(path: Path, result: Result, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a driver finds that goes on with the run, which hears of what it does not find."""
    told: list[str] = []
    with open_run(path, manifest, tell=told.append) as store:
        found = store.finished()
    if len(found) < len(result.cells) and not told and not _cut_at_the_end(path):
        raise AssertionError("a cell is missing, and nothing was told")
    return dict(found)


def _cut_at_the_end(path: Path) -> bool:
    """Whether the last line was taken for one that a crash cut short, which is trained again without a word."""
    return not (path / "damaged.jsonl").exists()


def _listed(path: Path, *_: object) -> tuple[str, str, str]:
    """What the list of runs says."""
    run = next(run for run in index_runs(path.parent) if run.path == path)
    if run.verdict.startswith("cannot be read: ") or "damaged" in run.cells:
        raise ConfigError(f"{run.cells} {run.verdict}")
    return run.verdict, run.cells, run.model


def _curves(path: Path, result: Result, _: object) -> list[str]:
    return [repr(course) for cell in result.cells for course in read_courses(path, cell)]


READINGS: Mapping[str, Callable[[Path, Result, Mapping[str, Any]], Any]] = {
    "the result": lambda path, *_: read_result(path / "result.json").to_json(),
    "the manifest": lambda path, *_: read_manifest(path),
    "the plan": lambda path, *_: planned_cells(path),
    "the cells": lambda path, *_: stored_cells(path),
    "the status of cells": lambda path, *_: stored_status(path),
    "the status": lambda path, *_: read_status(path).total,
    "the curves": _curves,
    "the list of runs": _listed,
    "going on": _gone_on,
}
_FEWER = ("the cells", "the status of cells", "going on")  # what is damaged is left out


if __name__ == "__main__":
    given = arguments(__doc__, 10_000)
    sys.exit(byte_changes(given.count, given.seed).end())
