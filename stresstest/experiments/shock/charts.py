"""The pictures of shocks: each run beside its twin, which doses harm, and what each variant takes of each shock."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from stresstest.experiments.document_parts import beside
from stresstest.experiments.shock.naming import (
    SURVIVAL_TONES,
    TOLERANCES,
    arm,
    at_dose,
    bracket_words,
    cells_of,
    chosen,
    dose_and_lr,
    is_searched,
    median_dose,
    of_shock,
    size_of,
    standard_dose,
)
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.experiments.sizes.path import NAMES
from stresstest.reports.document import PAGE, VERBOSE, WRITTEN, Axis, Chart, HeatCell, Heatmap, Point, Series, Tone
from stresstest.reports.numbers import has_constant, loss_unit
from stresstest.results.records import Bracket, Cell, Result, SummaryRow

_BEFORE = 0.3  # of the steps after a shock: so many before it are drawn
_ROOM = 0.25  # of the loss of having learned nothing, above it
_KEY: tuple[tuple[Tone, str], ...] = (
    ("good", "takes more than the standard dose"),
    ("mixed", "takes the standard dose at most"),
    ("bad", "takes less"),
)


def maps(result: Result, spec: ShockSpec) -> Iterator[Heatmap]:
    """What each variant takes of each shock: without a scar, and without breaking."""
    searched = [each.label for each in spec.shocks if is_searched(each)]
    arms = dict.fromkeys(arm(row, spec) for row in result.summary)
    for name, words in TOLERANCES.items():
        there = [shock for shock in searched if any(name in row.metrics for row in of_shock(result.summary, shock))]
        what = words.removeprefix("no ").removesuffix(" up to")
        harms = {"scar": "leaves a scar", "break": "breaks the run"}[what]
        rows = {each: tuple(_place(result, spec, name, each, shock) for shock in there) for each in arms}
        weak = any(cell.tone == "bad" for cells in rows.values() for cell in cells)
        advice = "A red one needs a guard. " if weak else ""
        if there:
            yield Heatmap(
                f"Largest dose without a {what}, median over seeds",
                across="shock",
                down="variant",
                columns=tuple(there),
                rows=tuple(rows.items()),
                key=_KEY,
                caption=f"{advice}Doses are a factor of 2 apart: the next larger one {harms}.",
                name=name.replace("_", "-"),
                formats=WRITTEN,
            )


def _place(result: Result, spec: ShockSpec, name: str, variant: str, shock: str) -> HeatCell:
    row = next((each for each in of_shock(result.summary, shock) if arm(each, spec) == variant), None)
    metric = None if row is None else row.metrics.get(name)
    if row is None or metric is None:
        return HeatCell("-", tone="dull", tooltip="did not train even without a shock")
    parsed = chosen(row)
    words = partial(dose_and_lr, spec, parsed, peak_lr=row.point["peak_lr"])
    text = bracket_words(median_dose(row, name), words)
    by_seed = (f"seed {seed} {bracket_words(value, words)}" for seed, value in metric.per_seed.items())
    return HeatCell(text, "", _tone(median_dose(row, name), standard_dose(spec, parsed)), ", ".join(by_seed))


def _tone(value: Bracket, standard: float) -> Tone:
    if value.low is None or value.low < standard:
        return "bad"
    return "mixed" if value.low == standard and value.high is not None else "good"


def along_sizes(result: Result, spec: ShockSpec) -> Iterator[Chart]:
    """Of each shock, the largest dose that is taken over the size."""
    if not spec.path:
        return
    axis, sizes = next(iter(spec.path.items()))
    for shock in [each.label for each in spec.shocks if is_searched(each)]:
        rows = [row for row in of_shock(result.summary, shock) if TOLERANCES.keys() <= row.metrics.keys()]
        if rows:
            dose, size = chosen(rows[0]).shock.dose, NAMES[axis].replace("_", " ")
            yield Chart(
                f"{shock}: largest dose without a scar, by {size}",
                Axis(size, ticks=tuple(map(float, sizes))),
                Axis(f"{dose.name} without a scar", ticks=dose.tried),
                tuple(_along(variant, NAMES[axis], rows) for variant in dict.fromkeys(row.variant for row in rows)),
                dots=True,
                caption=(
                    "Where a line falls, larger models need more care. The median over seeds of the last dose without "
                    "a scar, and its interval, which ends at the first dose with one."
                ),
                name=f"by-size-{re.sub('[^a-z0-9]+', '-', shock)}",
                formats=PAGE,
            )


def _along(variant: str, size: str, rows: Sequence[SummaryRow]) -> Series:
    """The tolerance of a variant over the size; where the smallest dose scars, half of that."""
    points, spans = [], []
    for row in (row for row in rows if row.variant == variant):
        tried, metric = chosen(row).shock.dose.tried, row.metrics["shock_tolerance"]
        at, least = float(dict(size_of(row))[size]), tried[0] / 2.0
        points.append((at, median_dose(row, "shock_tolerance").low or least))
        spans.append((metric.low or least, metric.high or tried[-1]))
    return Series(variant, tuple(points), spans=tuple(spans))


def courses(result: Result, spec: ShockSpec) -> Iterator[Chart]:
    """Of each shock, the runs at its standard dose beside their twins, and by how much they lie above them."""
    for shock in spec.shock:
        rows = [row for row in of_shock(result.summary, shock) if _dosed(row, result)]
        if rows:
            yield from _course(rows, result, spec)


def _course(rows: Sequence[SummaryRow], result: Result, spec: ShockSpec) -> Iterator[Chart]:
    shock, named, unit = chosen(rows[0]), _named(rows, spec), _unit(result)
    before = round(_BEFORE * min(spec.after, spec.horizon))
    twins = [Series(arm(row, spec), _median(row, result, spec, _twin, -before), kind="guide") for row in rows]
    medians = [Series(arm(row, spec), _median(row, result, spec, _shocked)) for row in rows]
    low, high = _loss_range([*twins, *medians], result)
    steps = Axis("steps since the shock", log=False, low=float(-before), high=float(spec.horizon))
    below = _excess(rows, steps, unit, result, spec)
    since = replace(steps, low=0.0)
    yield replace(below, title=f"{named}: loss above the twin's{unit}", x=since, height=4, formats=VERBOSE)
    yield Chart(
        f"{named}: each run and its twin",
        steps,
        Axis(f"training loss{unit}", log=False, low=low, high=high),
        (*medians, *twins),
        reference=("constant predictor", result.data["baseline_loss"]) if has_constant(result.data) else None,
        below=below,
        caption=(
            "A run recovers where its line comes back to the thin dashed one of its colour, the twin without the shock "
            f"(medians over seeds; the shock is step {spec.after} of training). Below, by how much it lies above its "
            "twin: thick the median, thin each seed, which ends where the loss is not finite."
        ),
        name=f"course-{re.sub('[^a-z0-9]+', '-', shock.label)}",
        formats=PAGE,
    )


def _unit(result: Result) -> str:
    """The unit of losses as an axis has it."""
    name = loss_unit(result.data)
    return f" ({name})" if name else ""


def _named(rows: Sequence[SummaryRow], spec: ShockSpec) -> str:
    """The shock at its dose; a pulse with its learning rate where that is the same for all."""
    words = {at_dose(spec, chosen(row), row.point["peak_lr"]) for row in rows}
    return words.pop() if len(words) == 1 else words.pop().partition(" = ")[0]


def _excess(rows: Sequence[SummaryRow], steps: Axis, unit: str, result: Result, spec: ShockSpec) -> Chart:
    """The loss above the twin's, seed by seed."""
    medians = [Series(arm(row, spec), _median(row, result, spec, _above)) for row in rows]
    seeds = [
        Series(arm(row, spec), points, kind="seed", notes=(f"seed {cell.seed}",) * len(points))
        for row in rows
        for cell in _dosed(row, result)
        if len(spec.seeds) > 1
        for points in [tuple((float(step - spec.after), value) for step, value in _above(cell))]
    ]
    learned = statistics.median(cell.shock["learned"] or 0.0 for row in rows for cell in _dosed(row, result))
    seen = [value for each in (*medians, *seeds) for _, value in each.points]
    values = seen or [0.0, learned]  # none is finite of a shock that breaks at once
    high = min(max(values), (1.0 + _ROOM) * learned)
    axis = Axis(f"above the twin{unit}", log=False, low=max(min(values), -high), high=high)
    return Chart("", steps, axis, (*medians, *seeds), reference=("twin", 0.0))


