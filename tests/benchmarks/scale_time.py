"""Whether half of what the law of training time says is held for the longest run. Run by hand:

    stresstest scale --train-steps 150:2400:x2 --run-dir RUN ...
    python tests/benchmarks/scale_time.py RUN [--seeds 12] [--markdown]

For every variant of the run the law is fitted without the longest trainings; half of the median that it predicts for
them is then held from a fresh start for as many steps, with other seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tables import show

from stresstest.experiments.scale.law.fit import law
from stresstest.experiments.scale.measure import of_size
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.course import hold
from stresstest.results.outcome import HARMLESS
from stresstest.results.records import Result, count, read_result

FIRST_SEED = 100  # none of those that measured
SHARE = 0.5  # of the predicted LR


def predicted(result: Result, variant: str) -> tuple[float, int]:
    """(the LR that the law of the shorter trainings says, for how many steps); NaN without a law."""
    rows = [row for row in result.summary if row.variant == variant and "max_stable_lr" in row.metrics]
    steps = [int(dict(row.point)["train_steps"]) for row in rows]
    cells = [list(row.metrics["max_stable_lr"].per_seed.values()) for row in rows]
    known = law([float(each) for each in steps[:-1]], cells[:-1])
    return (float("nan") if known is None else known.predict(steps[-1]).median), steps[-1]


def row(result: Result, variant: str, seeds: int) -> tuple[list[str], int]:
    """A line of the table, and how many runs were held."""
    lr, steps = predicted(result, variant)
    spec = ScaleSpec.model_validate(result.spec)
    sized = of_size(spec, spec.depth, {"train_steps": steps})
    bench = make_bench(sized, variant, spec.depth, spec.optimizer, "cpu")
    runs = hold(bench, [(FIRST_SEED + seed, SHARE * lr) for seed in range(seeds)], steps)
    outcomes = [run.detector.judgement().outcome for run in runs]
    held = sum(outcome in HARMLESS for outcome in outcomes)
    broke = ", ".join(f"seed {run.seed}: {out}" for run, out in zip(runs, outcomes, strict=True) if out not in HARMLESS)
    told = ", ".join(f"{number} {outcome}" for outcome, number in count(outcomes).items())
    return [variant, f"{lr:.3g}", f"{SHARE * lr:.3g}", str(steps), f"{held} of {seeds}", told, broke], held


def main() -> None:
    """Read the run, hold, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result = read_result(asked.run / "result.json")
    variants = list(dict.fromkeys(row.variant for row in result.summary))
    found = [row(result, variant, asked.seeds) for variant in variants]
    heads = ["variant", "law, longest", "held LR", "steps", "held", "outcomes", "which broke"]
    show(heads, [line for line, _ in found], asked.markdown)
    print(f"{sum(held for _, held in found)} of {asked.seeds * len(found)} held")


if __name__ == "__main__":
    main()
