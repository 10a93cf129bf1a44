"""Settings: frozen, checked when built, with one place for each default and its help text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from stresstest.choices import MANY_DEPTHS, parse_depths
from stresstest.errors import ConfigError
from stresstest.grid_specs import BatchSweepSpec, RaceSpec, WarmupSpec
from stresstest.model_specs import OneDepthSpec, Spec, TrainingSpec
from stresstest.tables import did_you_mean


class BoundarySpec(TrainingSpec):
    """How a boundary is looked for: by which ramp and hold."""

    optimizer: str = Field("adam", description="Optimizer, NAME[:key=value,...].")
    ramp: Literal["exponential", "linear"] = Field(
        "exponential", description="How the learning rate rises: exponential, or linear (NormFormer's Fig. 5)."
    )
    start_lr: float = Field(1e-4, ge=0, description="Learning rate at the first step of the ramp.")
    end_lr: float = Field(10.0, gt=0, description="Learning rate at the last step of the ramp.")
    num_steps: int = Field(200, ge=20, description="Steps of the ramp.")
    hold_steps: int = Field(150, ge=20, description="Steps of each constant-LR run of the hold.")
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"] = Field(
        "octave", description="Width of the max_stable_lr bracket: octave, half-octave or quarter-octave."
    )
    theory: bool = Field(True, description="Also compute critical_lr and predicted_lr at initialisation.")
    probes: Literal["off", "economy", "standard", "full"] = Field(
        "economy",
        description="Signals to record in training, to explain a break: off; economy: sizes of weights, gradients and "
        "updates; standard or full: also activations and attention logits, every 10 steps or every step.",
    )
    lr_window: bool = Field(
        False, description="Also search for the smallest LR that makes real progress (lower end of lr_window)."
    )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The one optimizer."""
        return (self.optimizer,)

    def with_names(self, variants: tuple[str, ...], optimizers: tuple[str, ...]) -> Self:
        """The same of these variants and this one optimizer."""
        return self.model_copy(update={"variant": variants, "optimizer": optimizers[0]})

    @model_validator(mode="after")
    def _ramp_rises(self) -> Self:
        if self.start_lr >= self.end_lr:
            raise ValueError(f"start_lr {self.start_lr:g} is not below end_lr {self.end_lr:g}; the ramp must rise")
        if self.ramp == "exponential" and self.start_lr == 0:
            raise ValueError("an exponential ramp cannot start at 0; use start_lr 1e-4, or ramp linear")
        return self


class LrRangeSpec(BoundarySpec, OneDepthSpec):
    """Everything that decides the result of `stresstest lr-range`."""


Measure = Literal["outcome", "ramp", "hold"]


