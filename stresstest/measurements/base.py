"""What every measurement shares: the bench, the cells that it is asked for, and what it adds to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stresstest.engine.curvature import Loss
from stresstest.engine.memory import replicas_that_fit
from stresstest.engine.outcomes import Reference, Rules
from stresstest.engine.population import (
    Population,
    Training,
)
from stresstest.engine.probes import Probing
from stresstest.engine.signal_propagation import Signal, measure_signal
from stresstest.engine.train import (
    Batches,
    initial_parameters,
    initialise,
)
from stresstest.engine.translation_scores import translation_scores
from stresstest.measurements.journal import Journal
from stresstest.measurements.replica import Run, Start
from stresstest.models.block import Model
from stresstest.results.bracket import Bracket
from stresstest.specs.base import TrainingSpec
from stresstest.specs.boundary import BoundarySpec
from stresstest.tasks.language import VOCABULARY
from stresstest.tasks.task import INITIAL
from stresstest.tasks.translation import TranslationTask

KEPT_SCORES = frozenset({"token_accuracy", "bleu"})  # of a schedule's run; bits_per_byte are its loss once more


@dataclass(frozen=True)
class CellPlan:
    """One cell to train; `key` identifies all that decides its result.

    `point` has what the experiment varies beside these, as the cell stores it; its "optimizer" is that of
    the spec where it names none.
    """

    key: str
    variant: str
    depth: int
    seed: int
    point: Mapping[str, Any] = field(default_factory=dict)

    def optimizer(self, spec: TrainingSpec) -> str:
        """The cell's own optimizer, or the one of the spec."""
        return str(self.point.get("optimizer", spec.optimizers[0]))


@dataclass
class Measurement:
    """What a measurement adds to a cell: metrics, records by the cell's field, curves, seconds spent on probes."""

    metrics: dict[str, Bracket] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    probe_seconds: float = 0.0

    def add(self, other: Measurement) -> None:
        """Take over what another measurement found."""
        self.metrics |= other.metrics
        self.records |= other.records
        self.curves |= other.curves
        self.probe_seconds += other.probe_seconds


@dataclass
class Bench:
    """What every measurement of one variant shares."""

    model: Model
    training: Training
    batches: Batches
    rules: Rules = field(default_factory=Rules)
    memory_share: float = 1.0
    journal: Journal = field(default_factory=Journal)
    probing: Probing = Probing()

    @property
    def capacity(self) -> int:
        """How many replicas our share of the device's memory holds at once, by estimate."""
        return replicas_that_fit(self.model, self.training, self.batches.task.batch_size, self.memory_share)

    @property
    def eps(self) -> float | None:
        """The optimizer's eps, if it has one."""
        found = {**self.training.optimizer.options, **self.training.options}.get("eps")
        return None if found is None else float(found)

    def module(self) -> nn.Module | None:
        """One replica as a module; `None` of a built-in model, whose blocks are wired as its variant says."""
        return None

    def populate(self, seeds: Sequence[int], lrs: Sequence[float]) -> Population:
        """A freshly initialised population, whose rows will train at `lrs`; only an optimizer of the user's asks."""
        return Population(self.model, seeds, self.training)

    def starts(self, population: Population, seeds: Sequence[int]) -> list[Start]:
        """What each replica is judged against, after the variant's profiling pass."""
        initial = initialise(population, self.batches, seeds)
        with np.errstate(invalid="ignore", over="ignore"):  # a loss at initialisation may be infinite
            return [Start(_reference(self, losses), paired=True) for losses in initial.T]

    def finish(self, population: Population, runs: Sequence[Run]) -> None:
        """What else is judged of runs at their end, [R]: of a built-in model nothing."""

    def blame(self, seed: int, step: int) -> None:
        """Ask whose fault a step is that is not finite; of a built-in task never the data's."""

    def scores(
        self, population: Population, seeds: Sequence[int], losses: NDArray[np.float64]
    ) -> list[dict[str, float]]:
        """What validation gives beside the loss, [R]: of translations their scores, of bytes the bits of each."""
        if self.module() is not None:
            return [{} for _ in seeds]
        if isinstance(self.batches.task, TranslationTask):
            return translation_scores(population, self.batches, seeds)
        if self.batches.task.num_classes == VOCABULARY:
            return [{"bits_per_byte": float(loss) / math.log(2.0)} for loss in losses]
        return [{} for _ in seeds]

    def objective(self, seed: int) -> tuple[Tensor, Loss]:
        """The replica `seed` at initialisation, [P], and its loss on one batch as a function of it; in float64."""
        layout = self.model.layout
        theta_P = initial_parameters(self.model, seed, self.batches).double()
        batch = self.batches.batch([seed], 0, INITIAL)

        def loss(at_P: Tensor) -> Tensor:
            return self.model.plain_loss(layout.views(at_P[None]), batch.inputs, batch.targets)[0]

        return theta_P, loss

    def initial_signal(self, seed: int, noise_input: bool) -> Signal | None:
        """Signal propagation of one replica at initialisation; `None` where the model cannot tell."""
        if not self.model.last_matrix:
            return None
        theta_P = initial_parameters(self.model, seed, self.batches)
        return measure_signal(self.model, theta_P, self.batches, seed, noise_input)


def probing(spec: TrainingSpec) -> Probing:
    """What is read in training, of a command that has the setting."""
    return Probing(spec.probes if isinstance(spec, BoundarySpec) else "off")


def _reference(bench: Bench, initial: NDArray[np.float64]) -> Reference:
    """What a curve of a built-in model is judged against."""
    return Reference(
        initial_loss=float(initial.mean()),
        initial_std=float(initial.std(ddof=1)),
        baseline_loss=bench.batches.baseline_loss,
        chance_loss=bench.batches.chance_loss,
    )
