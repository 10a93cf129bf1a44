"""How finely the metrics that several experiments share are measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from stresstest.experiments.base import Resolution
from stresstest.results.scores import KEPT_SCORES
from stresstest.specs.base import TrainingSpec
from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.kinds import is_user_model, kind_of
from stresstest.specs.lr_grid import LrGridSpec

HOLDS: Mapping[str, float] = {"octave": 2.4, "half-octave": 3.4, "quarter-octave": 4.4}  # of a boundary, as counted
RAMPED = 0.8  # of a ramp's steps: where it breaks, as counted
HOLDS_SPREAD = 0.18  # of a boundary's steps, over seeds and variants: a standard deviation

_HOLD_STEPS = {"octave": 1.0, "half-octave": 0.5, "quarter-octave": 0.25}
_HOLD = ("final_loss", "validation_loss", "lr_window")
_THEORY = ("critical_lr", "predicted_lr", "sharpness")

Resolutions = dict[str, Resolution]


def exact(names: Iterable[str], over_all: bool = False) -> Resolutions:
    """Metrics that are measured as numbers."""
    return dict.fromkeys(names, Resolution(0.0, over_all))


def ramp_metrics(spec: BoundarySpec) -> Resolutions:
    """What a ramp gives, to one of its steps."""
    step = Resolution(_ramp_step(spec))
    return {"onset_lr": step, "explosion_lr": step, "steps_survived": Resolution(1.0)}


def hold_metrics(spec: BoundarySpec) -> Resolutions:
    """What ramp and hold give, the boundary to the hold's resolution."""
    stable = {"max_stable_lr": Resolution(_HOLD_STEPS[spec.hold_resolution])}
    found = ramp_metrics(spec) | scores(spec) | exact(_HOLD) | stable
    return found | exact(_THEORY if spec.theory else ())


def grid_metrics(spec: LrGridSpec) -> Resolutions:
    """What a grid of peak LRs gives, the boundary to the grid's step."""
    between = math.log2(spec.end_lr / spec.start_lr) / max(1, spec.num_lrs - 1)
    return exact(["validation_loss"]) | {"max_stable_lr": Resolution(between)}


def scores(spec: TrainingSpec) -> Resolutions:
    """What validation gives beside the loss."""
    if is_user_model(spec.model):
        return {}
    names = {"translation": ("token_accuracy", "bleu"), "language": ("bits_per_byte",)}
    logits = () if "heads" in kind_of(spec.model).lacks else ("max_attention_logit", "log_z_rms")
    return exact([*names.get(spec.task, ()), *logits])


def kept_scores(spec: TrainingSpec) -> Resolutions:
    """Those that are kept of a schedule's run."""
    return {name: least for name, least in scores(spec).items() if name in KEPT_SCORES}


def boundary_steps(spec: BoundarySpec) -> int:
    """Steps of a ramp and its holds, about."""
    return round(RAMPED * spec.num_steps + (HOLDS[spec.hold_resolution] + spec.lr_window) * spec.hold_steps)


def _ramp_step(spec: BoundarySpec) -> float:
    """Octaves between two steps of the ramp; of a linear one, in its middle."""
    if spec.ramp == "linear":
        return math.log2(1.0 + 2.0 / (spec.num_steps - 1))
    return math.log2(spec.end_lr / spec.start_lr) / (spec.num_steps - 1)
