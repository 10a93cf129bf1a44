"""Every system call of the store fails once: one line, nothing lost, and the same line goes on.

    python -m tests.torture.failing_calls

A run is begun, broken off, gone on with and ended; each of its calls that changes a file fails once with ENOSPC, EIO,
EMFILE, EROFS and EINTR. What comes of it is an error of one line or nothing at all; every cell that was acknowledged is
there; going on without a fault gives all of them.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stresstest.errors import StresstestError
from tests.torture.calls import Call, watched
from tests.torture.stored import MOST, Tally, arguments, faults, go_on

ERRORS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS, errno.EINTR)
_FEW = 3  # cells of a run


def failing_calls(errors: Sequence[int] = ERRORS, every: int = 1) -> Tally:
    """Each call, or every n-th, with each of these errors."""
    tally = Tally("failing system calls: more than a line, or cells lost, doubled or changed")
    calls: list[Call] = []
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder) / "run", calls.append):
        _work(Path(folder) / "run", set())
    for number in range(0, len(calls), every):
        for error in errors:
            with tempfile.TemporaryDirectory() as folder:
                tally.tries += 1
                name = f"{calls[number].name} {Path(calls[number].path).name} ({number}), {errno.errorcode[error]}"
                tally.wrong += [f"{name}: {fault}" for fault in _failed(Path(folder) / "run", number, error, tally)]
    return tally


def _work(path: Path, acknowledged: set[int]) -> None:
    go_on(path, acknowledged.add, _FEW - 1)
    go_on(path, acknowledged.add, _FEW)


def _failed(path: Path, number: int, error: int, tally: Tally) -> list[str]:
    """What is wrong where the call of this number fails."""
    left, acknowledged, wrong = number, set[int](), []

    def fail(_: Call) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise OSError(error, os.strerror(error))

    try:
        with watched(path, fail):
            _work(path, acknowledged)
        tally.note("went on")
    except StresstestError as said:
        tally.note("ended with a line")
        if len(str(said).splitlines()) != 1 or str(path) not in str(said):
            wrong.append(f"says {str(said)!r}")
    except OSError as bare:
        wrong.append(f"ends with {type(bare).__name__}: {bare}")
    wrong += faults(path, acknowledged)
    go_on(path, lambda number: None, _FEW)
    return wrong + [f"after going on: {fault}" for fault in faults(path, set(range(_FEW)))]


if __name__ == "__main__":
    arguments(__doc__, MOST)
    sys.exit(failing_calls().end())
