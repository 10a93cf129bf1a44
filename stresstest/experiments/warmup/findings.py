"""What a map of warm-up x peak LR and a search found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby, pairwise
from typing import Any

from stresstest.reports.numbers import NO_DATA, bracket, failures, interval, loss_unit, lr, middle, number, with_unit
from stresstest.results.records import (
    HARMLESS,
    TRAINED,
    Bracket,
    Cell,
    Finding,
    MapPlace,
    SearchRow,
    SummaryRow,
    TrendRow,
    summarise,
)

_FAR = 256.0  # where all fails, the range to look at next goes so far down


def warmup_findings(
    trends: Sequence[TrendRow],
    rows: Sequence[SummaryRow],
    searches: Sequence[SearchRow],
    cells: Sequence[Cell],
    spec: Mapping[str, Any],
    data: Mapping[str, Any] = NO_DATA,
) -> list[Finding]:
    """All findings, the most important first; `data` says in which unit its losses are."""
    unit = loss_unit(data)
    findings = [*_nothingtrains(trends, searches, cells, spec), *_compared_needs(trends, spec)]
    for trend in trends:
        findings += [*_needs(trend, spec), *_gains(trend, rows, spec)]
    findings += _compared_sensitivities(trends, spec, unit)
    for trend in trends:
        findings += [*_shares(trend, spec), *_not_monotone(trend, spec)]
    findings += _learned_nothing(rows, spec)
    for search in searches:
        findings += _best(search, spec)
    return [*findings, *_caps(cells, unit), *failures(cells)]


def arm_name(row: TrendRow | SummaryRow, spec: Mapping[str, Any]) -> str:
    """A variant, with its optimizer and shape of warm-up where there are several."""
    shape = [] if len(spec["warmup"]) == 1 else [f"{row.point['warmup']} warm-up"]
    return ", ".join([row.variant, *([] if len(spec["optimizer"]) == 1 else [row.optimizer]), *shape])


def setting_words(where: Mapping[str, Any], spec: Mapping[str, Any], at: str = "at") -> str:
    """One setting of the space that was looked at."""
    steps = where["warmup_steps"]
    words = f"{steps} steps of{' ' + where['warmup'] if len(spec['warmup']) > 1 else ''} warm-up" if steps else ""
    words = f"{words or 'no warm-up'} {at} {lr(where['peak_lr'])}"
    return f"{words} with {where['optimizer']}" if len(spec["optimizer"]) > 1 else words


def need(trend: TrendRow, peak_lr: float) -> Bracket | None:
    """The median over seeds of the fewest steps that train at a peak LR; `None` where it is too small to tell."""
    summary = trend.min_warmup.get(repr(peak_lr))
    return None if summary is None else summary.median


def needs_of(trend: TrendRow) -> dict[float, Bracket | None]:
    """The same by peak LR."""
    return {peak_lr: need(trend, peak_lr) for peak_lr in peak_lrs(trend)}


def peak_lrs(trend: TrendRow) -> list[float]:
    """The peak learning rates of the map, ascending."""
    return sorted({place.peak_lr for place in trend.map})


def _longest(trend: TrendRow) -> int:
    return max(place.warmup_steps for place in trend.map)


def _nothingtrains(
    trends: Sequence[TrendRow], searches: Sequence[SearchRow], cells: Sequence[Cell], spec: Mapping[str, Any]
) -> Iterator[Finding]:
    """Where every run of a variant fails: on which side of the boundary the range lies, and where to look."""
    for variant in spec["variant"]:
        done = [cell for cell in cells if cell.variant == variant and cell.status == "done"]
        if not done or any(cell.recipe["outcome"] in TRAINED for cell in done):
            continue
        low, high = spec["start_lr"], spec["end_lr"]
        beyond = where_to_look(variant, cells, spec)
        if beyond is None:
            yield _too_little_to_learn(variant, done, spec)
            continue
        look = f"--start-lr {number(beyond[0])} --end-lr {number(beyond[1])}"
        where = "above the boundary"
        if beyond[0] >= high:
            where, look = "below the LRs that make progress in so few steps", f"{look}, or more --train-steps"
        text = (
            f"{variant}: try {look}. Every run fails, at every warm-up and peak LR from {lr(low)} to {lr(high)}: "
            f"the range lies {where}."
        )
        yield Finding(kind="nothing-trains", subject=variant, text=text)


def where_to_look(variant: str, cells: Sequence[Cell], spec: Mapping[str, Any]) -> tuple[float, float] | None:
    """The range of LRs to look at where every run of a variant fails; `None` where some train or do no harm."""
    done = [cell for cell in cells if cell.variant == variant and cell.status == "done"]
    outcomes = {cell.recipe["outcome"] for cell in done}
    if not done or outcomes & (TRAINED | HARMLESS):
        return None
    low, high = spec["start_lr"], spec["end_lr"]
    lowest, highest = (_loss_near(done, edge) for edge in (low, high))
    if outcomes != {"failed-to-train"} or lowest <= highest:
        return low / _FAR, low
    return high, high * _FAR


def _too_little_to_learn(variant: str, done: Sequence[Cell], spec: Mapping[str, Any]) -> Finding:
    flat = sum(cell.recipe["outcome"] in HARMLESS for cell in done)
    broke = "" if flat < len(done) else ", and a larger --end-lr the boundary"
    text = (
        f"{variant}: too little to learn in {spec['train_steps']} steps to tell progress from noise, at "
        f"every warm-up and peak LR from {lr(spec['start_lr'])} to {lr(spec['end_lr'])}; {flat} of {len(done)} runs "
        f"did no harm. More --train-steps may show progress{broke}."
    )
    return Finding(kind="too-little-to-learn", subject=variant, text=text)


def _loss_near(cells: Sequence[Cell], edge: float) -> float:
    nearest = min(abs(math.log(cell.point["peak_lr"] / edge)) for cell in cells)
    near = [cell for cell in cells if abs(math.log(cell.point["peak_lr"] / edge)) <= nearest + 1e-9]
    return float(statistics.median(cell.recipe["loss"] for cell in near))


def _compared_needs(trends: Sequence[TrendRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    """At the LR that most arms can take: who needs a warm-up there, and who does not."""
    found: list[tuple[float, list[str], list[str]]] = []
    for peak_lr in peak_lrs(trends[0]) if trends else ():
        needs = {arm_name(trend, spec): _steps(need(trend, peak_lr)) for trend in trends}
        some = [f"{arm} needs at least {number(steps)} warm-up steps" for arm, steps in needs.items() if steps]
        none = [f"{arm} needs none" for arm, steps in needs.items() if steps == 0]
        if some and none:
            found.append((peak_lr, some, none))
    if found:
        peak_lr, some, none = max(found, key=lambda each: (len(each[1]) + len(each[2]), each[0]))
        text = f"At {lr(peak_lr)} {'; '.join([*some, *none])} (medians over seeds)."
        yield Finding(kind="compared-warmup", subject=",".join(trend.variant for trend in trends), text=text)


def _steps(value: Bracket | None) -> float | None:
    """How many steps, where some of the map's are enough."""
    return None if value is None or value.high is None else value.high


