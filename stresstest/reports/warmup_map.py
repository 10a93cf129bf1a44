"""The map of warm-up x peak LR in words and marks, for every format."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from stresstest.experiments.warmup.findings import arm_name, need, peak_lrs, setting_words
from stresstest.reports.numbers import OUTCOMES, bracket, interval, loss_unit, middle, number
from stresstest.reports.svg import svg_chart
from stresstest.reports.words import data_words, loss_format, model_words
from stresstest.results.records import MapPlace, MetricSummary, Result, SearchRow, TrendRow

LossFormat = Callable[[float], str]

MARKS = {"spiked": "~", "flat": "-", "failed-to-train": "=", "relapsed": "<", "exploded": "^", "nonfinite": "x"}
MIXED = "?"
LEGEND = ", ".join(
    [f"{mark} {outcome} ({OUTCOMES[outcome]})" for outcome, mark in MARKS.items() if outcome != "flat"]
    + [f"{MIXED} only some seeds train"]
)
_FLAT = f", {MARKS['flat']} flat ({OUTCOMES['flat']})"


def title(result: Result) -> str:
    """What was mapped and searched."""
    spec = result.spec
    seeds = len(spec["seeds"])
    return (
        f"Warm-up x peak LR: {model_words(spec, result.data)}, "
        f"{','.join(spec['optimizer'])}, {seeds} seed{'s' * (seeds > 1)}"
    )


def setting(result: Result) -> str:
    """What every run shares."""
    spec, env = result.spec, result.environment
    schedule = f"{'/'.join(spec['warmup'])} warm-up, then {spec['decay']}, {spec['train_steps']} steps"
    return f"{data_words(spec, result.data)}; {schedule}; {env['device_name']}, {spec['dtype']}"


def mark(place: MapPlace) -> str:
    """One character for what became of most seeds; blank where all are stable."""
    trained = place.num_trained
    if 0 < trained < len(place.outcomes):
        return MIXED
    word = statistics.mode(place.outcomes.values())
    return MARKS.get(word, "")


def css(place: MapPlace) -> str:
    """The class of a cell: trains, mixed, flat or fails."""
    kind = mark(place)
    if kind == MIXED:
        return "mixed"
    return "trains" if place.num_trained else "flat" if kind == MARKS["flat"] else "fails"


def outcome_words(place: MapPlace, loss: LossFormat) -> str:
    """What became of each seed."""
    return ", ".join(f"seed {seed} {word} {loss(place.losses[seed])}" for seed, word in place.outcomes.items())


def grid(trend: TrendRow) -> dict[int, list[MapPlace]]:
    """The places of the map: a row a warm-up, along the peak learning rates."""
    rows: dict[int, list[MapPlace]] = {}
    for place in sorted(trend.map, key=lambda place: (place.warmup_steps, place.peak_lr)):
        rows.setdefault(place.warmup_steps, []).append(place)
    return rows


def needs_words(trend: TrendRow) -> list[str]:
    """The last row of a map: the fewest steps of warm-up that train at each peak LR."""
    found = [need(trend, peak_lr) for peak_lr in peak_lrs(trend)]
    return ["-" if value is None else bracket(value) for value in found]


def arm_title(trend: TrendRow) -> str:
    """Which map this is."""
    return f"{trend.variant}, {trend.optimizer}, {trend.point['warmup']} warm-up"


def lr_headers(trend: TrendRow) -> list[str]:
    """The columns of a map."""
    return [number(lr) for lr in peak_lrs(trend)]


def place_words(place: MapPlace, loss: LossFormat) -> str:
    """The loss and the mark of one place."""
    return f"{loss(place.loss)}{mark(place)}"


Rows = list[tuple[str, dict[str, str]]]  # of a table: a name, and the text of each column by its header


def over_lrs_rows(result: Result) -> Rows:
    """What each warm-up comes to over the learning rates."""
    columns = {"max_stable_lr": "max_stable_lr", "lr_sensitivity": "lr_sensitivity", "lowest loss": "validation_loss"}
    columns |= {"best BLEU": "bleu"} if result.spec["task"] == "translation" else {}
    return [
        (
            arm_name(row, result.spec),
            {"warm-up": str(row.point["warmup_steps"])}
            | {header: _with_interval(row.metrics.get(name)) for header, name in columns.items()},
        )
        for row in result.summary
    ]


def over_warmups_rows(result: Result) -> Rows:
    """What each arm comes to over the warm-ups; nothing where there is one."""
    if len(result.spec["warmup_steps"]) == 1:
        return []
    return [
        (
            arm_name(row, result.spec),
            {
                "warmup_sensitivity": _with_interval(row.metrics.get("warmup_sensitivity")),
                "octaves per doubling": _with_interval(row.metrics.get("warmup_gain")),
                "variance: warm-up / LR / both": _shares(row),
            },
        )
        for row in result.trends
    ]


def best_settings(result: Result) -> Rows:
    """Each variant's best setting, and what the claim rests on."""
    return [
        (
            row.variant,
            {
                "best setting": setting_words(row.best, result.spec)
                if row.trained
                else "no setting trains with every seed",
                "loss": _with_interval(row.loss),
                "settings": str(row.settings),
                "from the search": str(row.trials),
                "that train": str(row.trained),
            },
        )
        for row in result.searches
    ]


