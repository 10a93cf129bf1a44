"""How a run of many cells resumes, and how soon its status is known. Run by hand:

    python tests/benchmarks/big_run.py [--cells 10000]

One real cell (of a small decoder, with everything that a cell of `lr-range` records) is trained and stored under the
keys of all cells of a run but one. Then the run is resumed, as a process of its own: the time from its
start to when it says what was finished before and trains the rest; and `status`: the whole process, and the
part of it after the imports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import show

from stresstest.experiments.cells import run
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan
from stresstest.runs.identity import environment
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec

VARIANTS = ("post-ln", "pre-ln", "normformer", "rezero", "deepnorm")
STATUS = """
import sys, time
from pathlib import Path
from stresstest.runs.status import read_status
started = time.perf_counter()
status = read_status(Path(sys.argv[1]))
print(sum(status.statuses.values()), time.perf_counter() - started)
"""


def main() -> None:
    """Store, resume, ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=10_000)
    asked = parser.parse_args()
    seeds = ",".join(map(str, range(asked.cells // len(VARIANTS))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        sweep = planned(seeds, VARIANTS)
        fill(sweep, path)
        size = (path / "cells.jsonl").stat().st_size
        print(f"{len(sweep.cells)} cells, {size / 2**20:.0f} MiB, on {environment('cpu', 'float32')['device_name']}")
        rows = [
            ["resume: from the start of the process to the first training", f"{resume(path, seeds):.2f}"],
            ["status: the whole process", f"{timed([sys.executable, '-m', 'stresstest', 'status', str(path)])[0]:.2f}"],
        ]
        found, seconds = timed([sys.executable, "-c", STATUS, str(path)])[1].split()
        assert int(found) == len(sweep.cells) - 1
        rows.append(["status: after the imports", f"{float(seconds):.2f}"])
        show(["what", "seconds"], rows, markdown=False)


def planned(seeds: str, variants: tuple[str, ...]) -> Plan:
    return plan(make_spec(LrRangeSpec, "quick", {**SETTINGS, "seeds": seeds, "variant": variants}))


SETTINGS = {"depth": 2, "width": 32, "heads": 2, "seq_len": 32, "device": "cpu"}
LINE = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]


def fill(sweep: Plan, path: Path) -> None:
    """A real cell under every key of the run but the last one's."""
    with open_run(path.with_name("one"), {"identity": "one", "command": "", "again": ""}) as store:
        [cell] = run(planned("0,", ("pre-ln",)), store, RunSettings(jobs=1))[0]
    manifest = {"identity": sweep.identity, "command": "lr-range", "again": "stresstest lr-range"}
    with open_run(path, manifest) as store:
        keys = [each.key for each in sweep.cells]
        store.write_plan(keys, keys)
    with (path / "cells.jsonl").open("w") as lines:
        for each in sweep.cells[:-1]:
            update = {"key": each.key, "variant": each.variant, "seed": each.seed}
            lines.write(cell.model_copy(update=update).model_dump_json() + "\n")


def resume(path: Path, seeds: str) -> float:
    """Seconds until the run says what was finished before; it is then stopped."""
    words = ["lr-range", *LINE, f"--seeds={seeds}", f"--variant={','.join(VARIANTS)}", f"--run-dir={path}", "-j1"]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "stresstest", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    seconds = time.perf_counter() - started
    process.kill()
    process.wait()
    assert "cells were finished before; training the rest" in line, line
    return seconds


def timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - started, out


if __name__ == "__main__":
    main()
