"""A run of very many cells: what it takes to list its state, and to go on with it.

    python -m tests.torture.many_cells [--count 100000] [--seed 0]

The command is begun, and all cells but one are written as it would have written them: copies of the first under their
own keys, with other numbers. Then `status` and the command itself run on it, at a tenth of the cells first, so that a
time or memory that grows faster than the cells shows.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Bracket
from stresstest.runs.cell_lines import line_of
from stresstest.runs.directory import stored_cells
from stresstest.specs.profiles import make_spec
from tests.torture.byte_changes import TINY
from tests.torture.stored import arguments

LIMITS = {"status": 3.0, "resume": 30.0}  # seconds, of 100,000 cells
_VARIANTS = tuple(f"rezero:alpha={share / 100:g}" for share in range(1, 101))
_TIMED = """
import sys, time
from stresstest.cli.main import run
begun = time.perf_counter()
code = run(sys.argv[1:])
seconds = time.perf_counter() - begun
from stresstest.engine.machine import peak_memory
print(f"{code} {seconds:.3f} {time.process_time():.3f} {(peak_memory() or 0) / 2**20:.0f}", file=sys.stderr)
"""


def many_cells(count: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Seconds, those of a CPU, and MiB of each command on a run of so many cells; one that fails raises."""
    settings = {**TINY, "variant": _VARIANTS, "seeds": range(count // 100), "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        command = [*command_of(count), "-j", "1", "--run-dir", str(path)]
        _timed([*command, "--max-cells", "1"])
        _fill(path, plan(make_spec(LrRangeSpec, "quick", settings)).cells, random.Random(seed))
        return {"status": _timed(["status", str(path)]), "resume": _timed(command)}


def command_of(count: int) -> list[str]:
    """A command of so many tiny cells, to the hundred."""
    options = [
        f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name not in ("variant", "theory")
    ]
    options += ["--no-theory", f"--variant={','.join(_VARIANTS)}", f"--seeds={count // 100}", "--device=cpu"]
    return ["lr-range", "-q", *options]


def _fill(path: Path, cells: Sequence[CellPlan], draw: random.Random) -> None:
    """Every planned cell that is not there yet, like the first that is."""
    (first,) = stored_cells(path).values()
    curves = (path / "curves" / f"{first.key}.npz").read_bytes()
    assert first.key in {planned.key for planned in cells}
    with (path / "cells.jsonl").open("ab") as lines:
        for planned in cells:
            if planned.key == first.key:
                continue
            (path / "curves" / f"{planned.key}.npz").write_bytes(curves)
            lr = 2.0 ** draw.randrange(-8, 0)
            metrics = {**first.metrics, "max_stable_lr": Bracket(low=lr, high=2 * lr)}
            one = {"key": planned.key, "variant": planned.variant, "seed": planned.seed, "metrics": metrics}
            lines.write(line_of(first.model_copy(update=one)))


def _timed(words: Sequence[str]) -> tuple[float, float, float]:
    done = subprocess.run([sys.executable, "-c", _TIMED, *words], capture_output=True, text=True, check=True)
    code, seconds, cpu, mib = done.stderr.splitlines()[-1].split()
    if int(code) not in (0, 75):
        raise SystemExit(f"{' '.join(words)} ended with {code}: {done.stderr}")
    return float(seconds), float(cpu), float(mib)


def main(count: int, seed: int) -> int:
    """A line for each command; 1 where one is above its limit."""
    few, many = (many_cells(number, seed) for number in (count // 10, count))
    slow = 0
    for name, (seconds, cpu, mib) in many.items():
        limit = LIMITS[name] * count / 100_000
        slow += seconds > limit
        print(
            f"{name} of {count:,} cells: {seconds:.1f} s (at most {limit:g}), of a CPU {cpu:.1f}, {mib:.0f} MiB; "
            f"of {count // 10:,}: {few[name][0]:.1f} s, of a CPU {few[name][1]:.1f}, {few[name][2]:.0f} MiB",
            flush=True,
        )
    return int(slow > 0)


if __name__ == "__main__":
    given = arguments(__doc__, 100_000)
    sys.exit(main(given.count, given.seed))
