"""The grammar of thresholds, k6's with a selector, and with units where a value is compared with a base's.

[EXPERIMENT.]METRIC[{KEY=VALUE,...}]: [EXPRESSION, {expr: EXPRESSION, level: warn}]

med >= 0.003              the median over seeds, alone
med vs base >= -0.5oct    the median of the paired differences: a loss of up to half an octave passes
med vs base <= 10%        for what is better small: the loss may rise by a tenth
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.registry import did_you_mean
from stresstest.results.metrics import METRICS

Level = Literal["error", "warn", "off"]
LEVELS: tuple[Level, ...] = ("error", "warn", "off")
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_AGGREGATIONS = ("med", "avg", "min", "max", "p(N)")
_KEY = re.compile(
    r"(?:(?P<experiment>[A-Za-z0-9][A-Za-z0-9_-]*)\.)?(?P<metric>[A-Za-z_]\w*)\s*(?:\{(?P<selector>.*)\})?"
)
_EXPRESSION = re.compile(
    r"(?P<aggregation>[a-z]+)(?:\((?P<rank>[^)]*)\))?(?P<relative>\s+vs\s+base)?\s*"
    r"(?P<operator>>=|<=|==|!=|>|<)\s*(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>[A-Za-z%]*)"
)


@dataclass(frozen=True)
class Threshold:
    """One limit on one metric, in the rows that its selector names."""

    experiment: str  # "": every one that measures the metric
    metric: str
    selector: tuple[tuple[str, str], ...]
    text: str
    aggregation: str
    rank: float  # per cent, of p(N)
    relative: bool
    operator: str
    limit: float
    unit: str
    level: Level

    @property
    def tolerance(self) -> float:
        """Of a relative one: the largest loss that passes, in octaves, per cent or the metric's unit."""
        return -self.limit if self.falls else self.limit

    @property
    def falls(self) -> bool:
        """Of a relative one: whether a fall is the loss, and a rise is not."""
        return self.operator in (">=", ">")

    @property
    def in_octaves(self) -> bool:
        """Whether differences are taken in octaves."""
        return METRICS[self.metric].scale == "log2"

    @property
    def name(self) -> str:
        """The key, as it is written."""
        selector = ",".join(f"{key}={value}" for key, value in self.selector)
        prefix = f"{self.experiment}." if self.experiment else ""
        return f"{prefix}{self.metric}" + (f"{{{selector}}}" if selector else "")


def parse_key(key: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """(experiment or nothing, metric, selector) of [EXPERIMENT.]METRIC[{KEY=VALUE,...}]."""
    at = _KEY.fullmatch(key.strip())
    if at is None:
        raise ConfigError(f"'{key}' is not a metric; write METRIC or EXPERIMENT.METRIC{{variant=NAME}}")
    return at["experiment"] or "", METRICS[at["metric"]].name, _selector(at["selector"] or "")


def parse_threshold(key: str, expression: str, level: str = "error") -> Threshold:
    """One threshold; what is wrong with it is a `ConfigError`."""
    experiment, name, selector = parse_key(key)
    metric = METRICS[name]
    found = _EXPRESSION.fullmatch(expression.strip())
    if found is None:
        raise ConfigError(f"'{expression}' is not a threshold; write e.g. 'med >= 0.003' or 'med vs base >= -0.5oct'")
    if level not in LEVELS:
        raise ConfigError(f"unknown level '{level}'{did_you_mean(level, LEVELS)}")
    aggregation, rank = found["aggregation"], found["rank"]
    _check_aggregation(metric.name, aggregation, rank)
    threshold = Threshold(
        experiment=experiment,
        metric=name,
        selector=selector,
        text=" ".join(expression.split()),
        aggregation=aggregation,
        rank=float(rank) if rank else 50.0,
        relative=bool(found["relative"]),
        operator=found["operator"],
        limit=float(found["limit"]),
        unit=found["unit"],
        level=next(each for each in LEVELS if each == level),
    )
    return _relative(threshold) if threshold.relative else _absolute(threshold)


def _check_aggregation(metric: str, aggregation: str, rank: str | None) -> None:
    known = _AGGREGATIONS if METRICS[metric].scale != "grid" else ("med", "min", "max")
    asked = "p(N)" if aggregation == "p" and rank is not None else aggregation
    if asked not in known or (rank is not None and asked != "p(N)"):
        raise ConfigError(f"{metric} has no aggregation '{aggregation}'; it has {', '.join(known)}")
    if asked == "p(N)":
        try:
            number = float(rank or "")
        except ValueError:
            number = math.nan
        if not 0.0 <= number <= 100.0:
            raise ConfigError(f"p({rank}) is not a percentile; give a number from 0 to 100")


def _selector(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, (part.strip() for part in _split(text))):
        key, separator, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not separator or not value.strip():
            raise ConfigError(f"selector '{part}' is not KEY=VALUE; write e.g. {{variant=pre-ln}}")
        if key not in EXPERIMENTS.selectors:
            raise ConfigError(f"selector: unknown key '{key}'{did_you_mean(key, EXPERIMENTS.selectors)}")
        pairs.append((key, value.strip()))
    return tuple(pairs)


def _split(text: str) -> list[str]:
    """At commas that begin a new KEY=: an optimizer's or variant's options have commas and = of their own."""
    keys = "|".join(EXPERIMENTS.selectors).replace("_", "[-_]")
    return re.split(rf",(?=\s*(?:{keys})\s*=)", text)


def _absolute(threshold: Threshold) -> Threshold:
    if threshold.unit:
        raise ConfigError(
            f"'{threshold.text}' has the unit {threshold.unit}, allowed only with 'vs base'; leave it out"
        )
    return threshold


def _relative(threshold: Threshold) -> Threshold:
    text, metric = threshold.text, METRICS[threshold.metric]
    if threshold.aggregation != "med":
        raise ConfigError(f"'{text}': against the base use med (of differences paired by seed)")
    if threshold.operator not in (">=", "<="):
        raise ConfigError(f"'{text}': against the base write >= -TOLERANCE, or <= TOLERANCE if less is better")
    units = ("oct", "%") if threshold.in_octaves else ("%", "", metric.unit)
    if threshold.unit not in units:
        known = " or ".join(unit or "no unit" for unit in dict.fromkeys(units))
        raise ConfigError(f"'{text}': {metric.name} is compared in {known}; give e.g. {_example(threshold)}")
    if metric.name == "seconds_per_step":
        raise ConfigError(f"'{text}': time depends on the load of the machine, so it cannot be compared with a base")
    if metric.direction and (metric.direction == "higher") != threshold.falls:
        raise ConfigError(f"'{text}' limits a gain, because {metric.direction} {metric.name} is better; write "
                          f"{_example(threshold)}")  # fmt: skip
    if threshold.tolerance <= 0.0 or (threshold.unit == "%" and threshold.falls and threshold.tolerance >= 100.0):
        raise ConfigError(f"'{text}' needs a tolerance above 0 and finite, e.g. {_example(threshold)}")
    return threshold


def _example(threshold: Threshold) -> str:
    amount = "0.5oct" if threshold.in_octaves else "10%"
    higher = METRICS[threshold.metric].direction != "lower"
    return f"'med vs base >= -{amount}'" if higher else f"'med vs base <= {amount}'"


def octaves(threshold: Threshold) -> float:
    """The tolerance of a relative one on a log2 metric, in octaves: 10 % less is 0.152, 10 % more 0.138."""
    if threshold.unit != "%":
        return threshold.tolerance
    return abs(math.log2(1.0 + threshold.limit / 100.0))