def _needs(trend: TrendRow, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """How much warm-up an arm needs, by peak LR."""
    needs = needs_of(trend)
    known = {peak_lr: steps for peak_lr, value in needs.items() if (steps := _steps(value)) is not None}
    never = [peak_lr for peak_lr, value in needs.items() if value is not None and value.high is None]
    if not known:
        return
    parts = [
        f"{f'at least {number(steps)} steps' if steps else 'no warm-up'} at {_range([peak_lr for peak_lr, _ in alike])}"
        for steps, alike in groupby(known.items(), key=lambda item: item[1])
    ]
    if never:
        longest = _longest(trend)
        lacks = f"no warm-up up to {longest} steps is enough" if longest else "does not train without one"
        parts.append(f"and at {_range(never)} {lacks}")
    elif max(known) == max(needs):
        parts[-1] += ", the top of the range"
    seeds = max(summary.n for summary in trend.min_warmup.values())
    text = f"{arm_name(trend, spec)} needs {', '.join(parts)} (median of {seeds} seed{'s' * (seeds > 1)})."
    yield Finding(kind="min-warmup", subject=trend.variant, text=text)


def _range(lrs: Iterable[float]) -> str:
    lrs = list(lrs)
    return lr(lrs[0]) if len(lrs) == 1 else f"{lr(lrs[0])} to {lr(lrs[-1])}"


def _gains(trend: TrendRow, rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    """The largest stable LR without and with the longest warm-up, and the gain of a doubling."""
    own = [row for row in rows if _of_arm(row, trend) and "max_stable_lr" in row.metrics]
    if len(own) < 2 or own[0].point["warmup_steps"] != 0:
        return
    first, last = own[0].metrics["max_stable_lr"], own[-1].metrics["max_stable_lr"]
    values = [f"{bracket(m.median)} ({interval(m)})" if m.median.low is not None else "none" for m in (first, last)]
    text = (
        f"{arm_name(trend, spec)}: max_stable_lr is {values[0]} without a warm-up, {values[1]} with "
        f"{own[-1].point['warmup_steps']} steps"
    )
    gain = trend.metrics.get("warmup_gain")
    if gain is not None:
        text += f"; doubling the warm-up adds {middle(gain)} octaves ({interval(gain)})"
    yield Finding(kind="warmup-gain", subject=trend.variant, text=text + ".")


def _of_arm(row: SummaryRow, trend: TrendRow) -> bool:
    same = (row.variant, row.optimizer) == (trend.variant, trend.optimizer)
    return same and row.point["warmup"] == trend.point["warmup"]


def _compared_sensitivities(trends: Sequence[TrendRow], spec: Mapping[str, Any], unit: str) -> Iterator[Finding]:
    """Whose loss depends more on the warm-up, seed by seed."""
    for one, other in combinations(trends, 2):
        ours, theirs = one.metrics.get("warmup_sensitivity"), other.metrics.get("warmup_sensitivity")
        if ours is None or theirs is None:
            continue
        differences = {
            int(seed): Bracket.exactly(value.low - theirs.per_seed[seed].low)  # type: ignore[operator]  # exact
            for seed, value in ours.per_seed.items()
            if seed in theirs.per_seed
        }
        if not differences:
            continue
        paired = summarise("warmup_sensitivity", differences)
        more, less, sign = (one, other, 1.0) if (paired.median.low or 0.0) >= 0 else (other, one, -1.0)
        values = sorted(sign * value.low for value in differences.values() if value.low is not None)
        names = [arm_name(trend, spec) for trend in (more, less)]
        sizes = [f"{middle(t.metrics['warmup_sensitivity'])} over LRs of {_range(_window(t))}" for t in (more, less)]
        difference = with_unit(number(statistics.median(values)), unit)
        spread = f"{number(values[0])}..{number(values[-1])} over {len(values)} seed{'s' * (len(values) > 1)}"
        numbers = f"warmup_sensitivity is {sizes[0]} and {sizes[1]}; paired difference {difference} ({spread})."
        if values[0] > 0:
            text = f"In every seed, {names[0]}'s loss depends more on the warm-up than {names[1]}'s: {numbers}"
        else:
            text = f"These seeds cannot separate how much {names[0]} and {names[1]} depend on the warm-up: {numbers}"
        yield Finding(kind="compared-sensitivity", subject=f"{more.variant},{less.variant}", text=text)


def _window(trend: TrendRow) -> list[float]:
    """The peak LRs that some warm-up trains, in most seeds."""
    return sorted({place.peak_lr for place in trend.map if trains(place)})


def _shares(trend: TrendRow, spec: Mapping[str, Any]) -> Iterator[Finding]:
    names = {"warmup_share": "the warm-up", "lr_share": "the peak LR", "interaction_share": "both together"}
    found = {words: trend.metrics[name] for name, words in names.items() if name in trend.metrics}
    if len(found) == len(names):
        parts = [f"{100 * (share.median.low or 0.0):.0f} % {words}" for words, share in found.items()]
        text = f"{arm_name(trend, spec)}: variance of the loss over the map: {', '.join(parts)} (exact ANOVA)."
        yield Finding(kind="variance", subject=trend.variant, text=text)


def _not_monotone(trend: TrendRow, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Where a longer warm-up breaks what a shorter one trains, in most seeds; one that is merely slow does not."""
    odd = []
    slowest = {p.warmup_steps: p.peak_lr for p in sorted(trend.map, key=lambda p: -p.peak_lr) if trains(p)}
    for peak_lr in peak_lrs(trend):
        column = sorted((p for p in trend.map if p.peak_lr == peak_lr), key=lambda place: place.warmup_steps)
        odd += [
            f"{longer.warmup_steps} steps at {lr(peak_lr)}"
            for shorter, longer in pairwise(column)
            if trains(shorter) and not trains(longer) and peak_lr > slowest.get(longer.warmup_steps, math.inf)
        ]
    if odd:
        text = (
            f"{arm_name(trend, spec)}: a longer warm-up fails where a shorter one trains: {', '.join(odd)}. Near "
            "the boundary outcomes scatter, and a long warm-up leaves fewer steps at the peak."
        )
        yield Finding(kind="not-monotone", subject=trend.variant, text=text)


def trains(place: MapPlace) -> bool:
    """Whether most seeds train there."""
    return 2 * place.num_trained > len(place.outcomes)


def _learned_nothing(rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    dead = [row for row in rows if row.outcomes and not TRAINED & row.outcomes.keys()]
    if dead and len(dead) < len(rows):
        names = ", ".join(f"{arm_name(row, spec)} at {row.point['warmup_steps']} steps" for row in dead)
        text = f"Ignore a small lr_sensitivity of {names}: no run trains there, so it does not mean robustness."
        yield Finding(kind="learned-nothing", subject=dead[0].variant, text=text)


def _best(search: SearchRow, spec: Mapping[str, Any]) -> Iterator[Finding]:
    mapped = search.settings - search.trials
    parts = [f"{mapped} settings of the map"] * (mapped > 0)
    parts += [f"{search.trials} trials of the search"] * (search.trials > 0)
    if search.trained:
        text = (
            f"{search.variant}: the lowest loss is {middle(search.loss)} ({interval(search.loss)}), at "
            f"{setting_words(search.best, spec)}, among {' and '.join(parts)}; {search.trained} of them train with "
            "every seed."
        )
        yield Finding(kind="best-setting", subject=search.variant, text=text)
    if search.importance:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in search.importance.items())
        text = f"{search.variant}: variance of the loss over the {search.trials} trials (fANOVA): {shares}."
        yield Finding(kind="importance", subject=search.variant, text=text)


def _caps(cells: Sequence[Cell], unit: str) -> Iterator[Finding]:
    """Where the loss at initialisation does not show what having learned nothing costs."""
    capped = {c.variant: c for c in cells if c.recipe and c.recipe["cap"] != c.recipe["initial_loss"]}
    for variant, cell in capped.items():
        initial = cell.recipe["initial_loss"]
        start = "not finite" if initial is None or not math.isfinite(initial) else number(initial)
        text = (
            f"{variant}: the loss at initialisation ({start}) is far above chance, so chance, "
            f"{with_unit(number(cell.recipe['cap']), unit)}, counts as having learned nothing."
        )
        yield Finding(kind="far-above-chance", subject=variant, text=text)
