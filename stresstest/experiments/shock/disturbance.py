"""What a shock does to a run, as data: to its learning rates, its state, its batches, the arithmetic of its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator

    from stresstest.engine.replicas import Replicas
    from stresstest.engine.train import BatchSource
    from stresstest.user_model.constants.targets import Targets

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What a shock meets: a population of the one replica `seed`, its batches, and the step of training it comes at.

    `generator` draws what is drawn: of a shock and seed always the same, whatever the dose. `targets` says where they
    are in a batch of the user's.
    """

    population: Replicas[Any]
    batches: BatchSource[Any]
    seed: int
    step: int
    generator: Callable[[], Generator]
    targets: Targets | None = None

    def batch(self, step: int) -> Any:
        """The batch of a step of training, [1, ...]."""
        return self.batches.batch([self.seed], step)


@dataclass(frozen=True)
class Disturbance:
    """What a shock does at one dose. Steps k count from the shock.

    steps: how long it lasts; 0 where it changes the state between two steps. lrs: the learning rates from the shock on
    [T], from those of the whole undisturbed run [N] and the step of the shock. state: what is done to the state before
    the first step. batch: the batch of step k, while it lasts. gradient: what is done to the gradient of each of these
    steps. forward: where each of these steps takes its forward pass. frozen: no update is made in these steps. dtype:
    the arithmetic of these steps. endless: it lasts to the end of the run.
    """

    steps: int = 0
    lrs: Callable[[Array, int], Array] | None = None
    state: Callable[[Scene], None] | None = None
    batch: Callable[[Scene, int], Any] | None = None
    gradient: Callable[[Scene], None] | None = None
    forward: Callable[[Scene], AbstractContextManager[None]] | None = None
    frozen: bool = False
    dtype: str = ""
    endless: bool = False

    @property
    def disturbs_the_loss(self) -> bool:
        """Whether the loss of these steps is another than that of the undisturbed batch."""
        return self.batch is not None or self.forward is not None or bool(self.dtype)


NONE = Disturbance()


@dataclass(frozen=True)
class Dose:
    """How much of a shock there is: by its name, as a report writes it, those that are tried, and none at all.

    standard: at which the damage of all runs is compared. lasts: it is a number of steps.
    """

    name: str
    unit: str
    tried: tuple[float, ...]
    standard: float
    none: float = 0.0
    lasts: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether it is there or not, and nothing between."""
        return len(self.tried) == 1


@dataclass(frozen=True)
class Shock:
    """One entry of the table of shocks."""

    name: str
    summary: str
    source: str
    dose: Dose
    options: dict[str, Any]
    make: Callable[..., Disturbance]
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def at(self, dose: float, options: dict[str, Any]) -> Disturbance:
        """The disturbance at a dose; none at the dose that is none."""
        return NONE if dose == self.dose.none else partial(self.make, dose)(**options)