def warmup_facts(result: Result) -> dict[str, Any]:
    """What the template reads beside the result."""
    loss = loss_format(result)
    arms = [
        {
            "name": arm_title(trend),
            "lrs": lr_headers(trend),
            "rows": grid(trend),
            "needs": needs_words(trend),
            "chart": svg_chart(
                f"loss against peak LR, {arm_title(trend)}",
                {f"{steps} steps": [(p.peak_lr, p.loss) for p in places] for steps, places in grid(trend).items()},
                logarithmic=True,
            ),
        }
        for trend in result.trends
    ]
    return {
        "title": title(result),
        "setting": setting(result),
        "arms": arms,
        "css": css,
        "mark": mark,
        "words": lambda place: outcome_words(place, loss),
        "legend": legend(result),
        "over_lrs": over_lrs_rows(result),
        "over_warmups": over_warmups_rows(result),
        "sensitivities": sensitivity_legend(),
        "searches": best_settings(result),
        "trials": lambda search: _trials(search, result.spec, loss),
    }


def _trials(search: SearchRow, spec: Mapping[str, Any], loss: LossFormat) -> Rows:
    return [
        (
            setting_words(place, spec),
            {"outcomes": ", ".join(place["outcomes"]), "losses": ", ".join(map(loss, place["losses"]))},
        )
        for place in search.places
    ]


def _shares(row: TrendRow) -> str:
    shares = [row.metrics.get(f"{name}_share") for name in ("warmup", "lr", "interaction")]
    known = [f"{100 * (share.median.low or 0.0):.0f}" for share in shares if share is not None]
    return " / ".join(known) + " %" if known else "-"


def legend(result: Result) -> str:
    """How to read the maps."""
    metrics = [metric for row in result.summary for metric in row.metrics.values()]
    metric = max(metrics, key=lambda metric: metric.n, default=None)
    seeds = len(result.spec["seeds"])
    sure = (
        f"In brackets: intervals over {metric.n} seeds that cover the median {metric.coverage:.0%} of the time."
        if metric is not None and metric.n > 1
        else "Use --seeds 3 or more: one seed does not show the scatter."
    )
    unit = "".join(f"{name}, " for name in [loss_unit(result.data)] if name)
    flat = any("flat" in place.outcomes.values() for trend in result.trends for place in trend.map)
    return (
        f"Maps: loss on held-out data at the end, {unit}median over {seeds} seed{'s' * (seeds > 1)}, capped at the "
        f"loss at initialisation; {LEGEND}{_FLAT * flat}; needs: the fewest warm-up steps that train at that LR. {sure}"
    )


def sensitivity_legend() -> str:
    """What the sensitivities mean, and do not."""
    return (
        "lr_sensitivity: mean over the peak LRs of min(loss, loss at initialisation) minus the lowest (Wortsman et al. "
        "2023). Read it with the map: it depends on the range of LRs, means little where a change rescales the "
        "LR, and is "
        "0 where nothing learns. warmup_sensitivity: the same over the warm-ups, averaged over the LRs that "
        "some warm-up "
        "trains. Shares of the loss's variance over the map are exact."
    )


def _with_interval(metric: MetricSummary | None) -> str:
    if metric is None:
        return "-"
    return middle(metric) if metric.n == 1 else f"{middle(metric)} ({interval(metric)})"