def _dosed(row: SummaryRow, result: Result) -> list[Cell]:
    """The cells of a row that were shocked."""
    return [cell for cell in cells_of(row, result.cells) if "dose" in cell.shock]


def _twin(cell: Cell) -> list[tuple[int, float]]:
    return cell.shock["twin_curve"]


def _shocked(cell: Cell) -> list[tuple[int, float]]:
    return cell.shock["curve"]


def _above(cell: Cell) -> list[tuple[int, float]]:
    twin = dict(_twin(cell))
    return [(step, value - twin[step]) for step, value in _shocked(cell) if step in twin]


def _median(
    row: SummaryRow,
    result: Result,
    spec: ShockSpec,
    of: Callable[[Cell], list[tuple[int, float]]],
    first: float = 0.0,
) -> tuple[Point, ...]:
    """The median over seeds by step since the shock, while at least half of them are there."""
    cells, found = _dosed(row, result), dict[int, list[float]]()
    for step, value in (point for cell in cells for point in of(cell)):
        found.setdefault(step - spec.after, []).append(value)
    return tuple(
        (float(step), statistics.median(some))
        for step, some in sorted(found.items())
        if step >= first and 2 * len(some) >= len(cells)
    )


def _loss_range(series: Sequence[Series], result: Result) -> tuple[float, float]:
    """From the lowest loss to a little above having learned nothing, or above the twins' highest."""
    values = [value for each in series for _, value in each.points]
    top = max(value for each in series if each.kind == "guide" for _, value in each.points)
    if has_constant(result.data):
        top = max(top, result.data["baseline_loss"])
    return min(values), min(max(values), top + _ROOM * abs(top))


