"""Does a search find what a grid finds, at half of its cost? `python tests/benchmarks/warmup_search.py [--jobs 2]`

The truth is a grid of 64 settings of warm-up and peak LR, three seeds each. Every sampler searches the same
space five times with 30 trials on the same three seeds; what each calls best is trained once more, with the
grid's best, on ten seeds that none of them has seen, and compared seed by seed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import show

from stresstest.experiments.cells import run
from stresstest.experiments.plan import Plan
from stresstest.experiments.warmup.measure import plan
from stresstest.experiments.warmup.rows import reduce
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.results.records import Cell
from stresstest.runs.identity import environment
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec

SPACE: dict[str, Any] = {
    "variant": "post-ln",
    "depth": 4,
    "width": 32,
    "heads": 2,
    "seq_len": 32,
    "train_steps": 150,
    "warmup_steps": "0,4,8,16,24,32,48,75",
    "start_lr": 0.001,
    "end_lr": 0.128,
    "num_lrs": 8,
    "seeds": "3",
    "device": "cpu",
}
TRIALS, SEARCHES, FRESH = 30, 5, "100,101,102,103,104,105,106,107,108,109"
SAMPLERS = ("gp", "tpe", "random")


def trained(sweep: Plan, folder: Path, jobs: int) -> list[Cell]:
    with open_run(folder, {"identity": sweep.identity, "command": "", "again": ""}) as store:
        return run(sweep, store, RunSettings(jobs=jobs))[0]


def best_of(sweep: Plan, cells: Sequence[Cell]) -> dict[str, Any]:
    [row] = reduce(WarmupSpec.model_validate(sweep.spec.model_dump()), cells).searches
    return row.best


def fresh_losses(where: dict[str, Any], folder: Path, jobs: int) -> list[float]:
    """The losses of one setting on the seeds that nobody has seen, in their order."""
    lr, steps = where["peak_lr"], where["warmup_steps"]
    one = {"start_lr": lr, "end_lr": lr, "num_lrs": 1, "warmup_steps": f"{steps}", "seeds": FRESH, "trials": 0}
    cells = trained(plan(make_spec(WarmupSpec, "quick", SPACE | one)), folder, jobs)
    return [cell.recipe["loss"] for cell in sorted(cells, key=lambda cell: cell.seed)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = plan(make_spec(WarmupSpec, "quick", SPACE | {"trials": 0}))
        cells = trained(grid, folder / "grid", jobs)
        best = best_of(grid, cells)
        truth = fresh_losses(best, folder / "fresh", jobs)
        noise = statistics.stdev(truth)
        rows = []
        for sampler in SAMPLERS:
            excess = []
            for seed in range(SEARCHES):
                asked = {"map": False, "trials": TRIALS, "sampler": sampler, "search_seed": seed}
                search = plan(make_spec(WarmupSpec, "quick", SPACE | asked))
                found = trained(search, folder / f"{sampler}{seed}", jobs)
                losses = fresh_losses(best_of(search, found), folder / "fresh", jobs)
                excess.append(statistics.fmean(a - b for a, b in zip(losses, truth, strict=True)))
                print(f"{sampler} {seed}: {len(found)} runs, {best_of(search, found)}, {excess[-1]:+.4f}", flush=True)
            share = TRIALS / (len(cells) / 3)
            within = sum(each <= noise for each in excess)
            rows.append(
                (
                    sampler,
                    f"{share:.0%}",
                    f"{statistics.median(excess):+.3f} ({min(excess):+.3f} to {max(excess):+.3f})",
                    f"{within} of {SEARCHES}",
                )
            )
    here = environment("cpu", "float32")["device_name"]
    print(f"\n{len(cells) // 3} settings, {here}; its best: {best['warmup_steps']} steps at {best['peak_lr']:g},")
    print(f"{statistics.fmean(truth):.3f} nats on fresh seeds; noise (standard deviation over seeds) {noise:.3f}")
    headings = ["sampler", "of the grid's steps", "loss above the grid's best, median (min to max)", "within noise"]
    show(headings, rows, markdown=True)


if __name__ == "__main__":
    main()
