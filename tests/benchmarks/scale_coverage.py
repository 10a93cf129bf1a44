"""How often a law's interval held a size that it had not seen, over stored runs of `stresstest scale`. Run by hand:

    python tests/benchmarks/scale_coverage.py RUN [RUN ...] [--every] [--exponents] [--markdown]

Of each run, variant and metric, the first sizes (three or more) are fitted, and each size one octave ahead, and two,
is predicted: the 90 % interval of one new seed, beside the geometric mean of each seed's measured bracket. The same is
done with the brackets widened to whole octaves, as --hold-resolution octave would have left them. The share's own
interval draws whole paths (a run's variant) with replacement, since the left-out sizes of a path are not independent.
--every prints each left-out size, --exponents the law of every path.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tables import show

from stresstest.experiments.scale.law.bend import bend
from stresstest.experiments.scale.law.fit import law
from stresstest.experiments.scale.law.leave_outs import LeaveOut, rolling
from stresstest.experiments.scale.law.observed import too_few
from stresstest.experiments.scale.naming import METRICS, arm, path_words, size_of
from stresstest.experiments.scale.sentences import exponent
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.results.records import Bracket, Result, read_result

NEAR = 0.12  # octaves: sizes are rounded
DRAWS = 2000


@dataclass(frozen=True)
class Left:
    """A size that was left out of a fit of a path."""

    path: str
    finest: str  # of the brackets: quarter-octave or octave
    found: LeaveOut

    @property
    def ahead(self) -> int | None:
        """Whole octaves; `None` in between."""
        nearest = round(self.found.octaves_ahead)
        return nearest if nearest and abs(self.found.octaves_ahead - nearest) < NEAR else None

    @property
    def inside(self) -> list[bool]:
        """Of the seeds that have an answer."""
        return [each for each in self.found.inside if each is not None]


def paths_of(result: Result, name: str, metric: str) -> Iterable[tuple[str, list[float], list[list[Bracket]]]]:
    """By variant and parametrization, sizes and the brackets of their seeds."""
    axis = ScaleSpec.model_validate(result.spec).axis
    for path in dict.fromkeys(map(arm, result.summary)):
        rows = [row for row in result.summary if arm(row) == path and metric in row.metrics]
        brackets = [list(row.metrics[metric].per_seed.values()) for row in rows]
        yield f"{name} {path}", [size_of(row, axis) for row in rows], brackets


def whole_octaves(bracket: Bracket) -> Bracket:
    """The bracket that a search by octaves would have left."""
    low, high = bracket.low, bracket.high
    floor = None if low is None else 2.0 ** math.floor(math.log2(low) + 1e-9)
    return Bracket(low=floor, high=None if high is None else 2.0 * floor if floor else high)


def left_outs(runs: Mapping[str, Result], metric: str) -> list[Left]:
    """Of all runs, with both kinds of brackets."""
    found = []
    for name, result in runs.items():
        for path, sizes, cells in paths_of(result, name, metric):
            coarse = [[whole_octaves(bracket) for bracket in seeds] for seeds in cells]
            kinds = {"as measured": cells} | ({"octave": coarse} if metric == "max_stable_lr" else {})
            for kind, brackets in kinds.items():
                if not too_few(brackets):
                    found += [Left(path, kind, each) for each in rolling(sizes, brackets)]
    return found


def share_interval(mine: Sequence[Left]) -> tuple[float, float]:
    """90 % interval of the share of seeds inside, by drawing paths."""
    by_path: dict[str, list[bool]] = {}
    for each in mine:
        by_path.setdefault(each.path, []).extend(each.inside)
    counts = np.array([[sum(inside), len(inside)] for inside in by_path.values()], dtype=float)
    drawn = np.random.default_rng(0).integers(len(counts), size=(DRAWS, len(counts)))
    sums = counts[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.05, 0.95))
    return float(low), float(high)


def summary(left: Sequence[Left], metric: str) -> list[list[str]]:
    """A line a kind of bracket and number of octaves ahead."""
    rows = []
    for kind in dict.fromkeys(each.finest for each in left):
        for ahead in (1, 2):
            mine = [each for each in left if each.finest == kind and each.ahead == ahead]
            if not mine:
                continue
            inside = [one for each in mine for one in each.inside]
            low, high = share_interval(mine)
            widths = [each.found.prediction.octaves for each in mine]
            counts = (ahead, len({each.path for each in mine}), len(mine), len(inside))
            held = f"{statistics.fmean(inside):.0%} ({low:.0%}..{high:.0%})"
            rows.append([metric, kind, *map(str, counts), held, f"{statistics.median(widths):.2f}"])
    return rows


def exponents(runs: Mapping[str, Result]) -> list[list[str]]:
    """The exponents of every path, and by how much it bends where it does."""
    rows = []
    for name, result in runs.items():
        spec = ScaleSpec.model_validate(result.spec)
        told: dict[str, list[str]] = {}
        for metric in METRICS:
            for path, sizes, cells in paths_of(result, name, metric):
                known, bent = law(sizes, cells), bend(sizes, cells)
                turns = f"; bent by {bent.change.median:.2f}" if bent and bent.seen else ""
                told.setdefault(path, []).append(f"{exponent(asdict(known.exponent))}{turns}" if known else "-")
        fixed = f"width {spec.width}" if spec.axis == "depth" else f"depth {spec.depth}"
        where = [f"{spec.model}, {fixed}, {spec.optimizer}", path_words(spec)]
        rows += [[*where, path.removeprefix(f"{name} "), *both] for path, both in told.items()]
    return rows


def each_line(each: Left, metric: str) -> list[str]:
    """One left-out size."""
    found = each.found
    centres = " ".join("-" if centre is None else f"{centre:.3g}" for centre in found.centres)
    held = f"{sum(each.inside)} of {len(each.inside)}"
    predicted = f"{found.prediction.low:.3g}..{found.prediction.high:.3g}"
    sizes = [f"{len(found.fitted)}", f"{found.size:g}", f"{found.octaves_ahead:.2f}"]
    return [each.path, metric, each.finest, *sizes, predicted, centres, held]


def main() -> None:
    """Read the runs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--exponents", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    runs = {path.name: read_result(path / "result.json") for path in asked.runs}
    rows, lines = [], []
    for metric in METRICS:
        left = left_outs(runs, metric)
        rows += summary(left, metric)
        lines += [each_line(each, metric) for each in left if each.ahead]
    heads = ["metric", "brackets", "octaves ahead", "paths", "sizes", "seeds", "inside", "median width, octaves"]
    show(heads, rows, asked.markdown)
    if asked.exponents:
        print()
        show(["model", "path", "variant", *METRICS], exponents(runs), asked.markdown)
    if asked.every:
        print()
        heads = ["path", "metric", "brackets", "sizes fitted", "left out", "octaves ahead", "predicted", "measured"]
        show([*heads, "inside"], lines, asked.markdown)


if __name__ == "__main__":
    main()
