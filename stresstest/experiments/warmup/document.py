"""The report of a map of warm-up x peak LR and of a search: the maps, tables over LRs and warm-ups, best settings."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from stresstest.experiments.document_parts import (
    data_words,
    interval_words,
    loss_format,
    machine_words,
    metric_cell,
    model_words,
    report_of,
    seeds_words,
)
from stresstest.experiments.warmup.charts import grid_of, map_charts, search_chart
from stresstest.experiments.warmup.findings import arm_name, need, peak_lrs, setting_words
from stresstest.experiments.warmup.verdicts import answer
from stresstest.reports.document import (
    AT_LENGTH,
    BRIEF,
    PAGE,
    Block,
    Column,
    Details,
    Document,
    Heading,
    HeatCell,
    Heatmap,
    Paragraph,
    Table,
    Tone,
    Value,
)
from stresstest.reports.numbers import OUTCOME_MARKS, OUTCOMES, bracket, loss_unit, middle, number
from stresstest.results.records import MapPlace, Result, SearchRow, TrendRow

LossFormat = Callable[[float], str]

_MIXED = "?"
_LEGEND = ", ".join(
    [f"{mark} {outcome} ({OUTCOMES[outcome]})" for outcome, mark in OUTCOME_MARKS.items() if outcome != "flat"]
    + [f"{_MIXED} only some seeds train"]
)
_FLAT = f", {OUTCOME_MARKS['flat']} flat ({OUTCOMES['flat']})"
_KEY: tuple[tuple[Tone, str], ...] = (
    ("good", "every seed trains"),
    ("mixed", "some seeds train"),
    ("dull", "no progress, no harm"),
    ("bad", "no seed trains"),
)
_SENSITIVITIES = (
    "lr_sensitivity: mean over the peak LRs of min(loss, loss at initialisation) minus the lowest (Wortsman et al. "
    "2023). Read it with the map: it depends on the range of LRs, means little where a change rescales the LR, and is "
    "0 where nothing learns. warmup_sensitivity: the same over the warm-ups, averaged over the LRs that some warm-up "
    "trains. Shares of the loss's variance over the map are exact."
)


def document(result: Result) -> Document:
    """The whole report."""
    optimizers = ",".join(result.spec["optimizer"])
    title = f"Warm-up x peak LR: {model_words(result.spec, result.data)}, {optimizers}, {seeds_words(result)}"
    blocks = [*_boundaries(result), *_maps(result), *_sensitivities(result), *_searches(result)]
    return report_of(result, title, _setting(result), blocks, answer(result))


def _setting(result: Result) -> str:
    spec = result.spec
    schedule = f"{'/'.join(spec['warmup'])} warm-up, then {spec['decay']}, {spec['train_steps']} steps"
    return f"{data_words(spec, result.data)}; {schedule}; {machine_words(result)}"


def _boundaries(result: Result) -> Iterator[Table]:
    """max_stable_lr of each arm by its warm-up."""
    steps = result.spec["warmup_steps"]
    at = {
        (arm_name(row, result.spec), row.point["warmup_steps"]): row.metrics.get("max_stable_lr")
        for row in result.summary
    }
    rows = []
    for trend in result.trends:
        name = arm_name(trend, result.spec)
        found = [at.get((name, each)) for each in steps]
        rows.append((Value(name), *(Value("-" if metric is None else middle(metric)) for metric in found)))
    if rows:
        yield Table(
            (Column("max_stable_lr after a warm-up of"), *(Column(str(each)) for each in steps)),
            tuple(rows),
            formats=BRIEF,
        )


def _maps(result: Result) -> Iterator[Block]:
    for trend in result.trends:
        yield _map(trend, loss_format(result))
    if result.trends:
        yield Paragraph(_legend(result), "dim", formats=AT_LENGTH)
    yield from map_charts(result)


def _map(trend: TrendRow, loss: LossFormat) -> Heatmap:
    found = [need(trend, peak_lr) for peak_lr in peak_lrs(trend)]
    lowest = min(trend.map, key=lambda place: place.loss)
    return Heatmap(
        f"Loss by warm-up and peak LR: {_arm_title(trend)}",
        across="peak LR",
        down="warm-up",
        columns=tuple(number(lr) for lr in peak_lrs(trend)),
        rows=tuple(
            (str(steps), tuple(_place(place, loss, place is lowest) for place in places))
            for steps, places in grid_of(trend).items()
        ),
        last=("needs", tuple("-" if value is None else bracket(value) for value in found)),
        key=_KEY,
        caption=(
            f"Take the framed place, the lowest loss, or a cheaper one beside it that is as good.{_marks_words(trend)}"
        ),
        formats=AT_LENGTH,
    )


def _place(place: MapPlace, loss: LossFormat, lowest: bool) -> HeatCell:
    by_seed = (f"seed {seed} {word} {loss(place.losses[seed])}" for seed, word in place.outcomes.items())
    return HeatCell(loss(place.loss), _mark(place), _tone(place), ", ".join(by_seed), lowest)


def _mark(place: MapPlace) -> str:
    """One character for what became of most seeds; blank where all are stable."""
    if 0 < place.num_trained < len(place.outcomes):
        return _MIXED
    return OUTCOME_MARKS.get(statistics.mode(place.outcomes.values()), "")


def _marks_words(trend: TrendRow) -> str:
    """The marks that are on a map."""
    there = {_mark(place) for place in trend.map}
    words = [f"{sign} {outcome}" for outcome, sign in OUTCOME_MARKS.items() if sign in there]
    words += [f"{_MIXED} only some seeds train"] * (_MIXED in there)
    return f" Marks: {', '.join(words)}." if words else ""


def _tone(place: MapPlace) -> Tone:
    mark = _mark(place)
    if mark == _MIXED:
        return "mixed"
    return "good" if place.num_trained else "dull" if mark == OUTCOME_MARKS["flat"] else "bad"


def _arm_title(trend: TrendRow) -> str:
    return f"{trend.variant}, {trend.optimizer}, {trend.point['warmup']} warm-up"


def _legend(result: Result) -> str:
    """How to read the maps."""
    metrics = [metric for row in result.summary for metric in row.metrics.values()]
    unit = "".join(f"{name}, " for name in [loss_unit(result.data)] if name)
    flat = any("flat" in place.outcomes.values() for trend in result.trends for place in trend.map)
    return (
        f"Maps: loss on held-out data at the end, {unit}median over {seeds_words(result)}, capped at the loss "
        f"at initialisation; {_LEGEND}{_FLAT * flat}; needs: the fewest warm-up steps that train at that LR. "
        f"{interval_words(max(metrics, key=lambda metric: metric.n, default=None))}"
    )


def _sensitivities(result: Result) -> Iterator[Block]:
    """What each warm-up comes to over the learning rates, and each arm over the warm-ups."""
    if not result.trends:
        return
    yield Heading("Over learning rates and warm-ups", formats=PAGE)
    columns = {"max_stable_lr": "max_stable_lr", "lr_sensitivity": "lr_sensitivity", "lowest loss": "validation_loss"}
    columns |= {"best BLEU": "bleu"} if result.spec["task"] == "translation" else {}
    yield Table(
        (Column("variant"), Column("warm-up"), *map(Column, columns)),
        tuple(
            (
                Value(arm_name(row, result.spec)),
                Value(str(row.point["warmup_steps"])),
                *(metric_cell(row.metrics.get(name)) for name in columns.values()),
            )
            for row in result.summary
        ),
        grouped=True,
        formats=AT_LENGTH,
    )
    if len(result.spec["warmup_steps"]) > 1:
        headers = ("over warm-ups", "warmup_sensitivity", "octaves per doubling", "variance: warm-up / LR / both")
        rows = tuple(_over_warmups(row, result) for row in result.trends)
        yield Table(tuple(map(Column, headers)), rows, formats=AT_LENGTH)
    yield Paragraph(_SENSITIVITIES, "dim", formats=AT_LENGTH)


def _over_warmups(row: TrendRow, result: Result) -> tuple[Value, ...]:
    shares = [row.metrics.get(f"{name}_share") for name in ("warmup", "lr", "interaction")]
    known = [f"{100 * (share.median.low or 0.0):.0f}" for share in shares if share is not None]
    return (
        Value(arm_name(row, result.spec)),
        metric_cell(row.metrics.get("warmup_sensitivity")),
        metric_cell(row.metrics.get("warmup_gain")),
        Value(" / ".join(known) + " %" if known else "-"),
    )


def _searches(result: Result) -> Iterator[Block]:
    """Each variant's best setting, what the claim rests on, and every trial."""
    if not result.searches:
        return
    headers = ("variant", "best setting", "loss", "settings", "from the search", "that train")
    yield Heading("Best settings", formats=PAGE)
    rows = tuple(_best(row, result) for row in result.searches)
    yield Table(tuple(map(Column, headers)), rows, formats=() if not result.trends else AT_LENGTH)
    for search in result.searches:
        if search.places:
            yield search_chart(search, result)
            yield _trials(search, result)


def _best(row: SearchRow, result: Result) -> tuple[Value, ...]:
    best = setting_words(row.best, result.spec) if row.trained else "no setting trains with every seed"
    counts = (Value(str(count)) for count in (row.settings, row.trials, row.trained))
    return (Value(row.variant), Value(best), metric_cell(row.loss), *counts)


def _trials(search: SearchRow, result: Result) -> Details:
    loss = loss_format(result)
    rows = tuple(
        (
            Value(setting_words(place, result.spec)),
            Value(", ".join(place["outcomes"])),
            Value(", ".join(map(loss, place["losses"]))),
        )
        for place in search.places
    )
    table = Table((Column("setting"), Column("outcomes"), Column("losses")), rows)
    return Details(f"trials of the search: {search.variant}", (table,))
