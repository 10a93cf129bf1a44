"""What became of one replica: a judged curve, and what was read of it on the way."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresstest.engine.divergence import Detector
from stresstest.engine.outcomes import Reference
from stresstest.engine.replicas import BAD_GRADIENT, BAD_LOSS, BAD_PARAMETER
from stresstest.engine.signal_propagation import Signal
from stresstest.engine.train import StepBlock
from stresstest.results.outcome import Reason

BEFORE = -1  # all training: of the batches at initialisation
_REASONS: dict[int, Reason] = {BAD_LOSS: "loss", BAD_GRADIENT: "gradient", BAD_PARAMETER: "parameter"}


@dataclass(frozen=True)
class Start:
    """What a replica is judged against. `losses` are those of `ALL_BATCHES` fresh batches where it brought something.

    `paired`: each loss is judged relative to the constant predictor on its own batch.
    """

    reference: Reference
    paired: bool
    losses: NDArray[np.float64] | None = None


@dataclass
class ReplicaRun:
    """What became of one replica: a judged curve. Losses are nats, one a step."""

    seed: int
    detector: Detector
    paired: bool = True  # judged relative to the constant predictor on each batch
    start: NDArray[np.float64] | None = None  # losses of fresh batches at the start, where it brought something
    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)  # losses without the luck of the batch
    grad_norms: list[float] = field(default_factory=list)
    clipped: int = 0
    skipped: int = 0
    validation_loss: float = math.nan
    scores: dict[str, float] = field(default_factory=dict)  # what else validation gave, by metric
    seconds_per_step: float = math.nan  # of one replica in its population
    peak_bytes: float = math.nan  # of one replica, beyond what was in use
    signals: dict[int, Signal] = field(default_factory=dict)  # by step
    frames: list[NDArray[np.float32]] = field(default_factory=list)  # one a step, [3, N]
    looks: dict[int, dict[tuple[str, str], float]] = field(default_factory=dict)  # by the step that follows, or BEFORE
    probe_seconds: float = 0.0

    def take(self, lr: float, judged: float, block: StepBlock, step: int, column: int) -> None:
        """Append one step of a block."""
        self.lrs.append(lr)
        self.losses.append(float(block.loss[step, column]))
        self.judged.append(judged)
        self.grad_norms.append(float(block.grad_norm[step, column]))
        self.clipped += int(block.clipped[step, column])
        self.skipped += int(block.skipped[step, column])
        if block.frames is not None:
            self.frames.append(block.frames[step, column])
        if step in block.looks:
            self.looks[len(self.losses) - 1] = block.looks[step][column]
        self.detector.update(judged, _REASONS.get(int(block.health[step, column]), ""))

    def record(self) -> dict[str, Any]:
        """The outcome and its evidence, as the cell stores it; steps count from 0."""
        judgement = self.detector.judgement()
        return {
            **asdict(judgement),
            "best_loss": self.best_loss,
            "last_loss": self.last_loss,
            "onset_lr": self.lr_before(judgement.onset_step),
            "explosion_lr": self.lr_before(judgement.explosion_step),
            "steps": len(self.losses),
            "initial_loss": self.detector.reference.initial_loss,
            "clip_fraction": self.clipped / max(1, len(self.losses)),
            "skipped_steps": self.skipped,
        }

    @property
    def last_loss(self) -> float:
        """The level at the end; of the user's model that of the losses as they are."""
        levels = self._raw_levels()
        return levels[-1] if levels else self.detector.judgement().last_loss

    @property
    def best_loss(self) -> float:
        """The lowest level, likewise."""
        return min(self._raw_levels(), default=self.detector.judgement().best_loss)

    def _raw_levels(self) -> list[float]:
        if not self.detector.reference.noisy:
            return []  # of a built-in model what is judged has the luck of the batch taken out of many examples
        losses = [loss for loss in self.losses if math.isfinite(loss)]
        window = self.detector.rules.level_window
        return [statistics.median(losses[max(0, t - window + 1) : t + 1]) for t in range(len(losses))]

    def steps_to(self, target_loss: float) -> int | None:
        """Steps taken before the level of the judged loss is first at `target_loss` or below."""
        window = self.detector.rules.level_window
        for step in range(window - 1, len(self.judged)):
            if statistics.median(self.judged[step - window + 1 : step + 1]) <= target_loss:
                return step
        return None

    def lr_before(self, step: int | None) -> float | None:
        """The LR of the step before, which caused the loss of `step`."""
        return None if step is None else self.lrs[max(0, step - 1)]
