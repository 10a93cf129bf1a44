"""The tables of a path of sizes: what was measured, the laws, their own checks, what carries over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from stresstest.experiments.document_parts import metric_cell
from stresstest.experiments.scale.findings import margin
from stresstest.experiments.scale.naming import METRICS, arm, label, law_of, of_arm, ratio_key, size_of, target_words
from stresstest.experiments.scale.sentences import Law, between, checks, counted, exponent, octaves
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.reports.document import (
    AT_LENGTH,
    BRIEF,
    VERBOSE,
    Block,
    Column,
    Details,
    Heading,
    Paragraph,
    Table,
    Tone,
    Value,
)
from stresstest.reports.numbers import lr, middle, number
from stresstest.results.records import Result, SummaryRow, TrendRow

LeftOut = Mapping[str, Any]  # a `LeftOutRecord`

_UNFOLDED = (*VERBOSE, "md")  # formats that show what a page folds away
_FEW_SIZES = 6  # columns
_NONE = Value("-")


def brief(result: Result, spec: ScaleSpec) -> Iterator[Block]:
    """A row a variant and a column a size, the law's answer last, for a terminal that is not asked for all there is."""
    sizes = sorted({size_of(row, spec.axis) for row in result.summary})
    step = max(1, math.ceil((len(sizes) - 1) / (_FEW_SIZES - 1)))
    kept = {*sizes[::step], sizes[-1]}
    for metric in METRICS:
        found = [(trend, law_of(trend, metric)) for trend in result.trends]
        named = any(law.get("predicted") for _, law in found)
        rows = [
            (Value(arm(trend)), *_medians(result, trend, metric, sizes, spec), *([_at_target(law)] if named else []))
            for trend, law in found
        ]
        heads = [Column(f"{size:.0f}", wide=size not in kept) for size in sizes]
        columns = (Column(f"{metric} at {label(spec.axis)}"), *heads, *([_law_column(spec)] if named else []))
        if rows:
            yield Table(columns, tuple(rows)).medians()
        if rows and named and metric == "max_stable_lr":
            text = (
                f"Of a size the last LR that trained; by law the boundary, up to one {spec.hold_resolution} above it."
            )
            yield Paragraph(text, "dim", formats=BRIEF)


def _medians(result: Result, trend: TrendRow, metric: str, sizes: Sequence[float], spec: ScaleSpec) -> list[Value]:
    at = {size_of(row, spec.axis): row.metrics for row in of_arm(result.summary, trend)}
    return [Value(middle(at[size][metric])) if metric in at.get(size, {}) else _NONE for size in sizes]


def _law_column(spec: ScaleSpec) -> Column:
    return Column(f"{next(iter(spec.beyond.values()))} by law")


def _at_target(law: Law) -> Value:
    predicted = law.get("predicted")
    return Value(lr(predicted["median"]), between(predicted)) if predicted else _NONE


def laws(result: Result, spec: ScaleSpec) -> Iterator[Block]:
    """A row a variant and metric: exponent, prediction, scatters, leave-outs."""
    rows = [
        (
            Value(arm(trend)),
            Value(metric),
            _exponent(law),
            _at_target(law),
            _inside(law),
            Value(_scatter(law, "size_scatter")),
            Value(_scatter(law, "cell_scatter")),
            _bend(law),
        )
        for metric in METRICS
        for trend in result.trends
        if (law := law_of(trend, metric))
    ]
    if not rows:
        return
    columns = (
        Column("law"),
        Column("of", "left"),
        Column(f"{spec.axis}^b"),
        Column(f"at {target_words(spec, result.trends[0])}"),
        Column("leave-outs\ninside"),
        Column("sizes,\noctaves", wide=True),
        Column("seeds,\noctaves", wide=True),
        *([Column("bend")] if any(row[-1].text for row in rows) else []),
    )
    yield Heading("The law of each variant", formats=AT_LENGTH)
    yield Table(columns, tuple(row[: len(columns)] for row in rows), formats=AT_LENGTH)
    yield Paragraph(
        "b and the learning rate at the target: medians, in brackets where each lies 9 times in 10 (of the LR: of one "
        "new seed). Standard deviations: sizes, by which all seeds of a size lie off the law together, which further "
        "sizes make up for and further seeds do not; seeds, between those of a size. Bend: the slope of the larger "
        "sizes less that of the smaller; of one that is not seen, what would have shown in about 3 of 4 such paths.",
        "dim",
        formats=AT_LENGTH,
    )


def _exponent(law: Law) -> Value:
    if "exponent" not in law:
        return Value("no law", tone="bad")
    text, _, ends = exponent(law["exponent"]).partition(" ")
    return Value(text, ends.strip("()"))


def _scatter(law: Law, name: str) -> str:
    return number(law[name]["median"]) if name in law else "-"


def _inside(law: Law) -> Value:
    found = checks([law])
    tone: Tone = "bad" if found.failed else "good"
    return Value(f"{found.inside}/{found.counted}", tone=tone) if found.counted else _NONE


def _bend(law: Law) -> Value:
    bend = law.get("bend")
    if not bend:
        return Value("")
    if not bend["seen"]:
        return Value("not seen", f"of {bend['smallest']:.1f} or more")
    text, _, ends = exponent(bend["change"]).partition(" ")
    return Value(text, ends.strip("()"), tone="bad")


