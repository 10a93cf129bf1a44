"""What every measurement shares: the bench, the cells that it is asked for, and what it adds to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from stresstest.engine.curvature import Loss
from stresstest.engine.outcomes import Rules
from stresstest.engine.probes import Probing
from stresstest.engine.replicas import Replicas, Training
from stresstest.engine.signal_propagation import Signal
from stresstest.engine.train import BatchSource
from stresstest.measurements.ahead import Ahead
from stresstest.measurements.journal import Journal
from stresstest.measurements.replica import ReplicaRun, Start
from stresstest.models.block import Trainable
from stresstest.results.bracket import Bracket
from stresstest.specs.base import TrainingSpec
from stresstest.specs.boundary import BoundarySpec


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
class Bench(ABC):
    """What every measurement of one variant shares: of a built-in model, or of the user's own."""

    model: Trainable
    training: Training
    batches: BatchSource[Any]
    rules: Rules = field(default_factory=Rules)
    memory_share: float = 1.0
    journal: Journal = field(default_factory=Journal)
    probing: Probing = Probing()
    ahead: Ahead = field(default_factory=Ahead)

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many replicas our share of the device's memory holds at once, by estimate."""

    @property
    def rows_are_cheap(self) -> bool:
        """Whether a few replicas more cost next to nothing: those of a built-in model on a GPU."""
        return self.training.device.type == "cuda"

    def rows_are_alike(self, seeds: Sequence[int]) -> bool:
        """Whether a replica among these gets the bits that it gets by itself; not asked on a GPU."""
        return True

    @property
    def eps(self) -> float | None:
        """The optimizer's eps, if it has one."""
        found = {**self.training.optimizer.options, **self.training.options}.get("eps")
        return None if found is None else float(found)

    @property
    def replay_seconds(self) -> float:
        """What reading data once more has taken so far, in this process."""
        return 0.0

    @abstractmethod
    def module(self) -> nn.Module | None:
        """One replica as a module; `None` of a built-in model, whose blocks are wired as its variant says."""

    @abstractmethod
    def populate(self, seeds: Sequence[int], lrs: Sequence[float]) -> Replicas[Any]:
        """A freshly initialised population, whose rows will train at `lrs`."""

    @abstractmethod
    def starts(self, population: Replicas[Any], seeds: Sequence[int]) -> list[Start]:
        """What each replica is judged against."""

    @abstractmethod
    def finish(self, population: Replicas[Any], runs: Sequence[ReplicaRun]) -> None:
        """What else is judged of runs at their end, [R]."""

    @abstractmethod
    def blame(self, seed: int, step: int) -> None:
        """Ask whose fault a step is that is not finite."""

    @abstractmethod
    def scores(
        self, population: Replicas[Any], seeds: Sequence[int], losses: NDArray[np.float64]
    ) -> list[dict[str, float]]:
        """What validation gives beside the loss, [R]."""

    @abstractmethod
    def objective(self, seed: int) -> tuple[Tensor, Loss]:
        """The replica `seed` at initialisation, [P], and its loss on one batch as a function of it."""

    @abstractmethod
    def initial_signal(self, seed: int, noise_input: bool) -> Signal | None:
        """Signal propagation of one replica at initialisation; `None` where the model cannot tell."""

    @abstractmethod
    def signal(self, theta_P: Tensor, seed: int, noise_input: bool) -> Signal:
        """Signal propagation of a replica with these parameters, of a model that can tell."""


def probing(spec: TrainingSpec) -> Probing:
    """What is read in training, of a command that has the setting."""
    return Probing(spec.probes if isinstance(spec, BoundarySpec) else "off")
