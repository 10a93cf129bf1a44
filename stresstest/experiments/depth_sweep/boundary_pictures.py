"""Pictures of what a depth sweep trained: the boundary over depth with its law, and which LR trains at which depth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stresstest.experiments.depth_sweep.findings import growth_words
from stresstest.reports.document import (
    PAGE,
    VERBOSE,
    Axis,
    Block,
    Chart,
    Details,
    HeatCell,
    Heatmap,
    Paragraph,
    Point,
    Series,
    Tone,
)
from stresstest.reports.numbers import OUTCOME_MARKS, OUTCOMES, interval, lr, number
from stresstest.results.records import HARMLESS, TRAINED, Bracket, Cell, Result, SummaryRow, TrendRow

_SEED_ROOM = 0.7  # of a row, for the seeds of a variant
_MOST_BARS = 3  # variants whose intervals are drawn
_MIXED = "?"
_KEY: tuple[tuple[Tone, str], ...] = (
    ("good", "no seed was harmed"),
    ("mixed", "some seeds broke"),
    ("dull", "no progress, no harm"),
    ("bad", "every seed broke"),
)
_MAP_LEGEND = (
    "Take an LR whose whole row is unharmed as deep as you go. In a place: how many of the seeds that were held there "
    f"were not harmed; {_MIXED} only some, "
    + ", ".join(f"{mark} {outcome} ({OUTCOMES[outcome]})" for outcome, mark in OUTCOME_MARKS.items())
    + ". Empty: not held."
)


@dataclass(frozen=True)
class Law:
    """max_stable_lr ~ depth^exponent through the middle of a variant's medians, as lines of log over log."""

    variant: str
    depths: tuple[int, ...]
    middle: Point  # mean log depth, mean log LR
    exponent: float
    low: float
    high: float

    def at(self, log_depth: float, exponent: float) -> float:
        """The LR at a depth with one of the exponents, all of which go through the middle."""
        return math.exp(self.middle[1] + exponent * (log_depth - self.middle[0]))

    @property
    def guide(self) -> Series:
        """The line and its band, straight in log over log from the first depth to the middle and to the last."""
        logs = (math.log(self.depths[0]), self.middle[0], math.log(self.depths[-1]))
        ends = [sorted((self.at(x, self.low), self.at(x, self.high))) for x in logs]
        return Series(
            self.variant,
            tuple((math.exp(x), self.at(x, self.exponent)) for x in logs),
            kind="guide",
            spans=tuple((low, high) for low, high in ends),
            notes=("law",) * len(logs),
        )

    @property
    def factor(self) -> float:
        """The LR of the law at depth 1."""
        return self.at(0.0, self.exponent)


def trained_pictures(result: Result) -> Iterator[Block]:
    """The boundary, what became of the fixed recipe, and a map of LRs and depths of each variant."""
    variants = list(dict.fromkeys(row.variant for row in result.summary))
    recipes = _recipes(result, variants)
    if any("max_stable_lr" in row.metrics for row in result.summary):
        yield _boundary(result, variants)
    if any(series.points for series in recipes.series):
        yield recipes
    maps = [found for variant in variants if (found := _held(result, variant))]
    blocks = (*maps[:1], Paragraph(_MAP_LEGEND, "dim", formats=PAGE), *maps[1:])
    if len(maps) == 1:
        yield from blocks
    elif maps:
        yield Details("Which LR trains at which depth: one map per variant", blocks)


def laws(result: Result) -> list[Law]:
    """The law of each variant whose exponent is known."""
    return [law for trend in result.trends if (law := _law(trend, result.summary))]


def _law(trend: TrendRow, rows: Sequence[SummaryRow]) -> Law | None:
    points = _medians(rows, trend.variant)
    metric = trend.metrics.get("max_stable_lr_exponent")
    if len(points) < 2 or metric is None:
        return None
    ends = (metric.median.low, metric.median.high, metric.low, metric.high)
    if None in ends:
        return None
    first, last, low, high = (float(end) for end in ends if end is not None)
    middle = (
        statistics.fmean(math.log(depth) for depth, _ in points),
        statistics.fmean(math.log(value) for _, value in points),
    )
    return Law(trend.variant, tuple(int(depth) for depth, _ in points), middle, (first + last) / 2, low, high)


