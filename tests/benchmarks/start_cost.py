"""What a command line that only looks costs to start, two builds in turn. Run by hand:

    python tests/benchmarks/start_cost.py BASE [HEAD] [--rounds 9] [--markdown]

BASE and HEAD are folders of this repository or commits of it; HEAD is this folder by default. It prints the CPU seconds
(user and system) of the process, as the installed script and as `python -m stresstest`; one round is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from tables import show
from turns import ratio

ROOT = Path(__file__).resolve().parents[2]
LINES = ("--help", "list", "status", "status RUN", "lr-range --help", "report")
STARTS = {
    "stresstest": [str(Path(sys.executable).parent / "stresstest")],
    "python -m stresstest": [sys.executable, "-m", "stresstest"],
}
RUN = "run"
TINY = (
    "lr-range --depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 2 --num-steps 20 --hold-steps 20 --variant pre-ln "
    f"--seeds 2 -j 1 -q --device cpu --run-dir .stresstest/runs/{RUN}"
).split()


def seconds(start: Sequence[str], args: Sequence[str], build: Path, folder: Path) -> float:
    """CPU time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"}
    subprocess.run([*start, *args], cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(name: str, line: str, builds: Sequence[Path], folder: Path, rounds: int) -> list[str]:
    """A line of the table."""
    args = [f".stresstest/runs/{RUN}" if word == "RUN" else word for word in line.split()]
    found: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        for times, build in zip(found, builds, strict=True):
            times.append(seconds(STARTS[name], args, build, folder))
    base, head = (times[1:] for times in found)
    each = [f"{median(times):.3f} ({min(times):.3f} to {max(times):.3f})" for times in (base, head)]
    return [f"`{name} {line}`", *each, ratio(head, base)]


@contextlib.contextmanager
def checkout(build: str) -> Iterator[Path]:
    """The folder of a build: itself, or a commit's tree for as long as this lasts."""
    if Path(build).is_dir():
        yield Path(build).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), build], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def main() -> None:
    """Make a run to look at, start every line in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", default=str(ROOT))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    with checkout(asked.base) as base, checkout(asked.head) as head, tempfile.TemporaryDirectory() as folder:
        seconds(STARTS["python -m stresstest"], TINY, base, Path(folder))
        rows = [row(name, line, (base, head), Path(folder), asked.rounds) for name in STARTS for line in LINES]
    show(["line", "base, CPU s", "head, CPU s", "head / base"], rows, asked.markdown)


if __name__ == "__main__":
    main()
