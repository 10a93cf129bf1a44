"""What an experiment will measure, before it does: its metrics, how finely each is resolved, its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from stresstest.errors import ConfigError
from stresstest.gate.statistics import MOST_SEEDS
from stresstest.grid_specs import BatchSweepSpec, LrGridSpec, RaceSpec, WarmupSpec
from stresstest.metrics import METRICS
from stresstest.model_specs import TrainingSpec, is_own
from stresstest.specs import BoundarySpec, DepthSweepSpec
from stresstest.tables import did_you_mean
from stresstest.thresholds import Threshold, octaves

_BISECTED = math.log2(1.1)  # octaves: depth-sweep's bisection ends there
_HOLD_STEPS = {"octave": 1.0, "half-octave": 0.5, "quarter-octave": 0.25}
_HOLD = ("max_stable_lr", "final_loss", "validation_loss", "lr_window")
_THEORY = ("critical_lr", "predicted_lr", "sharpness")
_SIGNAL = (
    "grad_ratio grad_mismatch grad_last stream_growth activation_rms branch_share similarity jacobian_mean_square "
    "jacobian_condition grad_slope"
).split()
_OVER_DEPTH = ("max_stable_lr_exponent", "grad_exponent", "grad_rate", "activation_exponent", "activation_rate")
_RACE = ("steps_to_target", "tokens_to_target", "seconds_to_target", "speedup")
_OVER_BATCHES = ("scaling_batch", "batch_lr_exponent")
_OVER_MAP = ("warmup_sensitivity", "warmup_gain", "warmup_share", "lr_share", "interaction_share")

Row = Mapping[str, Any]  # variant, depth, optimizer and what else is varied; no depth: over all depths


def metrics_of(spec: TrainingSpec) -> dict[str, float]:
    """The metrics of an experiment's rows, with the least difference that can be told of each.

    In octaves where the metric's scale is log2, else in its unit; 0 where it is measured as a number.
    """
    if isinstance(spec, WarmupSpec):
        between = math.log2(spec.end_lr / spec.start_lr) / max(1, spec.num_lrs - 1)
        names = {"lr_sensitivity": 0.0, "validation_loss": 0.0, "max_stable_lr": between} | _best_scores(spec)
        return names | dict.fromkeys(_OVER_MAP, 0.0) if spec.map else {}
    if isinstance(spec, LrGridSpec):
        between = math.log2(spec.end_lr / spec.start_lr) / max(1, spec.num_lrs - 1)
        names = {"validation_loss": 0.0, "max_stable_lr": between}
        if isinstance(spec, RaceSpec):
            return names | _best_scores(spec) | dict.fromkeys(_RACE, 0.0)
        return names | dict.fromkeys(_OVER_BATCHES, 0.0)
    assert isinstance(spec, BoundarySpec), "there are three kinds of experiments"
    sweep = isinstance(spec, DepthSweepSpec)
    measure = spec.measure if isinstance(spec, DepthSweepSpec) else ("hold",)
    found: dict[str, float] = {}
    if isinstance(spec, DepthSweepSpec):
        found |= {} if is_own(spec.model) else {"parameters": 0.0}
        found |= {} if is_own(spec.model) or spec.model == "resnet" else dict.fromkeys(_SIGNAL, 0.0)
        found |= dict.fromkeys(("grad_last_trained", "grad_mismatch_trained"), 0.0) if spec.probe_steps else {}
        found |= {"encoder_grad_ratio": 0.0} if spec.model == "encoder-decoder" else {}
        if spec.init_only:
            return found | dict.fromkeys(_OVER_DEPTH[1:], 0.0)
    if "hold" in measure or "ramp" in measure:
        found |= {"onset_lr": _ramp_step(spec), "explosion_lr": _ramp_step(spec), "steps_survived": 1.0}
    if "hold" in measure:
        found |= _scores(spec) | dict.fromkeys(_HOLD, 0.0) | {"max_stable_lr": _HOLD_STEPS[spec.hold_resolution]}
        found |= dict.fromkeys(_THEORY if spec.theory else (), 0.0)
    if isinstance(spec, DepthSweepSpec) and "outcome" in measure:
        widest = max((math.log2(b / a) for a, b in pairwise(spec.depths)), default=0.0)
        found |= _scores(spec) | dict.fromkeys(
            ("steps_to_target", "recipe_loss", "seconds_per_step", "peak_bytes"), 0.0
        )
        found |= {"steps_to_target": 1.0, "max_trainable_depth": _BISECTED if spec.bisect else widest}
    return found | (dict.fromkeys(_OVER_DEPTH, 0.0) if sweep else {})


def _scores(spec: TrainingSpec) -> dict[str, float]:
    """What validation gives beside the loss."""
    if is_own(spec.model):
        return {}
    names = {"translation": ("token_accuracy", "bleu"), "language": ("bits_per_byte",)}
    return dict.fromkeys(names.get(spec.task, ()), 0.0)


def _best_scores(spec: TrainingSpec) -> dict[str, float]:
    """Those of which a run that broke has none: the higher the better."""
    return {name: least for name, least in _scores(spec).items() if METRICS[name].direction == "higher"}


def _ramp_step(spec: BoundarySpec) -> float:
    """Octaves between two steps of the ramp; of a linear one, in its middle."""
    if spec.ramp == "linear":
        return math.log2(1.0 + 2.0 / (spec.num_steps - 1))
    return math.log2(spec.end_lr / spec.start_lr) / (spec.num_steps - 1)


def rows_of(spec: TrainingSpec) -> list[Row]:
    """Every row that an experiment will have, over all depths or warm-ups too."""
    depths: Sequence[int] = spec.depths if isinstance(spec, DepthSweepSpec) else (getattr(spec, "depth", 1),)
    rows: list[Row] = []
    for variant, optimizer in product(spec.variant, spec.optimizers):
        at = {"variant": variant, "optimizer": optimizer}
        if isinstance(spec, WarmupSpec):
            rows += [at | {"depth": spec.depth, "warmup": w, "warmup_steps": steps}
                     for w in spec.warmup for steps in spec.warmup_steps]  # fmt: skip
            rows += [at | {"warmup": w} for w in spec.warmup]
        elif isinstance(spec, BatchSweepSpec):
            rows += [at | {"depth": spec.depth, "batch_size": size} for size in spec.batch_sizes]
            rows += [at]
        else:
            rows += [at | {"depth": depth} for depth in depths]
            rows += [at] if isinstance(spec, DepthSweepSpec) else []
    return rows


def over_all(metric: str) -> bool:
    """Whether a metric is one of all depths or of a whole map, and not of one."""
    return metric in (*_OVER_DEPTH, *_OVER_MAP, *_OVER_BATCHES, "max_trainable_depth")


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
    rows = [row for spec in giving.values() for row in rows_of(spec) if ("depth" not in row) == over_all(metric)]
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
    """What is gated where a scenario names nothing: the boundary of each experiment, by its own resolution."""
    for name, spec in specs.items():
        for metric in ("max_stable_lr", "max_trainable_depth"):
            resolution = metrics_of(spec).get(metric)
            if resolution is not None and not isinstance(spec, WarmupSpec):
                tolerance = max(0.5, math.ceil(1000 * resolution) / 1000)
                yield f"{name}.{metric}", f"med vs base >= -{tolerance:g}oct"
        if isinstance(spec, WarmupSpec) and spec.map:
            yield f"{name}.warmup_sensitivity", "med vs base <= 25%"
