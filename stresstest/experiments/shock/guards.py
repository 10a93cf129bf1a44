"""What might save a run from a shock: an entry each, what it changes of the training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.lazy import numpy as np
from stresstest.registry import OptionValue, Registry
from stresstest.specs.parsing import Choice, parse_choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class GuardedTraining:
    """What a guard changes. clip_norm, options of the optimizer: all training. skip: updates that are left out, as
    keyword arguments of `engine.guard.Guard`. rewarm: steps of linear warm-up after the shock."""

    clip_norm: float | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    skip: Mapping[str, Any] | None = None
    rewarm: int = 0

    def lrs(self, lr_T: Array, lasts: int) -> Array:
        """The learning rates from a shock on that lasts so many steps."""
        if not self.rewarm:
            return lr_T
        since_T = np.arange(len(lr_T)) - lasts + 1.0
        return np.asarray(lr_T * np.where(since_T > 0.0, np.minimum(1.0, since_T / self.rewarm), 1.0))


@dataclass(frozen=True)
class GuardKind:
    """One entry of the table of guards."""

    name: str
    summary: str
    source: str
    options: Mapping[str, OptionValue]
    make: Callable[..., GuardedTraining]


_entries: list[GuardKind] = []


def _guard(name: str, source: str) -> Callable[[Callable[..., GuardedTraining]], Callable[..., GuardedTraining]]:
    def register(make: Callable[..., GuardedTraining]) -> Callable[..., GuardedTraining]:
        options = {p.name: p.default for p in inspect.signature(make).parameters.values()}
        _entries.append(GuardKind(name, inspect.cleandoc(make.__doc__ or "").splitlines()[0], source, options, make))
        return make

    return register


@_guard("clip-norm", "Pascanu et al. 2013")
def _clip_norm(norm: float = 1.0) -> GuardedTraining:
    """Gradients are clipped to this norm."""
    return GuardedTraining(clip_norm=norm)


@_guard("beta2", "Wortsman et al. 2023 (StableAdamW)")
def _beta2(beta2: float = 0.95) -> GuardedTraining:
    """Another beta2 of the optimizer."""
    return GuardedTraining(options={"beta2": beta2})


@_guard("eps", "Molybog et al. 2023")
def _eps(eps: float = 1e-6) -> GuardedTraining:
    """Another eps of the optimizer."""
    return GuardedTraining(options={"eps": eps})


@_guard("skip-nonfinite", "torch.amp.GradScaler, for any dtype")
def _skip_nonfinite() -> GuardedTraining:
    """Updates are left out where loss or gradient norm is not finite."""
    return GuardedTraining(skip={})


@_guard("skip-outliers", "OLMo-core's SkipStepOptimizer")
def _skip_outliers(sigmas: float = 6.0, window: float = 128.0) -> GuardedTraining:
    """Updates are left out where loss or gradient norm is so many standard deviations above those before."""
    return GuardedTraining(skip={"sigmas": sigmas, "window": int(window)})


@_guard("rewarm", "Ibrahim et al. 2024")
def _rewarm(steps: float = 25.0) -> GuardedTraining:
    """After the shock the learning rate warms up anew."""
    return GuardedTraining(rewarm=int(steps))


GUARDS: Registry[GuardKind] = Registry("guard", _entries)


@dataclass(frozen=True)
class ChosenGuard:
    """A guard with the options that the user gave it."""

    kind: GuardKind
    choice: Choice

    @property
    def label(self) -> str:
        """Its canonical spelling."""
        return self.choice.label

    @property
    def training(self) -> GuardedTraining:
        """What it changes."""
        return self.kind.make(**{**self.kind.options, **self.choice.options})


def parse_guard(text: str) -> ChosenGuard:
    """`NAME[:key=value,...]`; unknown names and options are a `ConfigError`."""
    choice = parse_choice(text, GUARDS)
    for name, value in choice.options.items():
        if not isinstance(value, str) and value <= 0.0 and not name.startswith("beta"):
            raise ConfigError(f"option '{name}' of guard {choice.name} is {value:g}; it must be above 0")
    return ChosenGuard(GUARDS[choice.name], choice)
