"""The tables of shocks: what each variant takes and what became of it, and the same with and without guards."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stresstest.experiments.document_parts import metric_cell
from stresstest.experiments.shock.contrasts import Contrast, contrast
from stresstest.experiments.shock.naming import (
    TOLERANCES,
    arm,
    bracket_words,
    cells_of,
    chosen,
    dose_and_lr,
    dose_number,
    guard_of,
    is_searched,
    median_dose,
    of_shock,
    outcome_tone,
    outcome_words,
    standard_dose,
    tolerance_interval,
)
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.reports.document import AT_LENGTH, PAGE, Block, Column, Details, Heading, Table, Tone, Value
from stresstest.reports.numbers import loss_unit, middle, number
from stresstest.results.records import MetricSummary, Result, SummaryRow

_NONE = Value("-")
_HOW = ("without it", "with it")


def results_table(result: Result, spec: ShockSpec) -> Iterator[Block]:
    """A row a variant and shock without a guard: up to which dose it is taken, and what the standard dose did."""
    rows = [row for row in result.summary if not guard_of(row)]
    if not rows:
        return
    unit = "".join(f"\n({name})" for name in [loss_unit(result.data)] if name)
    columns = (
        Column("variant"),
        Column("shock", "left"),
        *(Column(words) for words in TOLERANCES.values()),
        Column("outcome", "left"),
        Column("at dose", wide=True),
        Column(f"peak excess{unit}", wide=True),
        Column("recovery\nsteps"),
        Column(f"lasting damage{unit}", wide=True),
        Column("lasting\n% of learned"),
        Column("lasting\nsteps of twin", wide=True),
        Column("peak LR", wide=True),
    )
    yield Heading("What each variant takes", formats=PAGE)
    table = _filled(columns, [_row(row, spec, result) for row in rows])
    yield table.medians()
    yield table


def _row(row: SummaryRow, spec: ShockSpec, result: Result) -> tuple[Value, ...]:
    shock = chosen(row)
    share = row.metrics.get("lasting_share")
    return (
        Value(arm(row, spec)),
        Value(shock.label),
        *(_tolerance(row, spec, name) for name in TOLERANCES),
        _outcome(row),
        _dose(row, spec),
        _peak_excess(row.metrics.get("peak_excess")),
        metric_cell(row.metrics.get("recovery_steps")),
        metric_cell(row.metrics.get("lasting_damage")),
        _NONE if share is None else Value(bracket_words(share.median, "{:.1%}".format)),
        Value(_behind(row, result)),
        Value(number(row.point["peak_lr"])),
    )


def _filled(columns: Sequence[Column], rows: Sequence[tuple[Value, ...]]) -> Table:
    """The columns that say something: no tolerances where every shock has one dose."""
    there = [i for i in range(len(columns)) if any(row[i].text != _NONE.text for row in rows)]
    shown = tuple(tuple(row[i] for i in there) for row in rows)
    return Table(tuple(columns[i] for i in there), shown, grouped=True, formats=AT_LENGTH)


def _dose(row: SummaryRow, spec: ShockSpec) -> Value:
    """A dose, of a pulse with its learning rate; of a switch that it is on."""
    shock = chosen(row)
    dose = standard_dose(spec, shock)
    text = dose_and_lr(spec, shock, dose, row.point["peak_lr"])
    return Value(text or "on", short=shock.words(dose))


def _outcome(row: SummaryRow) -> Value:
    """What became of the seeds; in short the worst of it."""
    text = outcome_words(row.outcomes)
    worst, whole = text.partition(", ")[0], sum(row.outcomes.values())
    count, _, name = worst.partition(" ")
    short = f"all {name}" if int(count) == whole else f"{count}/{whole} {name}"
    return Value(text, tone=outcome_tone(row.outcomes), short=short)


def _tolerance(row: SummaryRow, spec: ShockSpec, name: str) -> Value:
    """The largest dose that is taken, of a pulse with its learning rate, and its interval over seeds."""
    metric, shock = row.metrics.get(name), chosen(row)
    if metric is None or not is_searched(shock):
        return _NONE
    short, ends = _short_words(row), partial(dose_number, shock)
    words = partial(dose_and_lr, spec, shock, peak_lr=row.point["peak_lr"])
    text = bracket_words(median_dose(row, name), words)
    return Value(text, tolerance_interval(metric, ends), short=bracket_words(median_dose(row, name), short))


def _short_words(row: SummaryRow) -> Callable[[float], str]:
    return lambda dose: chosen(row).words(dose)


def _peak_excess(metric: MetricSummary | None) -> Value:
    """The loss above the twin's at its worst; a run whose first loss is not finite has none that is a number."""
    if metric is not None and metric.median.low is None:
        return Value("not finite")
    return metric_cell(metric)


