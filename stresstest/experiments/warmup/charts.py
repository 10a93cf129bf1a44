"""The charts of a map of warm-up x peak LR and of a search."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.experiments.document_parts import loss_format
from stresstest.experiments.warmup.findings import arm_name, peak_lrs, setting_words
from stresstest.reports.document import PAGE, Axis, Block, Chart, Details, Point, Series, Tone
from stresstest.reports.numbers import has_constant, loss_unit
from stresstest.results.records import TRAINED, Bracket, MapPlace, Result, SearchRow, TrendRow, interval_rank

_WHOLE = 2  # arms whose losses are shown; those of more are folded away


def map_charts(result: Result) -> Iterator[Block]:
    """The losses of each arm over the peak LR, and how much warm-up each needs."""
    if result.trends and len(result.spec["warmup_steps"]) > 1:
        yield _needs(result)
    losses = [_losses(trend, result) for trend in result.trends]
    yield from losses[:_WHOLE]
    if losses[_WHOLE:]:
        yield Details(f"losses over the peak LR of {len(losses) - _WHOLE} more", tuple(losses[_WHOLE:]))


def grid_of(trend: TrendRow) -> dict[int, list[MapPlace]]:
    """The places of the map: a row a warm-up, along the peak learning rates."""
    rows: dict[int, list[MapPlace]] = {}
    for place in sorted(trend.map, key=lambda place: (place.warmup_steps, place.peak_lr)):
        rows.setdefault(place.warmup_steps, []).append(place)
    return rows


def _losses(trend: TrendRow, result: Result) -> Chart:
    data, spec = result.data, result.spec
    lines = [
        Series(
            f"{steps} steps of warm-up" if steps else "no warm-up",
            tuple((place.peak_lr, place.loss) for place in places),
            spans=tuple(_interval(place) for place in places),
        )
        for steps, places in grid_of(trend).items()
    ]
    return Chart(
        f"Loss over the peak LR, one line per warm-up: {arm_name(trend, spec)}",
        Axis("peak LR"),
        _loss_axis(result),
        tuple(lines),
        reference=("constant predictor", data["baseline_loss"]) if has_constant(data) else None,
        dots=True,
        caption=(
            "Warm up for as long as lines still come apart where the LR is high. Lines are medians over seeds, bands "
            "their intervals; a run that broke counts with its loss at initialisation at most."
        ),
        name=f"loss-over-peak-lr-{result.trends.index(trend) + 1}",
        formats=PAGE,
    )


def _loss_axis(result: Result) -> Axis:
    return Axis(", ".join(filter(None, ("held-out loss", loss_unit(result.data)))), log=False)


def _interval(place: MapPlace) -> Point:
    """Of the median over seeds."""
    losses = sorted(place.losses.values())
    rank, _ = interval_rank(len(losses))
    return losses[rank - 1], losses[-rank]


def _needs(result: Result) -> Chart:
    """The fewest steps of warm-up that train, by peak LR: the median as a line, each seed as a dot."""
    steps = tuple(map(float, result.spec["warmup_steps"]))
    series = [part for trend in result.trends for part in _need(trend, arm_name(trend, result.spec))]
    return Chart(
        "Fewest steps of warm-up that train, over the peak LR",
        Axis("peak LR"),
        Axis("steps of warm-up", log=False, low=0.0, high=max(steps), ticks=steps),
        tuple(series),
        caption=(
            "Take at least as much warm-up as the line shows at your peak LR. Lines are medians over seeds, dots are "
            f"seeds; a cross trained at none of the map's warm-ups, up to {max(steps):.0f} steps. LRs too small to "
            "tell have no dot."
        ),
        name="fewest-warmup-steps",
        formats=PAGE,
    )


def _need(trend: TrendRow, name: str) -> Iterator[Series]:
    found = {lr: trend.min_warmup[repr(lr)] for lr in peak_lrs(trend) if repr(lr) in trend.min_warmup}
    ends = ((lr, metric.median.high) for lr, metric in found.items())
    yield Series(name, tuple((lr, end) for lr, end in ends if end is not None))
    seeds = [(lr, seed, value) for lr, metric in found.items() for seed, value in metric.per_seed.items()]
    tones: tuple[Tone, ...] = tuple("bad" if value.high is None else "" for _, _, value in seeds)
    yield Series(
        name,
        tuple((lr, value.low or 0.0) for lr, _, value in seeds),
        kind="dots",
        tones=tones,
        notes=tuple(f"seed {seed}, {_enough(value)}" for _, seed, value in seeds),
    )


def _enough(value: Bracket) -> str:
    return f"does not train with {value.low:.0f} steps" if value.high is None else f"trains with {value.low:.0f} steps"


def search_chart(search: SearchRow, result: Result) -> Chart:
    """The trials of a search by their peak LR, with the best of all settings."""
    trials = [(place, losses) for place in search.places if (losses := _known(place["losses"]))]
    dots = Series(
        "",
        tuple((place["peak_lr"], statistics.fmean(losses)) for place, losses in trials),
        kind="dots",
        tones=tuple(_tone(place["outcomes"]) for place, _ in trials),
        notes=tuple(_note(place, result) for place, _ in trials),
    )
    best = [Series("best", (_best(search),), kind="dots", notes=(setting_words(search.best, result.spec),))]
    use = f"Use {setting_words(search.best, result.spec)} (best), the lowest loss that trains with every seed. "
    return Chart(
        f"Trials of the search: {search.variant}",
        Axis("peak LR"),
        _loss_axis(result),
        (*best * bool(search.trained), dots),
        caption=(
            f"{use * bool(search.trained)}Dots are trials, their mean over seeds, which the search lowers: a circle "
            "trained with every seed, a triangle with some, a cross with none; hover for the warm-up."
        ),
        name=f"trials-{result.searches.index(search) + 1}",
        formats=PAGE,
    )


def _known(losses: Sequence[float | None]) -> list[float]:
    return [loss for loss in losses if loss is not None]


def _best(search: SearchRow) -> Point:
    losses = _known([value.low for value in search.loss.per_seed.values()])
    return float(search.best["peak_lr"]), statistics.fmean(losses)


def _tone(outcomes: Sequence[str]) -> Tone:
    trained = sum(outcome in TRAINED for outcome in outcomes)
    return "good" if trained == len(outcomes) else "mixed" if trained else "bad"


def _note(place: Mapping[str, Any], result: Result) -> str:
    loss = loss_format(result)
    ends = ", ".join("-" if each is None else loss(each) for each in place["losses"])
    return f"{setting_words(place, result.spec)}: {', '.join(dict.fromkeys(place['outcomes']))} ({ends})"