def _boundary(result: Result, variants: Sequence[str]) -> Chart:
    medians = [_median_line(result.summary, variant) for variant in variants]
    fitted = laws(result)
    values = [y for series in medians for _, y in series.points]
    ends = f" ({number(min(values))} to {number(max(values))})" if values else ""
    bars = [_with_bar(median, result.summary) for median in medians] if _has_bars(result) else []
    return Chart(
        f"max_stable_lr against depth, both logarithmic, medians{ends}",
        Axis("depth"),
        Axis("max_stable_lr"),
        (*medians, *bars, *(law.guide for law in fitted), *_seeds(result)),
        dots=not bars,
        caption=_caption(result, fitted),
        name="max-stable-lr-over-depth",
        formats=(*VERBOSE, *PAGE),
    )


def _caption(result: Result, fitted: Sequence[Law]) -> str:
    several = len(result.spec["seeds"]) > 1
    parts = ["Stay below a variant's line; the flatter it is, the less the LR has to fall when you add blocks."]
    bar = ", with the interval as a bar" * _has_bars(result)
    parts.append(f"Thick: medians over seeds{bar}; thin: each seed." if several else "One seed.")
    if fitted:
        words = "; ".join(_law_words(law, result) for law in fitted)
        parts.append(f"Dashed: the fitted law, with the exponents of its interval as a band: {words}.")
    parts += _left_out(result.summary)
    return " ".join(parts)


def _law_words(law: Law, result: Result) -> str:
    trend = next(row for row in result.trends if row.variant == law.variant)
    return f"{law.variant} {number(law.factor)} x {growth_words(trend.metrics, 'max_stable_lr')}"


def _left_out(rows: Sequence[SummaryRow]) -> Iterator[str]:
    """Medians without a value: below or above what was held."""
    stable = [(row, row.metrics["max_stable_lr"].median) for row in rows if "max_stable_lr" in row.metrics]
    none = [row for row, median in stable if median.low is None]
    above = [row for row, median in stable if median.low is not None and not median.high]
    if none:
        yield f"Not drawn, for no held LR trained: {_places(none)}."
    if above:
        yield f"Not drawn, for the highest LR still trained: {_places(above)}."


def _places(rows: Sequence[SummaryRow]) -> str:
    depths: dict[str, list[str]] = {}
    for row in rows:
        depths.setdefault(row.variant, []).append(str(row.depth))
    return "; ".join(f"{variant} at depth {', '.join(found)}" for variant, found in depths.items())


def _medians(rows: Sequence[SummaryRow], variant: str) -> list[Point]:
    """(depth, max_stable_lr) of a variant where both sides of the median are known."""
    found = [(row.depth, row.metrics["max_stable_lr"].median) for row in rows if _has_stable(row, variant)]
    return [(float(depth), median.low) for depth, median in found if median.low and median.high]


def _median_line(rows: Sequence[SummaryRow], variant: str) -> Series:
    points = _medians(rows, variant)
    drawn = {depth for depth, _ in points}
    found = [row.metrics["max_stable_lr"] for row in rows if _has_stable(row, variant) and row.depth in drawn]
    notes = tuple(f"median of {m.n}, {interval(m)}" if m.n > 1 else "one seed" for m in found)
    return Series(variant, tuple(points), notes=notes)


def _has_bars(result: Result) -> bool:
    """Bars of more variants cover each other."""
    return len(result.spec["seeds"]) > 1 and len(result.spec["variant"]) <= _MOST_BARS


def _with_bar(median: Series, rows: Sequence[SummaryRow]) -> Series:
    """The medians as dots with their intervals, where both ends are known."""
    metrics = {float(row.depth): row.metrics["max_stable_lr"] for row in rows if _has_stable(row, median.name)}
    ends = [(metrics[depth].low, metrics[depth].high) for depth, _ in median.points]
    spans = tuple((low, high) if low and high else (math.nan, math.nan) for low, high in ends)
    return replace(median, kind="dots", spans=spans)