def left_out(result: Result, spec: ScaleSpec) -> Iterator[Block]:
    """What fits said of sizes that they did not see: of each size the one that looks about as far as the target."""
    found = {m: [(t, law) for t in result.trends if (law := law_of(t, m)).get("left_out")] for m in METRICS}
    for metric, known in found.items():
        if not known:
            continue
        first = metric == METRICS[0]
        table = _predictions([(trend, each) for trend, law in known for each in _alike(law)], spec)
        told = Paragraph(_told([law for _, law in known]), "dim")
        title = f"Its own check: {metric} of the largest sizes, left out of the fit"
        shown = AT_LENGTH if first else _UNFOLDED
        yield Heading(title, formats=shown)
        yield from (replace(table, formats=shown), replace(told, formats=shown))
        if not first:
            yield Details(title, (table, told))
        every = _predictions([(trend, each) for trend, law in known for each in law["left_out"]], spec)
        yield Details(f"Every leave-out of every fit: {metric}", (every,))


def _told(laws: Sequence[Law]) -> str:
    return (
        f"Together {checks(laws).words}; an interval is to hold 9 in 10. Inside: a seed whose bracket has its centre "
        "(geometric mean) there. Of each size the fit that looks about as far ahead as the target lies."
    )


def _alike(law: Law) -> list[LeftOut]:
    """Of each size, the fit whose distance is nearest to that of the target, the largest size first."""
    nearest = max(each["octaves_ahead"] for each in counted(law) or law["left_out"])
    found: dict[float, LeftOut] = {}
    for each in law["left_out"]:
        best = found.get(each["size"], each)
        found[each["size"]] = min(best, each, key=lambda one: abs(one["octaves_ahead"] - nearest))
    return [found[size] for size in sorted(found, reverse=True)]


def _predictions(left: Sequence[tuple[TrendRow, LeftOut]], spec: ScaleSpec) -> Table:
    rows = tuple(
        (
            Value(arm(trend)),
            Value(f"{each['size']:.0f}"),
            Value(octaves(each["octaves_ahead"])),
            Value(between(each)),
            Value(", ".join(map(_measured, each["seeds"]))),
            _share(each["inside"]),
        )
        for trend, each in left
    )
    heads = (Column("left out"), Column(label(spec.axis)), Column("ahead", wide=True), Column("predicted"))
    return Table((*heads, Column("measured", "left"), Column("inside")), rows, grouped=True)


def _measured(found: dict[str, float | None]) -> str:
    low, high = found["low"], found["high"]
    if low is None and high is None:
        return "no answer"
    if low is None or high is None:
        return f"<{lr(high)}" if low is None else f">{lr(low)}"
    return lr(low) if low == high else f"{lr(low)}..{lr(high)}"


def _share(inside: list[bool | None]) -> Value:
    known = [each for each in inside if each is not None]
    good = sum(known)
    return Value(f"{good}/{len(known)}", tone="good" if good == len(known) else "mixed" if good else "bad")


def carried_over(result: Result, spec: ScaleSpec) -> Iterator[Block]:
    """How many times the learning rate of one variant is that of another at the target."""
    rows = []
    for one, two in combinations(result.trends, 2):
        found = [law_of(one, metric).get("ratios", {}).get(ratio_key(two)) for metric in METRICS]
        if any(found):
            told = (Value(f"{number(each['median'])}x", _times(each)) if each else _NONE for each in found)
            rows.append((Value(f"{arm(one)} over {arm(two)}"), *told))
    if rows:
        target = target_words(spec, result.trends[0])
        yield Heading(f"What carries over: how many times the LR, at {target}", formats=AT_LENGTH)
        yield Table((Column("variants"), *map(Column, METRICS)), tuple(rows), formats=AT_LENGTH)
        text = (
            "An interval that leaves out 1x: the order of the two is hardly chance (of ten pairs one may be). "
            "Scatter of seeds is not in it."
        )
        yield Paragraph(text, "dim", formats=AT_LENGTH)


def _times(found: dict[str, float]) -> str:
    return f"{number(found['low'])}x..{number(found['high'])}x"


def sizes(result: Result, spec: ScaleSpec) -> Iterator[Block]:
    """A row a variant and size: what was measured."""
    rows = tuple(
        (
            Value(arm(row)),
            _size(row, result, spec),
            *(metric_cell(row.metrics.get(name)) for name in (*METRICS, "onset_lr")),
            metric_cell(margin(row)),
        )
        for row in result.summary
    )
    columns = (Column("measured"), Column(label(spec.axis)), *map(Column, (*METRICS, "onset_lr")))
    yield Heading("Every size", formats=AT_LENGTH)
    yield Table((*columns, Column("margin", wide=True)), rows, grouped=True, formats=AT_LENGTH)
    yield Paragraph(
        f"Medians over seeds with their intervals. max_stable_lr: the last constant LR that trained; the first that "
        f"did not is one {spec.hold_resolution} higher. Margin: how many times max_stable_lr is best_lr, seed by seed.",
        "dim",
        formats=AT_LENGTH,
    )


def _size(row: SummaryRow, result: Result, spec: ScaleSpec) -> Value:
    """The size, and how many seeds it has if not all."""
    count, total = max((metric.n for metric in row.metrics.values()), default=0), len(result.spec["seeds"])
    text = f"{size_of(row, spec.axis):.0f}"
    return Value(text, note="" if count == total else f"{count} of {total} seeds")
