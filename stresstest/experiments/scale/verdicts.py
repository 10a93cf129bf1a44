"""The answer of a path of sizes: up to which LR the target will train, how sure that is, which size to run next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stresstest.errors import ConfigError
from stresstest.experiments.answers import (
    ENOUGH_SEEDS,
    Answer,
    first_few,
    lrs_apart,
    more_seeds,
    rounded,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
)
from stresstest.experiments.scale.naming import (
    arm,
    law_of,
    longer,
    named_size,
    of_arm,
    short_name,
    size_of,
    target_words,
)
from stresstest.experiments.scale.sentences import (
    WIDE,
    Law,
    bend_words,
    bent,
    checks,
    exponent,
    goes,
    octaves,
    trains_at_none,
    unnamed,
    width,
)
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import named
from stresstest.reports.document import Fact, Tone, Verdict
from stresstest.reports.numbers import lr
from stresstest.results.records import Result, SummaryRow, TrendRow
from stresstest.specs.kinds import kind_of

_WIDER = 16.0  # times: how far a range goes beyond one whose end was reached


def answer(result: Result) -> Answer:
    """A verdict a row, in the order of the spec."""
    spec = ScaleSpec.model_validate(result.spec)
    laws = [(trend, law) for trend in result.trends if (law := law_of(trend, "max_stable_lr"))]
    verdicts = tuple(_verdict(trend, law, result, spec) for trend, law in laws)
    if not verdicts:
        return Answer()
    return Answer(verdicts, _sure([law for _, law in laws], result), first_few(_next(result, spec)))


def _verdict(trend: TrendRow, law: Law, result: Result, spec: ScaleSpec) -> Verdict:
    if "no_law" in law and _all_above(of_arm(result.summary, trend)):
        return Verdict(arm(trend), f"no law: every size trains at the highest LR, {lr(spec.end_lr)}", "mixed")
    if "no_law" in law:
        return Verdict(arm(trend), f"no law: {law['no_law'].removeprefix('no law: ')}", "bad")
    predicted, target, rows = law["predicted"], target_words(spec, trend), of_arm(result.summary, trend)
    if predicted is None:
        text = f"no number for {target}: {unnamed(law, rows, spec.axis)}; {goes(law, spec.axis)}"
        return Verdict(arm(trend), text, "bad" if any(map(trains_at_none, rows)) else "mixed")
    boundary = f"{lr(predicted['median'])} ({lr(predicted['low'])} to {lr(predicted['high'])})"
    if bent(law):
        change = exponent(law["bend"]["change"])
        text = f"{target}: do not extrapolate: the slope changes by {change}; a straight line would say {boundary}"
        return Verdict(arm(trend), text, "mixed")
    told = f"{target}: use LR up to {lr(predicted['low'])}; a new seed's boundary is {boundary}; {goes(law, spec.axis)}"
    warned = _warning(law)
    tone: Tone = "mixed" if warned or width(predicted) > WIDE else "good"
    return Verdict(arm(trend), f"{told}{warned}", tone)


def _all_above(rows: Sequence[SummaryRow]) -> bool:
    """Whether the boundary of every size lies above the range."""
    medians = [row.metrics["max_stable_lr"].median for row in rows if "max_stable_lr" in row.metrics]
    return bool(medians) and all(median.low is not None and median.high is None for median in medians)


def _warning(law: Law) -> str:
    """Why a number is not to be trusted."""
    check = checks([law])
    return f"; but inside in only {check.inside} of {check.counted} leave-outs" if check.failed else ""


def _sure(laws: Sequence[Law], result: Result) -> str:
    seeds, named = len(result.spec["seeds"]), [law for law in laws if law.get("predicted")]
    laws = named or laws
    parts = [checks(laws).words]
    if named and not any(bent(law) or _warning(law) for law in named):
        parts.append("19 of 20 new seeds are to bear that LR")
    unbent = [law for law in laws if law.get("bend") and not bent(law)]
    if unbent and len(unbent) == len(laws):
        parts.append(bend_words(max(unbent, key=lambda law: float(law["bend"]["smallest"]))))
    return "; ".join([*parts, f"{seeds} seed{'s' * (seeds > 1)} a size", lrs_apart(result)])


def _next(result: Result, spec: ScaleSpec) -> Iterator[Fact | None]:
    laws = [
        law
        for trend in result.trends
        if (law := law_of(trend, "max_stable_lr")) and not any(map(trains_at_none, of_arm(result.summary, trend)))
    ]
    yield seeds_to_start(result)
    yield from _answers_first(result, spec)
    yield _reaching(result, spec, laws)
    yield _beyond_the_bend(result, spec, laws)
    wide = [law for law in laws if law.get("predicted") and width(law["predicted"]) > WIDE]
    if wide:
        yield _narrower(result, octaves(max(width(law["predicted"]) for law in wide)))
    yield _transfer(result, spec)
    yield seeds_to_be_sure(result)


def _answers_first(result: Result, spec: ScaleSpec) -> Iterator[Fact | None]:
    """Sizes whose boundary lies beyond what was tried."""
    never = [row for row in result.summary if trains_at_none(row)]
    medians = [(row, row.metrics["max_stable_lr"].median) for row in result.summary if "max_stable_lr" in row.metrics]
    above = [row for row, median in medians if median.low is not None and median.high is None]
    if above:
        why = f"a wider range: the highest LR of this one still trains {_where(above[0], spec)}"
        yield try_again(result, why, {"end_lr": rounded(_WIDER * spec.end_lr)})
    if never and "hold_steps" not in spec.path:
        why = f"longer holds: no LR trains {_where(never[0], spec)}"
        yield try_again(result, why, {"hold_steps": 2 * spec.hold_steps})


def _where(row: SummaryRow, spec: ScaleSpec) -> str:
    return f"{arm(row)} at {named_size(spec.axis, size_of(row, spec.axis))}"


def _reaching(result: Result, spec: ScaleSpec, laws: Sequence[Law]) -> Fact | None:
    """The sizes that let the law name the target: beyond the smallest fit of the leave-outs as far as before it."""
    refused = [law for law in laws if "no_law" not in law and law["predicted"] is None]
    if not refused:
        return None
    largest = max(size_of(row, spec.axis) for row in result.summary)
    smallest_fit = largest / 2.0 ** min(law["reach"] for law in refused)
    sizes = longer(spec, max(largest, math.sqrt(refused[0]["target"] * smallest_fit)))
    last = named_size(spec.axis, next(iter(sizes.values()))[-1])
    why = f"sizes up to {last}: then the leave-outs look as far ahead as the target lies"
    return try_again(result, why, {**sizes, "target": _target(spec)})


def _beyond_the_bend(result: Result, spec: ScaleSpec, laws: Sequence[Law]) -> Fact | None:
    """The larger half of the sizes, and further ones half the way to the target."""
    if not any(map(bent, laws)):
        return None
    first, target = next(iter(spec.path.values())), next(iter(spec.beyond.values()))
    sizes = {name: values[len(first) // 2 :] for name, values in longer(spec, math.sqrt(first[-1] * target)).items()}
    return try_again(result, "larger sizes alone: beyond the bend", {**sizes, "target": _target(spec)})


def _target(spec: ScaleSpec) -> str:
    return ",".join(f"{name}={value}" for name, value in named(spec.beyond).items())


def _transfer(result: Result, spec: ScaleSpec) -> Fact | None:
    """Whether the best LR stays where it is under a parametrization, where it moves along width or depth without."""
    wanted = {"width": "mup", "depth": "completep"}.get(spec.axis)
    moves = [law for trend in result.trends if "exponent" in (law := law_of(trend, "best_lr")) and _moves(law)]
    if wanted is None or not moves or spec.parametrization != ("sp",) or not _has(spec, wanted):
        return None
    why = f"best_lr moves with {spec.axis}: does it stay under {short_name(wanted)}?"
    return try_again(result, why, {"parametrization": f"sp,{wanted}"})


def _moves(law: Law) -> bool:
    return bool(law["exponent"]["high"] < 0.0 or law["exponent"]["low"] > 0.0)


def _has(spec: ScaleSpec, parametrization: str) -> bool:
    """Whether the model, the variants and the optimizer can be parametrized so."""
    from stresstest.experiments.parametrized import check_parametrization

    if "parametrization" in kind_of(spec.model).lacks:
        return False
    try:
        other = spec.model_copy(update={"parametrization": parametrization})
        check_parametrization(other, spec.variant, spec.optimizers)
    except ConfigError:
        return False
    return True


def _narrower(result: Result, wide: str) -> Fact | None:
    """What makes an interval narrower: finer brackets first, which cost two holds a cell, then seeds."""
    why = f"a narrower interval: now {wide}"
    if result.spec["hold_resolution"] == "octave":
        return try_again(result, why, {"hold_resolution": "quarter-octave"})
    return more_seeds(result, ENOUGH_SEEDS, why)
