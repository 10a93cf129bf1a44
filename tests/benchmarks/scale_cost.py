"""What a prediction costs beside measuring there, in FLOPs. Run by hand:

    stresstest scale --widths 16:224:x1.41 --target width=1024 --run-dir RUN ...
    python tests/benchmarks/scale_cost.py RUN [--markdown]

The steps are those that the cells of the run took; at the target as many as at the largest size that was measured.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from tables import show

from stresstest.experiments.estimate import forward_flops
from stresstest.experiments.scale.measure import of_size, place_of
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.workload import steps_taken
from stresstest.results.records import Result, read_result


def step_flops(spec: ScaleSpec, variant: str, depth: int, point: dict[str, Any]) -> float:
    """Of one replica's step: a backward pass counts twice a forward pass."""
    sized = of_size(spec, depth, point)
    return 3.0 * sized.batch_size * forward_flops(sized, variant, depth)


def rows(result: Result) -> list[list[str]]:
    """A line a variant, and one of all."""
    spec = ScaleSpec.model_validate(result.spec)
    beyond, largest = place_of(spec.beyond, spec), place_of(spec.places[-1], spec)
    found, ours, theirs = [], 0.0, 0.0
    for variant in spec.variant:
        cells = [cell for cell in result.cells if cell.variant == variant and cell.status == "done"]
        measured = sum(steps_taken(c) * step_flops(spec, variant, c.depth, dict(c.point)) for c in cells)
        last = [steps_taken(c) for c in cells if (c.depth, dict(c.point)) == (largest[0], dict(largest[1]))]
        there = len(spec.seeds) * statistics.fmean(last) * step_flops(spec, variant, beyond[0], dict(beyond[1]))
        found.append([variant, f"{measured:.3g}", f"{there:.3g}", f"{measured / there:.3f}"])
        ours, theirs = ours + measured, theirs + there
    return [*found, ["all", f"{ours:.3g}", f"{theirs:.3g}", f"{ours / theirs:.3f}"]]


def main() -> None:
    """Read the run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    heads = ["variant", "the path, FLOPs", "measuring at the target", "ratio"]
    show(heads, rows(read_result(asked.run / "result.json")), asked.markdown)


if __name__ == "__main__":
    main()
