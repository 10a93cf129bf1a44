"""What an experiment will measure, before it does: its metrics, how finely each is resolved, its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from stresstest.errors import ConfigError
from stresstest.experiments.base import Resolution, Row
from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate.statistics import MOST_SEEDS
from stresstest.registry import did_you_mean
from stresstest.results.metrics import METRICS
from stresstest.results.records import Result, SummaryRow, TrendRow
from stresstest.scenario.thresholds import Threshold, octaves
from stresstest.specs.base import TrainingSpec


def metrics_of(spec: TrainingSpec) -> dict[str, float]:
    """The metrics of an experiment's rows, with the least difference that can be told of each.

    In octaves where the metric's scale is log2, else in its unit; 0 where it is measured as a number.
    """
    return {name: resolution.step for name, resolution in EXPERIMENTS.of(spec).metrics(spec).items()}


def rows_of(spec: TrainingSpec, metric: str) -> list[Row]:
    """The rows that a metric will stand in."""
    experiment = EXPERIMENTS.of(spec)
    over = experiment.metrics(spec).get(metric, Resolution()).over_all
    return [row for row in experiment.rows(spec) if ("depth" not in row) == over]


def result_rows(result: Result, metric: str) -> Sequence[SummaryRow | TrendRow]:
    """The rows of a result that a metric stands in."""
    spec: TrainingSpec = EXPERIMENTS[result.command].spec.model_validate(result.spec)
    measured = EXPERIMENTS.of(spec).metrics(spec).get(metric)
    over = any(metric in row.metrics for row in result.trends) if measured is None else measured.over_all
    return result.trends if over else result.summary


def matches(threshold: Threshold, row: Row) -> bool:
    """Whether a row has what the selector asks for."""
    return all(str(row.get(key)) == value for key, value in threshold.selector)


def check_threshold(threshold: Threshold, specs: Mapping[str, TrainingSpec]) -> int:
    """How many lines a threshold has; one that no experiment can answer, or not so finely, is a `ConfigError`."""
    named, metric = threshold.experiment, threshold.metric
    if named and named not in specs:
        raise ConfigError(f"unknown experiment '{named}'{did_you_mean(named, specs)}")
    asked = {name: spec for name, spec in specs.items() if not named or name == named}
    giving = {name: spec for name, spec in asked.items() if metric in metrics_of(spec)}
    if not giving:
        known = sorted({name for spec in asked.values() for name in metrics_of(spec)})
        where = f"experiment {named}" if named else "no experiment"
        raise ConfigError(
            f"{where} {'does not measure' if named else 'measures'} {metric}{did_you_mean(metric, known)}"
        )
    rows = [row for spec in giving.values() for row in rows_of(spec, metric)]
    for key, value in threshold.selector:
        known_values = list(dict.fromkeys(str(row[key]) for row in rows if key in row))
        if value not in known_values:
            raise ConfigError(f"selector: no row of {metric} has {key} '{value}'{did_you_mean(value, known_values)}")
    number = sum(matches(threshold, row) for row in rows)
    if not number:
        raise ConfigError(f"selector: no row of {metric} has all of {dict(threshold.selector)} together")
    if threshold.relative:
        for name, spec in giving.items():
            _check_resolution(threshold, name, metrics_of(spec)[metric])
            if len(spec.seeds) > MOST_SEEDS:
                raise ConfigError(
                    f"experiment {name} has {len(spec.seeds)} seeds; the exact test allows at most {MOST_SEEDS}"
                )
    return number


def _check_resolution(threshold: Threshold, name: str, resolution: float) -> None:
    if threshold.in_octaves:
        tolerance, unit = octaves(threshold), "oct"
    elif threshold.unit != "%":
        tolerance, unit = threshold.tolerance, ""
    else:
        return
    if tolerance < resolution - 1e-9:
        least = f"{'-' * threshold.falls}{math.ceil(resolution * 1000 - 1e-6) / 1000:g}{unit}"
        finer = threshold.metric == "max_stable_lr" and resolution in (0.5, 1.0)
        raise ConfigError(
            f"'{threshold.text}' is finer than {name} measures {threshold.metric}, to "
            f"{resolution:.3g}{unit and ' octaves'}: unchanged code could cross it; the smallest tolerance is {least}"
            + (", or set hold_resolution: quarter-octave" if finer else "")
        )


def default_thresholds(specs: Mapping[str, TrainingSpec]) -> Iterator[tuple[str, str]]:
    """What is gated where a scenario names nothing: of each experiment what it names, by its own resolution."""
    for name, spec in specs.items():
        measured = metrics_of(spec)
        for metric in EXPERIMENTS.of(spec).gated:
            if metric in measured and METRICS[metric].scale == "log2":
                yield f"{name}.{metric}", f"med vs base >= -{max(0.5, math.ceil(1000 * measured[metric]) / 1000):g}oct"
            elif metric in measured:
                higher = METRICS[metric].direction == "higher"
                yield f"{name}.{metric}", f"med vs base {'>= -' if higher else '<= '}25%"
