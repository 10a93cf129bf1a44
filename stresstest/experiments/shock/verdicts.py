"""The answer of shocks: what each variant survives, up to which dose, and what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from stresstest.experiments.answers import (
    Answer,
    first_few,
    last_good,
    seeds_sure,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
)
from stresstest.experiments.shock.findings import (
    apart_words,
    beyond_the_end,
    guard_answers,
    is_noisy,
    off_the_peak_words,
)
from stresstest.experiments.shock.guards import GUARDS
from stresstest.experiments.shock.naming import (
    TOLERANCES,
    arm,
    at_dose,
    chosen,
    dose_and_lr,
    dose_number,
    guard_of,
    is_searched,
    listed,
    median_dose,
    of_shock,
    outcome_tone,
    usual,
)
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.untrained import lower_lr, next_step, untrained, untrained_words
from stresstest.reports.document import Fact, Tone, Verdict
from stresstest.results.records import Bracket, Result, SummaryRow

_TONES: tuple[Tone, ...] = ("bad", "mixed", "dull", "good")  # the worst first
_GUARDS = {"lost-moments": "rewarm", "schedule-restart": "rewarm", "half-precision": "skip-nonfinite"}
_MOST_GUARDS = ("clip-norm", "skip-outliers")  # of any other shock


def answer(result: Result) -> Answer:
    """A verdict a variant, in the order of the spec: of the runs without a guard; and one a guard."""
    spec = ShockSpec.model_validate(result.spec)
    rows = [row for row in result.summary if not guard_of(row)]
    if not rows:
        return Answer()
    arms = dict.fromkeys(arm(row, spec) for row in rows)
    verdicts = [_verdict([row for row in rows if arm(row, spec) == each], spec, result) for each in arms]
    verdicts += [Verdict(*each) for each in guard_answers(result.summary, result.cells, spec)]
    return Answer(tuple(verdicts), _sure(spec, rows, result), first_few(_next(spec, rows, result)))


def _verdict(rows: Sequence[SummaryRow], spec: ShockSpec, result: Result) -> Verdict:
    variant = arm(rows[0], spec)
    told = [row for row in rows if usual(row.outcomes)]
    if not told:
        return Verdict(variant, untrained_words(untrained(result.cells, spec, variant), spec), "dull")
    parts = [
        ("survives", [each for row in told if (each := _survives(row, spec))]),
        ("keeps a scar of", [each for row in told if (each := _scarred(row, spec))]),
        ("breaks under", [each for row in told if (each := _breaks(row, spec))]),
    ]
    said = "; ".join(f"{verb} {', '.join(what)}" for verb, what in parts if what)
    return Verdict(variant, said, min((outcome_tone(row.outcomes) for row in told), key=_TONES.index))


def _survives(row: SummaryRow, spec: ShockSpec) -> str:
    """A shock with the largest dose that leaves no scar; nothing where the smallest does."""
    shock, words = chosen(row), _words(row, spec)
    if not is_searched(shock):
        return _at_one_dose(row, spec, "recovered")
    metric, taken = row.metrics["shock_tolerance"], median_dose(row, "shock_tolerance")
    if taken.low is None:
        return ""
    brackets, differ = last_good(metric, partial(dose_number, shock))
    more = " or more" * (taken.high is None)
    return f"{shock.label} up to {words(taken.low)}{more}{brackets if differ > 1.0 else ''}"


def _scarred(row: SummaryRow, spec: ShockSpec) -> str:
    """A shock whose smallest harmful dose leaves a scar, where no dose is known to be harmless."""
    shock, words = chosen(row), _words(row, spec)
    if not is_searched(shock):
        return _at_one_dose(row, spec, "scarred")
    scar, broke = (median_dose(row, name) for name in TOLERANCES)
    if scar.low is not None or scar.high is None or broke.low is None:
        return ""
    return f"{shock.label} from {words(scar.high)}"


def _breaks(row: SummaryRow, spec: ShockSpec) -> str:
    """A shock with the smallest dose that breaks most seeds, and how many it does."""
    shock, words = chosen(row), _words(row, spec)
    if not is_searched(shock):
        return _at_one_dose(row, spec, "broke")
    metric = row.metrics["break_tolerance"]
    first = median_dose(row, "break_tolerance").high
    if first is None:
        return ""
    count = sum(_is_broken(each, first) for each in metric.per_seed.values())
    return f"{shock.label} from {words(first)}{_some(count, row)}"


def _at_one_dose(row: SummaryRow, spec: ShockSpec, outcome: str) -> str:
    """A shock that has one dose, where this became of most seeds."""
    if usual(row.outcomes) != outcome:
        return ""
    return f"{at_dose(spec, chosen(row), row.point['peak_lr'])}{_some(row.outcomes[outcome], row)}"


def _some(count: int, row: SummaryRow) -> str:
    """How many seeds, where it is not all that trained."""
    trained = sum(number for name, number in row.outcomes.items() if name != "untrained")
    return f" ({count} of {trained} seeds)" if count < trained else ""


def _is_broken(value: Bracket, dose: float) -> bool:
    return value.high is not None and value.high <= dose


def _words(row: SummaryRow, spec: ShockSpec) -> Callable[[float], str]:
    return lambda dose: dose_and_lr(spec, chosen(row), dose, row.point["peak_lr"])


def _sure(spec: ShockSpec, rows: Sequence[SummaryRow], result: Result) -> str:
    metrics = [metric for row in rows for metric in row.metrics.values()]
    sure = seeds_sure(result, max(metrics, key=lambda each: each.n, default=None))
    return "; ".join(filter(None, (sure, apart_words(spec, rows, result.cells), off_the_peak_words(spec))))


def _next(spec: ShockSpec, rows: Sequence[SummaryRow], result: Result) -> Iterator[Fact | None]:
    yield from next_step(spec, result)
    yield seeds_to_start(result)
    yield _guarded(spec, rows, result)
    if any(beyond_the_end(cell) for cell in result.cells):
        longer = {"train_steps": spec.after + 2 * spec.horizon}
        yield try_again(result, "a longer run: some recover, but not before its end", longer)
    if not untrained(result.cells, spec) and any(is_noisy(cell) for cell in result.cells):
        yield lower_lr(spec, result, "a lower learning rate: there chance hides smaller scars")
    yield seeds_to_be_sure(result)


def _guarded(spec: ShockSpec, rows: Sequence[SummaryRow], result: Result) -> Fact | None:
    """The shocks that harm, with what may save a run from them; `None` where guards were compared."""
    hurt = [shock for shock in spec.shock if any(map(_is_hurt, of_shock(rows, shock)))]
    if not hurt or spec.guard:
        return None
    guards: dict[str, None] = {}
    for shock in hurt:
        name = shock.partition(":")[0]
        guards |= dict.fromkeys((_GUARDS[name],) if name in _GUARDS else _MOST_GUARDS)
    if spec.clip_norm is not None:
        guards.pop("clip-norm", None)
    named = [_in_time(guard, spec.after) for guard in guards]
    settings = {"guard": ",".join(named)} | ({"shock": ",".join(hurt)} if len(hurt) < len(spec.shock) else {})
    return try_again(result, f"a guard: what may save it from {listed(hurt)}", settings) if guards else None


def _in_time(guard: str, after: int) -> str:
    """A guard that has seen enough when the shock comes: half of its window."""
    window = GUARDS[guard].options.get("window")
    return guard if window is None or after >= float(window) / 2 else f"{guard}:window={2 * after}"


def _is_hurt(row: SummaryRow) -> bool:
    """Whether some dose breaks most seeds, or the standard one harms them."""
    broke = row.metrics.get("break_tolerance")
    return usual(row.outcomes) in ("scarred", "broke") or (broke is not None and broke.median.high is not None)
