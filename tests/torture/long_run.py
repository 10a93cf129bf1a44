"""A run of thousands of cells: do the driver's and the workers' memory and open files stay as they are?

    python -m tests.torture.long_run [--count 20000] [--seconds 3600]

Tiny cells are trained by two workers, as many as there is time for; 24 hours of two workers are 2,880 cells of a
minute. A process may keep what it says of each cell, and nothing else: a worker's memory and every process's open files
are the same in the last fifth of the time as in the second, and the driver's memory grows by its cells, evenly.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stresstest.runs.directory import stored_status
from tests.torture.many_cells import command_of
from tests.torture.stored import parser

_EVERY = 2.0  # seconds between two looks
_MIB = 2.0**20
_MORE_OF_A_WORKER = 8.0  # MiB, of a hundred times as much
_EVEN = 2.0  # times: KiB a cell of the driver in the second half, by that of the first
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Look:
    """One moment: cells that are stored, MiB and open files of the driver, and the most of a worker."""

    cells: int
    driver_mib: float
    driver_files: int
    worker_mib: float
    worker_files: int


def long_run(count: int, seconds: float) -> tuple[list[Look], int | None]:
    """Looks at a run until it ends or is told to, and its exit code; `None` where it would not end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        words = [*command_of(count), "-j", "2", "--run-dir", str(path)]
        driver = subprocess.Popen(
            [sys.executable, "-m", "stresstest", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        looks, begun = list[Look](), time.monotonic()
        while driver.poll() is None and time.monotonic() < begun + seconds:
            time.sleep(_EVERY)
            if look := _look(driver.pid, path):
                looks.append(look)
        if driver.poll() is None:
            driver.send_signal(signal.SIGINT)
        try:
            return looks, driver.wait(timeout=300)
        except subprocess.TimeoutExpired:
            driver.kill()
            return looks, None


def _look(driver: int, path: Path) -> Look | None:
    """`None` before the first worker begins, or where one has just ended."""
    try:
        workers = [int(child) for child in Path(f"/proc/{driver}/task/{driver}/children").read_text().split()]
        workers = [each for each in workers if "spawn_main" in Path(f"/proc/{each}/cmdline").read_text()]
        most = max(map(_mib, workers)), max(map(_files, workers))
        return Look(len(stored_status(path)), _mib(driver), _files(driver), *most)
    except (OSError, ValueError):
        return None


def _mib(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE / _MIB


def _files(process: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def faults(looks: Sequence[Look]) -> list[str]:
    """What grows that should not."""
    fifth = len(looks) // 5
    if fifth < 3:
        return [f"{len(looks)} looks are too few"]
    second, last = looks[fifth : 2 * fifth], looks[-fifth:]

    def grown(name: str) -> float:
        return statistics.median(getattr(one, name) for one in last) - statistics.median(
            getattr(one, name) for one in second
        )

    wrong = [f"{name} grow by {grown(name):g}" for name in ("driver_files", "worker_files") if grown(name) > 0]
    if grown("worker_mib") > _MORE_OF_A_WORKER:
        wrong.append(f"a worker grows by {grown('worker_mib'):.1f} MiB")
    early, late = (_kib_a_cell(part) for part in (looks[fifth : len(looks) // 2], looks[len(looks) // 2 :]))
    if late > _EVEN * early:
        wrong.append(f"the driver grows by {early:.0f} KiB a cell, and later by {late:.0f}")
    return wrong


def _kib_a_cell(looks: Sequence[Look]) -> float:
    return 1024 * (looks[-1].driver_mib - looks[0].driver_mib) / max(1, looks[-1].cells - looks[0].cells)


def main() -> int:
    """Print a line of result, and what grows."""
    options = parser(__doc__, 20_000)
    options.add_argument("--seconds", type=float, default=3600.0)
    given = options.parse_args()
    looks, code = long_run(given.count, given.seconds)
    if not looks:
        raise SystemExit(f"it ended with {code}")
    wrong = faults(looks) + ([] if code in (0, 130) else [f"it ended with {code}"])
    first, last = looks[len(looks) // 5], looks[-1]
    print(
        f"a long run: {len(wrong)} wrong, {last.cells:,} cells; driver {first.driver_mib:.0f} to {last.driver_mib:.0f} "
        f"MiB ({_kib_a_cell(looks[len(looks) // 5 :]):.0f} KiB a cell), {first.driver_files} to {last.driver_files} "
        f"files; worker {first.worker_mib:.0f} to {last.worker_mib:.0f} MiB, {first.worker_files} to "
        f"{last.worker_files} files"
    )
    for text in wrong:
        print(f"  {text}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
