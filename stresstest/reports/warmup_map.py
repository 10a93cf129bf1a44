"""The map of warm-up x peak LR in words and marks, for every format."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from stresstest.findings.warmup import need, peak_lrs, setting_words
from stresstest.findings.words import bracket, interval, middle, number
from stresstest.reports.words import data_words
from stresstest.results import TRAINED, MapPlace, MetricSummary, Result, SearchRow, SummaryRow, TrendRow

MARKS = {"spiked": "~", "failed-to-train": "=", "relapsed": "<", "exploded": "^", "nonfinite": "x"}
MIXED = "?"
LEGEND = (
    "= never beats the constant predictor, < gives back what it learned, ^ explodes, x turns non-finite, ~ spikes "
    "and comes back, ? trains with some seeds only"
)


def title(result: Result) -> str:
    """What was mapped and searched."""
    spec = result.spec
    seeds = len(spec["seeds"])
    return (
        f"Warm-up x peak LR: {spec['model']}, depth {spec['depth']}, width {spec['width']}, "
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
    """The class of a cell: trains, mixed or fails."""
    kind = mark(place)
    return "mixed" if kind == MIXED else "trains" if place.num_trained else "fails"


def outcome_words(place: MapPlace) -> str:
    """What became of each seed."""
    return ", ".join(f"seed {seed} {word} {place.losses[seed]:.2f}" for seed, word in place.outcomes.items())


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


def over_lrs(row: SummaryRow) -> dict[str, str]:
    """What one warm-up comes to over the learning rates."""
    return {
        "max_stable_lr": _with_interval(row.metrics.get("max_stable_lr")),
        "lr_sensitivity": _with_interval(row.metrics.get("lr_sensitivity")),
        "lowest loss": _with_interval(row.metrics.get("validation_loss")),
    }


def over_warmups(row: TrendRow) -> dict[str, str]:
    """What an arm comes to over the warm-ups."""
    shares = [row.metrics.get(f"{name}_share") for name in ("warmup", "lr", "interaction")]
    known = [f"{100 * (share.median.low or 0.0):.0f}" for share in shares if share is not None]
    return {
        "warmup_sensitivity": _with_interval(row.metrics.get("warmup_sensitivity")),
        "octaves a doubling": _with_interval(row.metrics.get("warmup_gain")),
        "variance: warm-up / LR / both": " / ".join(known) + " %" if known else "-",
    }


def best_setting(row: SearchRow, spec: Mapping[str, Any]) -> dict[str, str]:
    """A variant's best setting, and what the claim rests on."""
    return {
        "best setting": setting_words(row.best, spec) if row.trained else "none trains with every seed",
        "loss": _with_interval(row.loss),
        "settings": str(row.settings),
        "of the search": str(row.trials),
        "train": str(row.trained),
    }


def legend(result: Result) -> str:
    """How to read the maps."""
    metric = next((m for trend in result.trends for m in trend.min_warmup.values()), None)
    seeds = len(result.spec["seeds"])
    sure = (
        f"In brackets intervals over {metric.n} seeds, which cover the median {metric.coverage:.0%} of the time."
        if metric is not None and metric.n > 1
        else "One seed says nothing of the scatter: use --seeds 3 or more."
    )
    return (
        f"Maps: loss on held-out data at the end, nats, median over {seeds} seed{'s' * (seeds > 1)}, at most that at "
        f"initialisation; {LEGEND}; needs: the fewest steps of warm-up that train at that LR. {sure}"
    )


def sensitivity_legend() -> str:
    """What the sensitivities mean, and do not."""
    return (
        "lr_sensitivity: mean over the peak LRs of min(loss, loss at initialisation) less the lowest (Wortsman et al. "
        "2023); it depends on the range of LRs, means little where a change gives the LR another meaning, and is 0 "
        "where nothing learns: read it with the map. warmup_sensitivity: the same over the warm-ups, averaged over "
        "the LRs that some warm-up trains. Shares of the variance of the loss over the map are exact."
    )


def _with_interval(metric: MetricSummary | None) -> str:
    if metric is None:
        return "-"
    return middle(metric) if metric.n == 1 else f"{middle(metric)} ({interval(metric)})"


def lr_words(value: float) -> str:
    """A peak LR as a column's header."""
    return number(value)


def trains(outcome: str) -> bool:
    """Whether an outcome is one of a run that trained."""
    return outcome in TRAINED
