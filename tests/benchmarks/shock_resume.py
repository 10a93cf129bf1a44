"""What lost moments cost, and what a warm-up after the resume saves, over stored runs; run by hand:

    LOST=lost-moments
    stresstest shock --shock $LOST,$LOST:count=kept,$LOST:moment=first,count=kept,$LOST:moment=second,count=kept,\\
$LOST:moment=second \\
        --variant pre-ln,post-ln --depth 2 --width 16 --heads 2 --batch-size 4 --seq-len 32 --guard rewarm --run-dir RUN
    python tests/benchmarks/shock_resume.py RUN [RUN ...] [--markdown]
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import show

from stresstest.results.records import Cell, read_result

LOST = {
    "lost-moments": "all: a new optimizer",
    "lost-moments:count=kept": "both moments",
    "lost-moments:count=kept,moment=first": "the first moment",
    "lost-moments:count=kept,moment=second": "the second moment",
    "lost-moments:moment=second": "the second moment, the count",
}
WITH = ("", "rewarm")


def words(cells: Sequence[Cell]) -> list[str]:
    """Outcomes of the seeds, and medians of what it cost; where a loss is not finite, `-`."""
    doses = [cell.shock["doses"][0] for cell in cells if cell.shock.get("doses")]
    if not doses:
        return ["untrained", "-", "-"]
    outcomes = ", ".join(f"{count} {name}" for name, count in Counter(dose["outcome"] for dose in doses).items())
    whole = all(dose["lasting_damage"] is not None for dose in doses)
    steps = _median(doses, "recovery_steps")
    peak = f"{_median(doses, 'peak_excess'):.2g}" if whole else "-"
    return [outcomes, peak, "never" if math.isinf(steps) else f"{steps:g}"]


def _median(doses: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(math.inf if dose[name] is None else dose[name] for dose in doses)


def main() -> None:
    """A table of all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for run in arguments.runs:
        result = read_result(run / "result.json")
        for lost, name in LOST.items():
            for variant in result.spec["variant"]:
                cells = [cell for cell in result.cells if (cell.variant, cell.point.get("shock")) == (variant, lost)]
                sides = [[cell for cell in cells if cell.point.get("guard", "") == guard] for guard in WITH]
                where = f"{result.spec['lr_share']:g}, {result.spec['after']} steps"
                rows.append([where, name, variant, *words(sides[0]), *words(sides[1])])
    told = ["outcome", "peak excess (nats)", "recovery steps"]
    show(["share, after", "lost", "variant", *told, *(f"warmed up: {each}" for each in told)], rows, arguments.markdown)


if __name__ == "__main__":
    main()
