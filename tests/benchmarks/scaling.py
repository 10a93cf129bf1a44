"""A sweep of 40 small cells with one process and with two, start-up counted. Run by hand:

    python tests/benchmarks/scaling.py [--rounds 3] [--jobs 2]

Whole processes of `stresstest lr-range`, in turn; ratios are taken round by round. The results must be equal, cell by
cell, bit for bit, but for how long they took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tables import show
from turns import ratio

from stresstest.runs.identity import environment

LINE = (
    "lr-range --variant post-ln,pre-ln,normformer,rezero,deepnorm --seeds 8 --depth 3 --width 32 --heads 2 --seq-len "
    "32 --device cpu --json -q"
).split()


def main() -> None:
    """Take turns, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], asked.jobs: []}
    results = []
    for _ in range(asked.rounds):
        for jobs, found in seconds.items():
            started = time.perf_counter()
            results.append(sweep(jobs))
            found.append(time.perf_counter() - started)
    assert all(result == results[0] for result in results), "the results differ"
    print(f"{len(results[0])} cells, on {environment('cpu', 'float32')['device_name']}; {len(results)} equal results")
    show(
        ["processes", "seconds, median", "times faster, median (min to max)"],
        [
            ["1", f"{statistics.median(seconds[1]):.1f}", ""],
            [f"{asked.jobs}", f"{statistics.median(seconds[asked.jobs]):.1f}", ratio(seconds[1], seconds[asked.jobs])],
        ],
        markdown=False,
    )


def sweep(jobs: int) -> list[Any]:
    """The cells of a fresh run, without how long they took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stresstest", *LINE, "-j", str(jobs), "--run-dir", str(Path(folder) / "run")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    cells: list[Any] = json.loads(done.stdout)["cells"]
    assert all(cell["status"] == "done" for cell in cells)
    for cell in cells:
        del cell["seconds"]
    return cells


if __name__ == "__main__":
    main()