def responses(result: Result, spec: ShockSpec) -> Iterator[Chart]:
    """Of each shock whose largest dose was looked for, every dose that was tried and what became of the run."""
    for shock in spec.shock:
        rows = of_shock(result.summary, shock)
        if rows and is_searched(parse_shock(shock)) and any(cell.shock["doses"] for cell in _done(rows, result)):
            yield _response(rows, result, spec)


def _response(rows: Sequence[SummaryRow], result: Result, spec: ShockSpec) -> Chart:
    parsed = chosen(rows[0])
    doses = [each["dose"] for cell in _done(rows, result) for each in cell.shock["doses"]]
    unit = {"x": "times"}.get(parsed.shock.dose.unit, parsed.shock.dose.unit)
    return Chart(
        f"{parsed.label}: what became of each run by dose",
        Axis(
            f"{parsed.shock.dose.name} ({unit})" if unit != parsed.shock.dose.name else unit,
            low=min(doses),
            high=max(doses),
            ticks=tuple(sorted(set(doses))),
        ),
        Axis("", names=tuple(arm(row, spec) for row in rows)),
        tuple(_dots(row, float(place), result, spec) for place, row in enumerate(rows)),
        caption=(
            "Stay where there are circles alone. One mark per seed and dose: a circle recovered, a triangle keeps a "
            "scar, a cross broke."
        ),
        name=f"doses-{parsed.shock.name}",
        formats=PAGE,
    )


def _dots(row: SummaryRow, place: float, result: Result, spec: ShockSpec) -> Series:
    """The seeds of a variant stand a little above and below each other."""
    found = [
        (each, cell.seed, beside(place, spec.seeds.index(cell.seed), len(spec.seeds)))
        for cell in cells_of(row, result.cells)
        for each in cell.shock["doses"]
    ]
    return Series(
        arm(row, spec),
        tuple((each["dose"], at) for each, _, at in found),
        kind="dots",
        tones=tuple(SURVIVAL_TONES[each["outcome"]] for each, _, _ in found),
        notes=tuple(f"seed {seed}, {each['outcome']}" for each, seed, _ in found),
    )


def _done(rows: Sequence[SummaryRow], result: Result) -> list[Cell]:
    return [cell for row in rows for cell in cells_of(row, result.cells)]
