"""Two drivers on one run directory, a clock that goes back, a file system without locks: nothing lost, a line said.

    python -m tests.torture.two_drivers [--count 1000] [--seed 0]

Two drivers: two processes go on with one run at the same moment, from a moment that is drawn, until all its cells are
there. A clock: drivers begin, go on, begin anew and change their settings, and before each the clock jumps by up to
ten years, or stands still; every cell that was stored is in the run's file or in one that was set aside, and no
directory is taken twice. No locks: the lock of a run fails with each error that file systems give. No training.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from unittest import mock

from stresstest.errors import ConfigError
from stresstest.runs import directory, store
from stresstest.runs.cell_lines import whole_lines
from stresstest.runs.directory import choose_directory, stored_status
from stresstest.runs.status import read_status
from stresstest.runs.store import open_run
from tests.torture.stored import MANIFEST, MOST, Tally, arguments, cell, curves, faults, go_on, key_of

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF, errno.EIO, errno.ESTALE)
_YEARS = 10 * 365 * 86400.0  # seconds
_STEPS = 8  # of a run whose clock jumps


def two_drivers(count: int, seed: int) -> Tally:
    """So many runs, each by two drivers."""
    draw, tally = random.Random(seed), Tally("two drivers: cells lost, doubled or changed, or more than a line")
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run"
            pauses = [draw.random() * 0.02 for _ in range(2)]
            children = [_driver(path, pause, draw.randrange(1, MOST)) for pause in pauses]
            acknowledged, refused = set[int](), 0
            for reader, child in children:
                with os.fdopen(reader, "rb") as stream:
                    said = stream.read()
                os.waitpid(child, 0)
                acknowledged |= set(said) - {254, 255}
                refused += said.count(255)
                tally.wrong += [f"try {tally.tries}: a driver said something else"] * said.count(254)
            tally.tries += 1
            tally.note("times refused", refused)
            tally.wrong += [f"try {tally.tries}: {fault}" for fault in faults(path, acknowledged)]
            if set(stored_status(path)) != {key_of(number) for number in range(MOST)}:
                tally.wrong.append(f"try {tally.tries}: not all cells are there")
    return tally


def _driver(path: Path, pause: float, most: int) -> tuple[int, int]:
    """A child that goes on with a run until all is there: first with some of it, so that both come and go."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return reader, child
    try:
        time.sleep(pause)
        for wanted in (most, MOST):
            while not _went_on(path, writer, wanted):
                time.sleep(pause)
    finally:
        os._exit(0)


def _went_on(path: Path, writer: int, most: int) -> bool:
    """Whether a driver was let in: 255 says that it was refused in a line, 254 that it said something else."""
    try:
        go_on(path, lambda number: os.write(writer, bytes([number])), most)
    except ConfigError as error:
        lines = [f"run directory {path} is in use by {who}" for who in ("process ", "another process;")]
        told = str(error).startswith(tuple(lines)) and "\n" not in str(error)
        os.write(writer, b"\xff" if told else b"\xfe")  # another: whose lock has no name in it yet
        return False
    except BaseException:
        os.write(writer, b"\xfe")
        raise
    return True


def clock_jumps(count: int, seed: int) -> Tally:
    """So many steps of drivers, with a jump of the clock before each."""
    draw, tally = random.Random(seed), Tally("clock that jumps: cells lost or changed, or a directory taken twice")
    while tally.tries < count:
        with tempfile.TemporaryDirectory() as folder:
            tally.wrong += [f"try {tally.tries}: {fault}" for fault in _jumps(Path(folder), draw, tally)]
    return tally


def _jumps(root: Path, draw: random.Random, tally: Tally) -> Iterator[str]:
    """What is wrong after each of some steps."""
    path, stored = root / "runs" / "run", 0
    stands = draw.random() < 0.3
    for step in range(_STEPS):
        now = 1.8e9 if stands and step else 1.8e9 + draw.uniform(-_YEARS, _YEARS)
        kind = draw.choice(("go on", "anew", "other settings", "another directory"))
        tally.tries += 1
        tally.note(kind)
        with _clock(now), mock.patch.object(directory, "DEFAULT_ROOT", root / "runs"):
            if kind == "another directory":
                free = choose_directory(None, {"no such"}, "lr-range", fresh=True)
                if free.exists():
                    yield f"{free.name} is taken twice"
                free.mkdir(parents=True)
                continue
            identity = f"settings {step}" if kind == "other settings" else "one"
            with open_run(path, {**MANIFEST, "identity": identity}, fresh=kind == "anew") as run:
                there = run.finished()
                for number in (number for number in range(MOST) if key_of(number) not in there):
                    run.append(cell(number), curves(number))
                    stored += 1
                    break
                run.write_result(["{}\n"])
            left = read_status(path).seconds_left
        if left is not None and left < 0:
            yield f"{left} seconds are left"
        os.utime(path / "cells.jsonl", (now, now))
    lines = sum(len(list(whole_lines(_as_cells(file, root)))) for file in path.glob("cells*.jsonl"))
    if lines != stored:
        yield f"{stored} cells were stored, {lines} are there"


def _as_cells(file: Path, root: Path) -> Path:
    """A folder that has a file's lines as its cells."""
    folder = root / "looked at"
    folder.mkdir(exist_ok=True)
    (folder / "cells.jsonl").write_bytes(file.read_bytes())
    return folder


@contextlib.contextmanager
def _clock(now: float) -> Iterator[None]:
    """The time of day is this one, and stands still."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(now, tz)

    with (
        mock.patch.object(store, "datetime", Clock),
        mock.patch.object(directory, "datetime", Clock),
        mock.patch.object(time, "time", return_value=now),
    ):
        yield


def no_locks() -> Tally:
    """Each error of a lock, on a run that is new and on one that has cells."""
    tally = Tally("file systems without locks: no line, or cells lost or changed")
    for error in NO_LOCKS:
        for has_cells in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "run"
                acknowledged = set[int]()
                if has_cells:
                    go_on(path, acknowledged.add, 3)
                tally.tries += 1
                name = f"{errno.errorcode[error]}, {'a run' if has_cells else 'none there'}"
                tally.wrong += [f"{name}: {fault}" for fault in _without_locks(path, error)]
                tally.wrong += [f"{name}: {fault}" for fault in (faults(path, acknowledged) if has_cells else ())]
    return tally


def _without_locks(path: Path, error: int) -> Iterator[str]:
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    with mock.patch.multiple(fcntl, flock=fail, lockf=fail):
        try:
            go_on(path, lambda number: None, MOST)
        except ConfigError as said:
            if "\n" in str(said) or not str(said).startswith(f"run directory {path} cannot be locked ("):
                yield f"says {str(said)!r}"
        except Exception as bare:
            yield f"ends with {type(bare).__name__}: {bare}"
        else:
            yield "goes on without a lock"
        if (path / "manifest.json").exists() and read_status(path).holder is not None:
            yield "its status names a holder"


def main(count: int, seed: int) -> int:
    """A line of result for each."""
    return max(two_drivers(count, seed).end(), clock_jumps(count, seed).end(), no_locks().end())


if __name__ == "__main__":
    given = arguments(__doc__, 1000)
    sys.exit(main(given.count, given.seed))
