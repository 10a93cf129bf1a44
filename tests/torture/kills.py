"""SIGKILL of the driver before a random system call while it stores cells: what was acknowledged is there, unchanged.

    python -m tests.torture.kills [--count 10000] [--seed 0]

A child opens the run, goes on with it and dies by SIGKILL before a call that was drawn: between two calls a kill leaves
the same files. What it said to have stored is kept by the parent. A run that is whole is begun anew. No training.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from stresstest.runs.directory import stored_status
from tests.torture.calls import Call, watched
from tests.torture.stored import MOST, Tally, arguments, faults, go_on

_MOST_CALLS = 80  # until a kill: a dozen cells


def kills(count: int, seed: int) -> Tally:
    """So many kills."""
    draw, tally = random.Random(seed), Tally("SIGKILLs: cells lost, doubled or changed")
    with tempfile.TemporaryDirectory() as folder:
        path, acknowledged = Path(folder) / "run", set[int]()
        while tally.tries < count:
            said, killed = _child(path, draw.randrange(_MOST_CALLS))
            acknowledged |= said
            tally.tries += killed
            tally.note("cells stored", len(said))
            tally.wrong += [f"try {tally.tries}: {fault}" for fault in faults(path, acknowledged)]
            if len(stored_status(path)) == MOST:
                tally.note("runs that ended whole")
                shutil.rmtree(path)
                acknowledged = set()
    return tally


def _child(path: Path, calls: int) -> tuple[set[int], bool]:
    """What a child said to have stored until it was killed, and whether it was before it had ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        left = calls

        def die(_: Call) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with watched(path, die):
                go_on(path, lambda number: os.write(writer, bytes([number])))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = set(stream.read())
    _, status = os.waitpid(child, 0)
    return said, os.WIFSIGNALED(status)


if __name__ == "__main__":
    given = arguments(__doc__, 10_000)
    sys.exit(kills(given.count, given.seed).end())