def _has_stable(row: SummaryRow, variant: str) -> bool:
    return row.variant == variant and "max_stable_lr" in row.metrics


def _seeds(result: Result) -> Iterator[Series]:
    """Each seed's own line."""
    groups: dict[tuple[str, int], list[Point]] = {}
    for cell in sorted(result.cells, key=lambda cell: cell.depth):
        value = cell.metrics.get("max_stable_lr", Bracket(low=None, high=None))
        if value.low and value.high:
            groups.setdefault((cell.variant, cell.seed), []).append((float(cell.depth), value.low))
    for (variant, seed), points in groups.items() if len(result.spec["seeds"]) > 1 else ():
        yield Series(variant, tuple(points), kind="seed", notes=(f"seed {seed}",) * len(points))


def _recipes(result: Result, variants: Sequence[str]) -> Chart:
    """What became of the fixed recipe at each depth, a dot a seed."""
    dots = tuple(_recipe_dots(result, variant, float(place)) for place, variant in enumerate(variants))
    spec = result.spec
    return Chart(
        f"What became of the fixed recipe ({spec['optimizer']} at {spec['peak_lr']:g}) at each depth",
        Axis("depth"),
        Axis("", names=tuple(variants)),
        dots,
        caption=(
            "Read each row from the left to its first cross: so deep the variant trains with this recipe. One dot "
            "per seed: a circle trained, a square did no harm, a cross broke; which way, it says where you point at it."
        ),
        name="recipe-over-depth",
        formats=PAGE,
    )


def _recipe_dots(result: Result, variant: str, place: float) -> Series:
    seeds = result.spec["seeds"]
    cells = [cell for cell in result.cells if cell.variant == variant and cell.recipe]
    room = [place + _SEED_ROOM * (seeds.index(cell.seed) - (len(seeds) - 1) / 2) / len(seeds) for cell in cells]
    return Series(
        variant,
        tuple((float(cell.depth), at) for cell, at in zip(cells, room, strict=True)),
        kind="dots",
        tones=tuple(_tone([cell.recipe["outcome"]]) for cell in cells),
        notes=tuple(f"seed {cell.seed}, {cell.recipe['outcome']}" for cell in cells),
    )


def _held(result: Result, variant: str) -> Heatmap | None:
    """How many seeds a held LR trained at each depth."""
    mine = [cell for cell in result.cells if cell.variant == variant and cell.hold]
    depths = sorted({cell.depth for cell in mine})
    lrs = sorted({trial["lr"] for cell in mine for trial in cell.hold}, reverse=True)
    if not lrs:
        return None
    rows = tuple((lr(value), tuple(_place(mine, depth, value) for depth in depths)) for value in lrs)
    return Heatmap(
        f"Held LR and depth: {variant}",
        across="depth",
        down="LR",
        columns=tuple(map(str, depths)),
        rows=rows,
        key=_KEY,
        name=f"held-{variant}",
        formats=PAGE,
    )


def _place(cells: Sequence[Cell], depth: int, held: float) -> HeatCell:
    trials = [(c.seed, t["outcome"]) for c in cells if c.depth == depth for t in c.hold if t["lr"] == held]
    if not trials:
        return HeatCell("")
    outcomes = [outcome for _, outcome in trials]
    unharmed = sum(outcome in HARMLESS for outcome in outcomes)
    common = statistics.mode(outcomes)
    mark = _MIXED if 0 < unharmed < len(trials) else OUTCOME_MARKS.get(common, "")
    tooltip = ", ".join(f"seed {seed} {outcome}" for seed, outcome in trials)
    return HeatCell(f"{unharmed}/{len(trials)}", mark, _tone(outcomes), tooltip)


def _tone(outcomes: Sequence[str]) -> Tone:
    """Of one run, or of those of several seeds."""
    if all(outcome in HARMLESS for outcome in outcomes):
        return "good" if any(outcome in TRAINED for outcome in outcomes) else "dull"
    return "mixed" if any(outcome in HARMLESS for outcome in outcomes) else "bad"
