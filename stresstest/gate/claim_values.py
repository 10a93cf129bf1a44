"""What a claim is about in results: the values of a statement, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.errors import ConfigError
from stresstest.gate.thresholds import metrics_of, result_rows, rows_of
from stresstest.models.variants import VARIANTS
from stresstest.registry import Registry, did_you_mean
from stresstest.results.records import Bracket, Result, SummaryRow, TrendRow
from stresstest.scenario.claims import Claim, Operand, Statement
from stresstest.scenario.thresholds import OPERATORS
from stresstest.specs.base import TrainingSpec
from stresstest.specs.parsing import parse_choice

_LARGEST = 1e300  # as good as infinite


def check_claim(claim: Claim, specs: Mapping[str, TrainingSpec]) -> None:
    """Whether the experiments give what a claim is about, in exactly one row each; if not, a `ConfigError`."""
    for statement in claim.tested:
        for operand in filter(None, (statement.left, statement.right)):
            _check_operand(operand, specs)


def _check_operand(operand: Operand, specs: Mapping[str, TrainingSpec]) -> None:
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


def values_of(statement: Statement, results: Mapping[str, Result]) -> dict[str, Bracket]:
    """What is compared, by seed: a value, a quotient or a difference, with its open sides."""
    left = _per_seed(statement.left, results)
    if statement.right is None:
        return {seed: _last_good(value) for seed, value in left.items()}
    right = _per_seed(statement.right, results)
    combine = _quotient if statement.how == "/" else _difference
    both = {seed: combine(left[seed], right[seed]) for seed in left if seed in right}
    return {seed: value for seed, value in both.items() if value is not None}


def holds_in(statement: Statement, value: Bracket) -> bool | None:
    """Whether a statement holds of a value; `None` where its open sides leave that open."""
    holds = OPERATORS[statement.operator]
    low = holds(-math.inf if value.low is None else value.low, statement.limit)
    high = holds(math.inf if value.high is None else value.high, statement.limit)
    return low if low == high else None


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
