"""What a model's code does to the process that trains it: the cells beside it are what they are without it.

    python -m tests.torture.workers [--count 200] [--seed 0] [--mib 1024]

Runs of the command line with a model of one's own, each with some deeds, drawn, as variants between witnesses: cells
of the same model without a deed. All of a run's cells are trained by one process after the other: by a worker, or by
the driver itself. The witnesses have the bits of one alone; a deed is recorded with its status and a line that says
it; the exit code says whether one has no result; the same command again says the same; no process is left, and nothing
but the result is on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.torture.deeds import DEEDS, write_model
from tests.torture.stored import Tally, parser

_DEEDS_A_RUN = 6
_TIMEOUT = 12  # seconds of a cell
_DATA_BYTES = 6 << 30  # that a process may take
_LONGEST = 1 << 20  # bytes on stderr
_LEFT = b"processes that the command left: "
_WORDS = (
    "lr-range --model deeds.py:build --seeds 1 --num-steps 25 --hold-steps 20 --no-theory --probes off "
    "--device cpu -j 1 -q --json --run-dir run"
).split()
_OWN = ("key", "variant", "seconds", "probe_seconds", "replay_seconds", "curves_sum")  # of a cell, or of its time


def workers(count: int, seed: int, mib: int = 1) -> Tally:
    """So many deeds, about a third of them in the driver."""
    draw, tally = random.Random(seed), Tally("deeds of a model's code: told wrong, or felt by others")
    left: list[str] = []
    while tally.tries < count:
        if not left:
            left = draw.sample(sorted(DEEDS), len(DEEDS))
        here = draw.random() < 1 / 3
        names = [name for name in left if not here or DEEDS[name].here][: min(_DEEDS_A_RUN, count - tally.tries)]
        left = [name for name in left if name not in names]
        if names:
            one_run(names, here, mib, tally)
    return tally


def one_run(names: Sequence[str], here: bool, mib: int, tally: Tally, commands: int = 2) -> None:
    """A run with these deeds, in the driver or in a worker, by the same command so many times."""
    tally.tries += len(names)
    tally.note("in the driver" if here else "in a worker", len(names))
    with tempfile.TemporaryDirectory() as folder:
        wrong = _faults(Path(folder), names, here, mib, commands)
    tally.wrong += [f"{', '.join(names)} in {'the driver' if here else 'a worker'}: {fault}" for fault in wrong]


def _faults(folder: Path, names: Sequence[str], here: bool, mib: int, commands: int) -> list[str]:
    write_model(folder / "deeds.py")
    variants = ["witness_0", *(word for i, name in enumerate(names, start=1) for word in (name, f"witness_{i}"))]
    words = [*_WORDS, f"--variant={','.join(variants)}", *([] if here else [f"--cell-timeout={_TIMEOUT}"])]
    first, *others = (_command(words, folder, mib) for _ in range(commands))
    code = 4 if any(DEEDS[name].status != "done" for name in names) else 0
    wrong = [f"ended with {done.returncode}" for done in (first, *others) if done.returncode != code]
    for said in (done.stderr for done in (first, *others)):
        if any(sign in said for sign in (b"Traceback", _LEFT)) or (len(said) > _LONGEST and "writes" not in names):
            wrong.append(f"says {len(said)} bytes on stderr: ...{said[-600:].decode(errors='replace')}")
    try:
        cells = {cell["variant"]: cell for cell in json.loads(first.stdout)["cells"]}
        if any(again.stdout != first.stdout for again in others):
            wrong.append("the same command again says something else")
    except ValueError:
        return [*wrong, f"{len(first.stdout)} bytes on stdout cannot be read as a result: {first.stderr[-600:]!r}"]
    return wrong + _of_cells(folder / "run", cells, names)


def _of_cells(run: Path, cells: dict[str, Any], names: Sequence[str]) -> list[str]:
    wrong = []
    for name in names:
        status, last = cells[name]["status"], (cells[name]["error"] or "").strip().split("\n")[-1]
        if status != DEEDS[name].status or DEEDS[name].line not in last:
            wrong.append(f"{name} is {status}: {last!r}")
    numbers = {name: _numbers(run, cell) for name, cell in cells.items() if name.startswith("witness")}
    alone = numbers["witness_0"]
    if len(alone) < 3 or cells["witness_0"]["status"] != "done":
        wrong.append(f"the first witness is {cells['witness_0']}")
    return wrong + [f"{name} is another one: {cells[name]['error']}" for name in numbers if numbers[name] != alone]


def _numbers(run: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """All of a cell that does not depend on its name or on time."""
    found = {name: value for name, value in cell.items() if name not in _OWN}
    curves = run / "curves" / f"{cell['key']}.npz"
    if curves.exists():
        with np.load(curves) as stored:
            found |= {name: stored[name].tobytes() for name in stored if "seconds" not in name}
    return found


def _command(words: Sequence[str], folder: Path, mib: int) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a folder; a process that it leaves running is ended, and told after its output."""
    mark = f"{folder} {random.random()}"
    done = subprocess.run(
        [sys.executable, "-m", "stresstest", *words],
        cwd=folder,
        env={**os.environ, "DEEDS_MIB": str(mib), "DEEDS_MARK": mark},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES)),
    )
    if left := _left(mark):
        done.stderr += _LEFT + f"{left}".encode()
    return done


def _left(mark: str) -> list[str]:
    """The processes that have this mark in their environment: what a command left."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80])
                os.kill(int(process.name), signal.SIGKILL)
    return found


def main() -> int:
    """The long form."""
    asked = parser(__doc__, 200)
    asked.add_argument("--mib", type=int, default=1024, help="that a deed prints")
    given = asked.parse_args()
    return workers(given.count, given.seed, given.mib).end()


if __name__ == "__main__":
    sys.exit(main())
