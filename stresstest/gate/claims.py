"""What became of claims: seen, not seen or undecided, by the interval of the median over paired seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.errors import ConfigError
from stresstest.gate.thresholds import metrics_of, result_rows, rows_of
from stresstest.models.variants import VARIANTS
from stresstest.registry import Registry, did_you_mean
from stresstest.reports.numbers import number
from stresstest.results.records import Bracket, Result, SummaryRow, TrendRow, interval_rank
from stresstest.scenario.claims import Claim, Operand
from stresstest.scenario.thresholds import OPERATORS
from stresstest.specs.base import TrainingSpec
from stresstest.specs.parsing import parse_choice

ClaimVerdict = Literal["seen", "not seen", "undecided"]
FEWEST_SEEDS = 3
_LARGEST = 1e300  # as good as infinite


@dataclass(frozen=True)
class Judged:
    """A claim and what became of it: the median over seeds, with the interval that decided."""

    claim: Claim
    verdict: ClaimVerdict
    median: Bracket
    low: float | None
    high: float | None
    seeds: int

    def __repr__(self) -> str:
        """What is claimed, what became of it, and the numbers."""
        return f"{self.verdict}: {self.claim.says} {self.figure}"

    @property
    def figure(self) -> str:
        """The numbers, as they are printed."""
        if not self.seeds:
            return "no value"
        unit = {"/": "x", "-": "", "": ""}[self.claim.how]
        low, high = (("more" if side is None else f"{number(side)}{unit}") for side in (self.low, self.high))
        low = "less" if self.low is None else low
        middle = _middle(self.median)
        return f"{middle}{unit} ({low}..{high}, {self.seeds} seeds)"


def check_claim(claim: Claim, specs: Mapping[str, TrainingSpec]) -> None:
    """Whether the experiments give what a claim is about, in exactly one row each; if not, a `ConfigError`."""
    for operand in filter(None, (claim.left, claim.right)):
        if operand.experiment not in specs:
            raise ConfigError(f"unknown experiment '{operand.experiment}'{did_you_mean(operand.experiment, specs)}")
        spec = specs[operand.experiment]
        known = metrics_of(spec)
        if operand.metric not in known:
            hint = did_you_mean(operand.metric, known)
            raise ConfigError(f"experiment {operand.experiment} does not measure {operand.metric}{hint}")
        found = len(_chosen(operand, rows_of(spec, operand.metric)))
        if found != 1:
            asked = ",".join(f"{key}={value}" for key, value in operand.selector)
            raise ConfigError(
                f"{operand.experiment}.{operand.metric}{{{asked}}} matches {found} rows, and a claim "
                "needs exactly one: select by variant, depth, optimizer, ..."
            )


def judge_claim(claim: Claim, results: Mapping[str, Result]) -> Judged:
    """What became of a claim."""
    values = {seed: value for seed, value in _values(claim, results).items() if value is not None}
    if not values:
        return Judged(claim, "undecided", Bracket(low=None, high=None), None, None, 0)
    lows = sorted(-math.inf if b.low is None else b.low for b in values.values())
    highs = sorted(math.inf if b.high is None else b.high for b in values.values())
    rank, _ = interval_rank(len(values))
    low, high = lows[rank - 1], highs[-rank]
    holds = OPERATORS[claim.operator]
    verdict: ClaimVerdict = "undecided"
    if len(values) >= FEWEST_SEEDS:
        ends = {holds(low, claim.limit), holds(high, claim.limit)}
        verdict = "undecided" if len(ends) == 2 else "seen" if ends == {True} else "not seen"
    middle = Bracket(low=_known(_middle_of(lows)), high=_known(_middle_of(highs)))
    return Judged(claim, verdict, middle, _known(low), _known(high), len(values))


def _values(claim: Claim, results: Mapping[str, Result]) -> dict[str, Bracket | None]:
    left = _per_seed(claim.left, results)
    if claim.right is None:
        return {seed: _last_good(value) for seed, value in left.items()}
    right = _per_seed(claim.right, results)
    combine = _quotient if claim.how == "/" else _difference
    return {seed: combine(left[seed], right[seed]) for seed in left if seed in right}


def _per_seed(operand: Operand, results: Mapping[str, Result]) -> Mapping[str, Bracket]:
    result = results.get(operand.experiment)
    mine = () if result is None else result_rows(result, operand.metric)
    chosen = _chosen(operand, [_facts(row) for row in mine])
    for row in mine:
        if _facts(row) in chosen and operand.metric in row.metrics:
            return row.metrics[operand.metric].per_seed
    return {}


def _facts(row: SummaryRow | TrendRow) -> dict[str, Any]:
    depth = {"depth": row.depth} if isinstance(row, SummaryRow) else {}
    return {"variant": row.variant, "optimizer": row.optimizer, **row.point, **depth}


def _chosen(operand: Operand, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that a selector names; `first` and `last` are the smallest and the largest number that there is."""
    for key, value in operand.selector:
        known = sorted({row[key] for row in rows if key in row}) if value in ("first", "last") else []
        asked = str(known[0 if value == "first" else -1]) if known else _spelled(key, value)
        rows = [row for row in rows if str(row.get(key)) == asked]
    return list(rows)


def _spelled(key: str, value: str) -> str:
    """A variant or an optimizer as results have it: options by name, without those that are the default."""
    tables: dict[str, Registry[Any]] = {"variant": VARIANTS, "optimizer": OPTIMIZERS}
    try:
        return parse_choice(value, tables[key]).label if key in tables else value
    except ConfigError:
        return value  # of the user's own model


def _last_good(value: Bracket) -> Bracket:
    """Of a bracket its lower side, the last that was good, as everywhere; what is open stays open."""
    return value if value.low is None or value.high is None else Bracket.exactly(value.low)


def _difference(a: Bracket, b: Bracket) -> Bracket | None:
    low = None if a.low is None or b.high is None else a.low - b.high
    high = None if a.high is None or b.low is None else a.high - b.low
    return _some(low, high)


def _quotient(a: Bracket, b: Bracket) -> Bracket | None:
    """Of last values known to be good (the lower sides), as everywhere; a side stays open where one is beyond range."""
    if a.low is None and b.low is None:
        return None
    if a.low is None:  # a is nowhere: the quotient is as small as can be
        return Bracket(low=None, high=0.0) if a.high is None else Bracket(low=None, high=_over(a.high, b.low))
    if b.low is None:  # b is nowhere: as large as can be
        return Bracket(low=_over(a.low, b.high) if b.high is not None else _LARGEST, high=None)
    ratio = _over(a.low, b.low)
    if a.high is None and b.high is None:
        return None  # both lie beyond the range: nothing is known
    return Bracket(low=None if b.high is None else ratio, high=None if a.high is None else ratio)


def _over(a: float, b: float | None) -> float | None:
    return None if not b else a / b


def _some(low: float | None, high: float | None) -> Bracket | None:
    return None if low is None and high is None else Bracket(low=low, high=high)


def _middle_of(ordered: Sequence[float]) -> float:
    """The median; between two numbers of which one is infinite, the upper."""
    low, high = statistics.median_low(ordered), statistics.median_high(ordered)
    return (low + high) / 2 if math.isfinite(low + high) else high


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _middle(value: Bracket) -> str:
    if value.low is None:
        return "none" if value.high is None else f"< {number(value.high)}"
    return f"> {number(value.low)}" if value.high is None else number(value.low)
