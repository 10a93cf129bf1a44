"""The answer of a warm-up map and of a search: the recipe to use, how much warm-up it takes, how much that matters."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from stresstest.experiments.answers import (
    Answer,
    first_few,
    rounded,
    seeds_sure,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
    wider_grid,
)
from stresstest.experiments.warmup.findings import arm_name, needs_of, setting_words, trains, where_to_look
from stresstest.reports.document import Fact, Tone, Verdict
from stresstest.reports.numbers import OUTCOMES, loss_unit, lr, middle, number, with_unit
from stresstest.results.records import HARMLESS, Bracket, MapPlace, Result, SearchRow, TrendRow

_LONGER = 2  # times: the next warm-up to look at


def answer(result: Result) -> Answer:
    """A verdict an arm of the map, or a variant of the search."""
    verdicts = [_arm(trend, result) for trend in result.trends]
    if not verdicts:
        verdicts = [_searched(search, result) for search in result.searches]
    if not verdicts:
        return Answer()
    metrics = [metric for row in result.summary for metric in row.metrics.values()]
    metrics += [search.loss for search in result.searches]
    return Answer(tuple(verdicts), seeds_sure(result, max(metrics, key=lambda each: each.n)), first_few(_next(result)))


def _arm(trend: TrendRow, result: Result) -> Verdict:
    name, best = arm_name(trend, result.spec), _best_of_map(trend)
    if best is None:
        return Verdict(name, *_no_recipe(trend))
    tone, need = _need(trend)
    effect = trend.metrics.get("warmup_sensitivity")
    matters = "" if effect is None else f"; warm-up sensitivity {_loss(effect.median.low or 0.0, result)}"
    where = "on the map it " if _searches_of(trend, result) else ""
    return Verdict(name, f"use {_recipe(trend, best, result)}; {where}needs {need}{matters}", tone)


def _recipe(trend: TrendRow, best: MapPlace, result: Result) -> str:
    """The setting with the lowest loss: of the search, where it has looked for this arm alone and found a lower one."""
    if searches := _searches_of(trend, result):
        return _best_words(searches[0], result)
    where = {"warmup_steps": best.warmup_steps, "peak_lr": best.peak_lr}
    words = setting_words({**trend.point, **where, "optimizer": trend.optimizer}, _alone(result), "at LR")
    return f"{words} (loss {_loss(best.loss, result)})"


def _searches_of(trend: TrendRow, result: Result) -> list[SearchRow]:
    """The searches that looked for this arm alone, and found a setting that trains."""
    if not len(result.spec["optimizer"]) == len(result.spec["warmup"]) == 1:
        return []
    return [search for search in result.searches if search.variant == trend.variant and search.trained]


def _best_words(search: SearchRow, result: Result) -> str:
    words = setting_words(search.best, result.spec, "at LR")
    return f"{words} (loss {with_unit(middle(search.loss), loss_unit(result.data))})"


def _alone(result: Result) -> Mapping[str, Any]:
    """The settings, so that words leave out what the name of an arm says."""
    return {**result.spec, "optimizer": result.spec["optimizer"][:1], "warmup": result.spec["warmup"][:1]}


def _loss(value: float, result: Result) -> str:
    return with_unit(number(value), loss_unit(result.data))


def _best_of_map(trend: TrendRow) -> MapPlace | None:
    return min((place for place in trend.map if trains(place)), key=lambda place: place.loss, default=None)


def _no_recipe(trend: TrendRow) -> tuple[str, Tone]:
    outcomes = [outcome for place in trend.map for outcome in place.outcomes.values()]
    if HARMLESS & set(outcomes):
        return "makes no clear progress at any warm-up and peak LR: too little to learn in so few steps", "dull"
    return f"trains at no warm-up and peak LR: as a rule it {OUTCOMES[statistics.mode(outcomes)]}", "bad"


def _need(trend: TrendRow) -> tuple[Tone, str]:
    """How many steps it needs, up to which LR."""
    known = {peak: need.high for peak, need in needs_of(trend).items() if need is not None and need.high is not None}
    if not known:
        return "mixed", "more than the map has"
    hardest, fewest = max(known, key=known.__getitem__), min(known.values())
    most, end = number(known[hardest]), f"up to LR {_end(trend, max(known))}"
    if not known[hardest]:
        return "good", f"none {end}"
    if not fewest:
        free = max(peak for peak, steps in known.items() if not steps)
        return "mixed", f"none up to LR {lr(free)}, {most} steps at {lr(hardest)}"
    if fewest < known[hardest]:
        return "mixed", f"{number(fewest)} steps, {most} at LR {lr(hardest)}"
    return "mixed", f"{most} steps {end}"


def _end(trend: TrendRow, peak: float) -> str:
    return f"{lr(peak)}{' or more' * (peak == max(place.peak_lr for place in trend.map))}"


def _searched(search: SearchRow, result: Result) -> Verdict:
    if not search.trained:
        return Verdict(search.variant, f"none of {search.settings} settings trains with every seed", "bad")
    share = f"{search.trained} of {search.settings} settings train with every seed"
    return Verdict(search.variant, f"use {_best_words(search, result)}; {share}", "good")


def _next(result: Result) -> Iterator[Fact | None]:
    spec = result.spec
    yield seeds_to_start(result)
    for variant in spec["variant"]:
        if (look := where_to_look(variant, result.cells, spec)) is not None:
            low, high = map(rounded, look)
            yield try_again(result, f"{variant} trains nowhere: another range", {"start_lr": low, "end_lr": high})
    needs = [need for trend in result.trends for need in needs_of(trend).values()]
    if any(need is not None and _longest_or_more(need, spec["warmup_steps"][-1]) for need in needs):
        yield _longer(result)
    best = [place.peak_lr for trend in result.trends if (place := _best_of_map(trend)) is not None]
    yield wider_grid(result, best)
    yield seeds_to_be_sure(result)


def _longest_or_more(need: Bracket, longest: int) -> bool:
    return longest > 0 and need.low is not None and need.low >= longest


def _longer(result: Result) -> Fact | None:
    """Longer warm-ups, in a training that is long enough for them."""
    steps = result.spec["warmup_steps"]
    longer = _LONGER * steps[-1]
    settings: dict[str, Any] = {"warmup_steps": (*steps, longer)}
    if longer >= result.spec["train_steps"]:
        settings["train_steps"] = _LONGER * result.spec["train_steps"]
    return try_again(result, "longer warm-ups: the longest is needed, or too short", settings)