class DepthSweepSpec(BoundarySpec):
    """Everything that decides the result of `stresstest depth-sweep`."""

    depths: tuple[int, ...] = Field(
        (2, 4, 8, 16), min_length=1, description="Numbers of blocks: 4,12,64 or 10:10000:x10."
    )
    measure: tuple[Measure, ...] = Field(
        ("hold",),
        min_length=1,
        description="What to train at each depth: outcome (the fixed recipe), ramp, hold (with the ramp before it).",
    )
    init_only: bool = Field(False, description="Train nothing; only measure signal propagation at initialisation.")
    peak_lr: float = Field(1e-3, gt=0, description="Fixed recipe: learning rate, constant after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Fixed recipe: steps of linear warm-up.")
    train_steps: int = Field(200, ge=20, description="Fixed recipe: steps of training.")
    target_loss: float | None = Field(
        None, gt=0, description="Target loss of steps_to_target (off: a tenth below the constant predictor's)."
    )
    bisect: bool = Field(
        False, description="Fixed recipe: also bisect between the last depth that trains and the first that does not."
    )
    probe_steps: tuple[int, ...] = Field(
        (), description="Fixed recipe: measure signal propagation again before these steps, e.g. 50,200."
    )
    jacobian_input: Literal["data", "noise"] = Field(
        "data", description="Input of the Jacobian: data, or noise, N(0, 1), as in ReZero's figure."
    )

    @field_validator("depths", mode="before")
    @classmethod
    def _parse_depths(cls, value: Any) -> Any:
        return parse_depths(value) if isinstance(value, str) else value

    @field_validator("depths")
    @classmethod
    def _depths_increase(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if min(depths) < 1 or any(a >= b for a, b in pairwise(depths)):
            raise ValueError("depths must be positive whole numbers in increasing order, e.g. 4,12,64 or 10:10000:x10")
        if len(depths) > MANY_DEPTHS:
            raise ValueError(f"more than {MANY_DEPTHS} depths; use a larger factor")
        return depths

    @field_validator("measure", "probe_steps", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _recipe_fits(self) -> Self:
        if self.warmup_steps >= self.train_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leave no other steps of train_steps {self.train_steps}; use fewer"
            )
        wrong = [step for step in self.probe_steps if not 0 < step <= self.train_steps]
        if wrong:
            raise ValueError(f"probe_steps {wrong[0]} is outside train_steps, 1 to {self.train_steps}")
        if (self.probe_steps or self.bisect) and (self.init_only or "outcome" not in self.measure):
            asked = "probe_steps" if self.probe_steps else "bisect"
            raise ValueError(f"{asked} belongs to the fixed recipe; add --measure outcome")
        return self


SPECS: Mapping[str, type[TrainingSpec]] = {  # by command
    "lr-range": LrRangeSpec,
    "depth-sweep": DepthSweepSpec,
    "warmup": WarmupSpec,
    "race": RaceSpec,
    "batch-sweep": BatchSweepSpec,
}


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "quick": {},
    "standard": {"seeds": "5", "hold_resolution": "quarter-octave", "lr_window": True, "num_lrs": 15},
    "full": {"seeds": "8", "hold_resolution": "quarter-octave", "lr_window": True, "hold_steps": 400, "num_lrs": 29},
}

LINEAR_LR_STEP = 5e-5  # Shleifer et al. 2021, Fig. 5
_LINEAR_STEPS = 4000


S = TypeVar("S", bound="Spec")
B = TypeVar("B", bound=TrainingSpec)


def resolve(kind: type[B], profile: str, given: Mapping[str, Any]) -> B:
    """The spec of a profile with the user's settings on top; a `ConfigError` names what is wrong."""
    return build(kind, with_profile(kind, profile, given))


def with_profile(kind: type[TrainingSpec], profile: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile, and a linear ramp, mean for the settings that the user did not give."""
    if profile not in PROFILES:
        raise ConfigError(f"unknown profile '{profile}'{did_you_mean(profile, PROFILES)}")
    settings = {name: value for name, value in PROFILES[profile].items() if name in kind.model_fields}
    if given.get("ramp") == "linear":
        with_steps = given.get("num_steps", _LINEAR_STEPS)
        num_steps = int(with_steps) if isinstance(with_steps, int | float) else _LINEAR_STEPS
        settings |= {"start_lr": 0.0, "num_steps": num_steps, "end_lr": LINEAR_LR_STEP * (num_steps - 1)}
    return settings | dict(given)


def build(kind: type[S], settings: Mapping[str, Any]) -> S:
    """Build a spec; what is wrong, the first of each setting, comes as one `ConfigError` in the user's words."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        wrong = _violations(error, kind)
    raise ConfigError("; ".join(f"{name} {text}" if value else text for name, text, value in wrong)) from None


def violations(kind: type[Spec], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with settings: the setting, or nothing where several are, and the complaint."""
    try:
        kind.model_validate(settings)
    except ValidationError as error:
        return [(name, text) for name, text, _ in _violations(error, kind)]
    return []


def _violations(error: ValidationError, kind: type[Spec]) -> list[tuple[str, str, bool]]:
    """(setting, complaint, whether it is about the setting's value), the first of each setting."""
    first = {e["loc"][:1] or (number,): e for number, e in reversed(list(enumerate(error.errors())))}
    return [_in_words(e, kind) for e in reversed(first.values())]


def _in_words(error: Any, kind: type[Spec]) -> tuple[str, str, bool]:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return "", str(message), False
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return name, f"unknown setting '{name}'{did_you_mean(name, kind.model_fields)}", False
    return name, f"{error['input']!r}: {message[0].lower()}{message[1:]}", True