def _behind(row: SummaryRow, result: Result) -> str:
    """The median over seeds of the steps of the twin that the run lags behind; a run that broke has none."""
    known = [
        each["lasting_steps"]
        for cell in cells_of(row, result.cells)
        for each in cell.shock.get("doses", [])
        if each["dose"] == cell.shock["dose"] and each["lasting_steps"] is not None
    ]
    return number(statistics.median(known)) if known else "-"


def guards_table(result: Result, spec: ShockSpec) -> Iterator[Block]:
    """A row a variant, shock and guard: what is taken without and with it, paired by seed."""
    rows = []
    for shock in spec.shock:
        bare = {arm(row, spec): row for row in of_shock(result.summary, shock)}
        for guard in spec.guard:
            guarded = (row for row in of_shock(result.summary, shock, guard) if arm(row, spec) in bare)
            rows += [_guarded(row, bare[arm(row, spec)], spec, result) for row in guarded]
    if rows:
        names = [f"{words.removesuffix(' up to')}\n{how}" for words in TOLERANCES.values() for how in _HOW]
        columns = (
            *(Column("guard"), Column("variant", "left"), Column("shock", "left")),
            *map(Column, names),
            *(Column(f"outcome\n{how}", "left", wide=True) for how in _HOW),
        )
        rows.sort(key=lambda row: spec.guard.index(row[0].text))
        table = _filled(columns, rows)
        yield Heading("With and without a guard", formats=AT_LENGTH)
        yield table.medians()
        yield table


def _guarded(row: SummaryRow, bare: SummaryRow, spec: ShockSpec, result: Result) -> tuple[Value, ...]:
    tolerances = []
    for name in TOLERANCES:
        found = contrast(row, bare, name, result.cells) if is_searched(chosen(row)) else None
        tolerances += [_short(bare, spec, name), _with(row, spec, name, found)]
    return (
        Value(guard_of(row)),
        Value(arm(row, spec)),
        Value(row.point["shock"]),
        *tolerances,
        _outcome(bare),
        _outcome(row),
    )


def _short(row: SummaryRow, spec: ShockSpec, name: str) -> Value:
    """The largest dose that is taken, alone."""
    value = _tolerance(row, spec, name)
    return Value(value.short or value.text)


_SIDES: Mapping[int, Tone] = {1: "good", 0: "", -1: "bad"}


def _with(row: SummaryRow, spec: ShockSpec, name: str, found: Contrast | None) -> Value:
    """The tolerance with a guard, and how many times that without it; green where every seed takes more."""
    value = _short(row, spec, name)
    if found is None or found.times is None or found.times.median.low is None:
        return value
    return replace(value, interval=_times(found.times), tone=_SIDES[found.side])


def _times(ratio: MetricSummary) -> str:
    """The median ratio, and its range over seeds where it has one: `2x, 1x..4x`."""
    ends = tolerance_interval(ratio, "{:.3g}x".format)
    return f"{middle(ratio)}x{f', {ends}' if ends and ratio.low != ratio.high else ''}"


def first_moves(result: Result, spec: ShockSpec) -> Iterator[Block]:
    """What each shock moved first, seed by seed."""
    rows = [row for row in result.summary if any("moved" in cell.shock for cell in cells_of(row, result.cells))]
    if rows:
        columns = (Column("variant"), Column("shock", "left"), *(Column(f"seed {seed}", "left") for seed in spec.seeds))
        yield Details(
            "what each shock moved first", (Table(columns, tuple(_moves(row, spec, result) for row in rows)),)
        )


def _moves(row: SummaryRow, spec: ShockSpec, result: Result) -> tuple[Value, ...]:
    moved = {cell.seed: cell.shock["moved"] for cell in cells_of(row, result.cells) if "moved" in cell.shock}
    words = {seed: _move_words(each) for seed, each in moved.items()}
    named = " + ".join(filter(None, (row.point["shock"], guard_of(row))))
    return (Value(arm(row, spec)), Value(named), *(Value(words.get(seed, "-")) for seed in spec.seeds))


def _move_words(moved: Mapping[str, Any]) -> str:
    step = moved["step"]
    when = f"after {step} step{'s' * (step > 1)}" if step else "at once"
    return f"{when}: {moved['signal']} of {moved['place']}, {number(moved['factor'])}x the twin's"
