"""The report of an LR range test: a table of variants, theory beside it, a chart of each, what was held."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stresstest.engine.optimizers import theory_formula
from stresstest.experiments.document_parts import (
    beside,
    data_words,
    loss_format,
    machine_words,
    model_words,
    probes_words,
    report_of,
    seeds_words,
)
from stresstest.experiments.lr_range.findings import by_variant
from stresstest.experiments.lr_range.verdicts import answer
from stresstest.reports.document import (
    AT_LENGTH,
    PAGE,
    VERBOSE,
    WRITTEN,
    Axis,
    Block,
    Chart,
    Column,
    Details,
    Document,
    Heading,
    Mark,
    Paragraph,
    Series,
    Table,
    Tone,
    Value,
)
from stresstest.reports.numbers import (
    has_constant,
    interval,
    loss_unit,
    lr,
    middle,
    number,
    with_unit,
)
from stresstest.results.records import TRAINED, Cell, MetricSummary, Result, SummaryRow
from stresstest.specs.kinds import is_user_model

_MOST_COLUMNS = 50  # of a table with one for each seed
_THEORY = ("onset_lr", "max_stable_lr", "critical_lr", "predicted_lr")
_MARKS: Sequence[tuple[str, str, Tone]] = (
    ("max_stable_lr", "s", "good"),
    ("onset_lr", "o", "mixed"),
    ("explosion_lr", "x", "bad"),
)


def document(result: Result) -> Document:
    """The whole report."""
    charts = list(_chart(result))
    first, last = ([replace(chart, formats=formats) for chart in charts] for formats in (PAGE, VERBOSE))
    blocks = [*first, *_tables(result), *last, *_held(result)] if result.summary else []
    return report_of(result, _title(result), _setting(result), blocks, answer(result))


def _title(result: Result) -> str:
    spec = result.spec
    model = model_words(spec, result.data)
    return f"Learning-rate range test: {model}, {spec['optimizer']}, {seeds_words(result)}"


def _setting(result: Result) -> str:
    spec = result.spec
    return (
        f"{data_words(spec, result.data)}; {spec['ramp']} ramp "
        f"{spec['start_lr']:g} to {spec['end_lr']:g} in {spec['num_steps']} steps, holds of "
        f"{spec['hold_steps']} steps; {machine_words(result)}"
    )


def _tables(result: Result) -> Iterator[Block]:
    yield Heading("Variants", formats=PAGE)
    variants = _variants(result)
    yield variants.medians()
    yield variants
    yield Paragraph(_legend(result) + probes_words(result), "dim", formats=AT_LENGTH)
    yield Paragraph("A value beyond the range is written with > or <.", "dim", formats=WRITTEN)
    if any(cell.theory for cell in result.cells):
        yield _beside_theory(result)
        yield Paragraph(_theory_legend(result), "dim", formats=AT_LENGTH)


def _variants(result: Result) -> Table:
    names = ["max_stable_lr", "onset_lr", "explosion_lr", "steps_survived"]
    if result.spec["lr_window"]:
        names.insert(1, "lr_window")
    columns = [*map(Column, ("variant", names[0], "vs weakest", *names[1:-1])), Column(names[-1], wide=True)]
    if any("validation_loss" in row.metrics for row in result.summary):
        names.append("validation_loss")
        columns.append(Column("validation_loss", wide=True))
    rows = []
    for row in result.summary:
        best, *others = (_cell(row, row.metrics.get(name)) for name in names)
        rows.append((Value(row.variant), best, _cell(row, row.times_weakest), *others))
    return Table(tuple(columns), tuple(rows), stacked=True, formats=AT_LENGTH)


def _cell(row: SummaryRow, metric: MetricSummary | None) -> Value:
    if metric is None:
        return Value("-")
    seeds = sum(row.outcomes.values())
    return Value(middle(metric), interval(metric), f"{metric.n} of {seeds} seeds" if metric.n < seeds else "")


def _legend(result: Result) -> str:
    metric = max((each for row in result.summary for each in row.metrics.values()), key=lambda each: each.n)
    sure = (
        "Use --seeds 3 or more: one seed does not show the scatter."
        if metric.n == 1
        else f"Median over {metric.n} seeds, with an interval that covers the median {metric.coverage:.0%} of the time."
    )
    harmless = any(trial["outcome"] == "flat" for cell in result.cells for trial in cell.hold)
    trained = "trained, or did no harm where there was too little to learn," if harmless else "trained"
    return (
        f"{sure} Use max_stable_lr: the last constant LR that {trained} from a fresh start; the first that did not is "
        f"one {result.spec['hold_resolution']} higher, and with it the interval ends. onset_lr, where the ramp began "
        "to lose what it had learned (-: it had learned nothing), is a rough estimate, because the early part of a "
        "ramp works as a warm-up. vs weakest is paired by seed."
    )


def _beside_theory(result: Result) -> Table:
    """Learning rates side by side: the ramp's, the hold's, and what theory says at initialisation."""
    return Table(
        (Column("vs theory"), *map(Column, _THEORY)),
        tuple((Value(row.variant), *(_cell(row, row.metrics.get(name)) for name in _THEORY)) for row in result.summary),
        stacked=True,
        formats=AT_LENGTH,
    )


def _theory_legend(result: Result) -> str:
    said = [cell for cell in result.cells if "forwards" in cell.theory]
    if not said:
        reasons = [cell.theory["no_curvature"] for cell in result.cells if "no_curvature" in cell.theory]
        return (
            f"No theory: {reasons[0].rstrip('.')}."
            if reasons
            else "No theory: the loss at initialisation is not finite."
        )
    forwards = statistics.median(cell.theory.get("forwards", 0) for cell in said)
    products = statistics.median(cell.theory.get("products", 0) for cell in said)
    return (
        "At initialisation, on one batch: critical_lr is where the optimizer's first step begins to raise the loss, "
        f"predicted_lr what the sharpness allows ({theory_formula(result.spec['optimizer'])}). A seed's cost: "
        f"{forwards:.0f} forward passes and {products:.0f} Hessian products."
    )


def _chart(result: Result) -> Iterator[Chart]:
    """What the ramp does, seed by seed and as their median, and below it what became of each held LR."""
    spec, data = result.spec, result.data
    if not any(row.curve for row in result.summary):
        return
    start = spec["start_lr"] or spec["end_lr"] / spec["num_steps"]
    low, high = _loss_range(result)
    unit = loss_unit(data)
    medians = [Series(row.variant, tuple(row.curve), tuple(_marks(row))) for row in result.summary]
    seeds = [
        Series(cell.variant, curve, kind="seed", notes=(f"seed {cell.seed}",) * len(curve))
        for cell in (result.cells if len(spec["seeds"]) > 1 else ())
        if (curve := cell.ramp.get("curve"))
    ]
    lr_axis = Axis("LR", low=start, high=spec["end_lr"])
    yield Chart(
        f"Loss ({' to '.join(_loss_ends(result))}) against the ramp's LR, median over seeds",
        lr_axis,
        Axis(f"loss ({unit})" if unit else "loss", log=False, low=low, high=high),
        (*medians, *seeds),
        reference=("constant predictor", data["baseline_loss"]) if has_constant(data) else None,
        below=_holds(result, lr_axis),
        caption=(
            "Above, the loss while the LR rises: thick the median over seeds, thin each seed. Below, each LR that was "
            "held from a fresh start, one mark per seed: a circle trained, a square did no harm, a cross broke."
        ),
        name="loss-over-lr",
    )


def _holds(result: Result, lr_axis: Axis) -> Chart:
    """Each held LR as a dot in the row of its variant."""
    variants = [row.variant for row in result.summary]
    cells, seeds = by_variant(result.cells), {seed: at for at, seed in enumerate(result.spec["seeds"])}
    dots = tuple(_held_dots(variant, cells[variant], float(place), seeds) for place, variant in enumerate(variants))
    return Chart("Held learning rates", lr_axis, Axis("", names=tuple(variants)), dots)


def _held_dots(variant: str, cells: Sequence[Cell], place: float, seeds: Mapping[int, int]) -> Series:
    """The seeds of a variant stand a little above and below each other."""
    held = [(trial, cell.seed, beside(place, seeds[cell.seed], len(seeds))) for cell in cells for trial in cell.hold]
    return Series(
        variant,
        tuple((trial["lr"], at) for trial, _, at in held),
        kind="dots",
        tones=tuple(_tone(trial["outcome"]) for trial, _, _ in held),
        notes=tuple(f"seed {seed}, {trial['outcome']}" for trial, seed, _ in held),
    )


def _tone(outcome: str) -> Tone:
    return "good" if outcome in TRAINED else "dull" if outcome == "flat" else "bad"


def _marks(row: SummaryRow) -> Iterator[Mark]:
    for name, letter, tone in _MARKS:
        metric = row.metrics.get(name)
        if metric is not None and metric.median.low is not None and metric.median.high is not None:
            yield Mark(name, letter, metric.median.low, tone)


def _loss_range(result: Result) -> tuple[float, float]:
    """(lowest, highest) of a chart of the ramps' losses: to a quarter above the constant predictor's or a guess's.

    Where training starts below it, or it is not known: to a quarter above the start.
    """
    curves = [row.curve for row in result.summary if row.curve]
    top = max(result.data["baseline_loss"], result.data["chance_loss"])
    start = max(curve[0][1] for curve in curves)
    if is_user_model(result.spec["model"]) and (start < result.data["baseline_loss"] or not has_constant(result.data)):
        top = start
    return min(loss for curve in curves for _, loss in curve), top + 0.25 * abs(top)


def _loss_ends(result: Result) -> tuple[str, str]:
    """The ends of that range in words."""
    if is_user_model(result.spec["model"]):
        low, high = map(number, _loss_range(result))
    else:
        low, high = (f"{end:.1f}" for end in _loss_range(result))
    return low, with_unit(high, loss_unit(result.data))


def _held(result: Result) -> Iterator[Details]:
    """The held LRs of each variant, by LR, with each seed's outcome."""
    seeds, loss = result.spec["seeds"][:_MOST_COLUMNS], loss_format(result)
    cells, number, shown = by_variant(result.cells), len(result.spec["seeds"]), set(seeds)
    for row in result.summary:
        mine = cells[row.variant]
        trials = {(trial["lr"], cell.seed): trial for cell in mine if cell.seed in shown for trial in cell.hold}
        rows = []
        for value in sorted({trial["lr"] for cell in mine for trial in cell.hold}):
            found = (trials.get((value, seed)) for seed in seeds)
            rows.append((Value(lr(value)), *(Value("") if trial is None else _trial(trial, loss) for trial in found)))
        columns = (Column("lr"), *(Column(f"seed {seed}") for seed in seeds))
        caption = f"the first {len(seeds)} of {number} seeds; result.json has all" if number > len(seeds) else ""
        yield Details(f"held learning rates: {row.variant}", (Table(columns, tuple(rows), caption=caption),))


def _trial(trial: Mapping[str, Any], loss: Callable[[float], str]) -> Value:
    end = trial["validation_loss"]
    return Value(f"{trial['outcome']}{'' if end is None else f' {loss(end)}'}", tone=_tone(trial["outcome"]))
