"""What is kept of a run through a schedule."""

from __future__ import annotations

import math
import statistics

import numpy as np

from stresstest.engine.outcomes import Reference, Rules
from stresstest.measurements.base import Measurement
from stresstest.measurements.replica import ReplicaRun
from stresstest.results.bracket import clipped
from stresstest.results.records import Bracket, finite
from stresstest.results.scores import KEPT_SCORES

_PROGRESS = 0.01  # of the constant predictor's loss: how finely a course is stored

LossProgress = list[tuple[int, float]]  # (steps, level), each the first at which the level is so low


def of_run(run: ReplicaRun) -> Measurement:
    """What is kept of a run through a schedule: its outcome, its loss, at most that of having learned nothing."""
    most = cap(run.detector.reference, run.detector.rules)
    loss = clipped(run.validation_loss, most)
    return Measurement(
        metrics={n: Bracket.exactly(s) for n, s in run.scores.items() if n in KEPT_SCORES},
        records={"recipe": run.record() | {"validation_loss": finite(run.validation_loss), "loss": loss, "cap": most}},
        curves={"lr": np.array(run.lrs), "loss": np.array(run.losses), "grad_norm": np.array(run.grad_norms)},
    )


def progress(run: ReplicaRun) -> LossProgress:
    """The level of the loss, wherever it is lower than ever by a hundredth of the constant predictor's."""
    window, least = run.detector.rules.level_window, math.inf
    found: LossProgress = []
    grain = _PROGRESS * abs(run.detector.reference.baseline_loss)
    for step in range(window - 1, len(run.judged)):
        level = statistics.median(run.judged[step - window + 1 : step + 1])
        if level <= least - grain:
            least = level
            found.append((step, level))
    return found


def cap(reference: Reference, rules: Rules) -> float:
    """The loss of having learned nothing: that at initialisation, or chance, where that is far above it."""
    initial = reference.initial_loss
    far = reference.chance_loss + rules.far_above_chance * abs(reference.chance_loss)
    return initial if math.isfinite(initial) and initial <= far else reference.chance_loss
