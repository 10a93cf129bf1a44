"""Settings: frozen, checked when built, with one place for each default and its help text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from stresstest.choices import MANY_DEPTHS, parse_depths, split_choices
from stresstest.errors import ConfigError
from stresstest.model_specs import OneDepthSpec, Spec, TrainingSpec, kind_of
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
    theory: bool = Field(
        True, description="Also compute critical_lr and predicted_lr at initialisation, beside the hold."
    )
    probes: Literal["off", "economy", "standard", "full"] = Field(
        "economy",
        description="What is read while it trains, to say why it broke: off; economy: sizes of weights, gradients and "
        "updates; standard or full: also activations and attention logits, every 10 steps or at each.",
    )
    lr_window: bool = Field(
        False, description="Also search the smallest LR that makes real progress (lower end of lr_window)."
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
            raise ValueError("start_lr 0 cannot grow exponentially; use start_lr 1e-4, or ramp linear")
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
    init_only: bool = Field(False, description="Train nothing: signal propagation at initialisation alone.")
    peak_lr: float = Field(1e-3, gt=0, description="Fixed recipe: learning rate, constant after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Fixed recipe: steps of linear warm-up.")
    train_steps: int = Field(200, ge=20, description="Fixed recipe: steps of training.")
    target_loss: float | None = Field(
        None, gt=0, description="Loss that steps_to_target counts to (off: a tenth below the constant predictor's)."
    )
    bisect: bool = Field(
        False, description="Fixed recipe: also search between the last depth that trains and the first that does not."
    )
    probe_steps: tuple[int, ...] = Field(
        (), description="Fixed recipe: steps before which signal propagation is measured again, e.g. 50,200."
    )
    jacobian_input: Literal["data", "noise"] = Field(
        "data", description="Stream at which the Jacobian is taken: data, or noise, N(0, 1), as in ReZero's figure."
    )

    @field_validator("depths", mode="before")
    @classmethod
    def _parse_depths(cls, value: Any) -> Any:
        return parse_depths(value) if isinstance(value, str) else value

    @field_validator("depths")
    @classmethod
    def _depths_increase(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if min(depths) < 1 or any(a >= b for a, b in pairwise(depths)):
            raise ValueError("depths are positive whole numbers and increase, e.g. 4,12,64 or 10:10000:x10")
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
            raise ValueError(f"warmup_steps {self.warmup_steps} leave nothing of train_steps {self.train_steps}")
        wrong = [step for step in self.probe_steps if not 0 < step <= self.train_steps]
        if wrong:
            raise ValueError(f"probe_steps {wrong[0]} does not lie within train_steps 1 to {self.train_steps}")
        if (self.probe_steps or self.bisect) and (self.init_only or "outcome" not in self.measure):
            asked = "probe_steps" if self.probe_steps else "bisect"
            raise ValueError(f"{asked} belongs to the fixed recipe; ask for it with --measure outcome")
        return self


class LrGridSpec(TrainingSpec, OneDepthSpec):
    """Optimizers, and a grid of peak learning rates at each of which a schedule is trained."""

    optimizer: tuple[str, ...] = Field(("adam",), min_length=1, description="Optimizers, NAME[:key=value,...].")
    start_lr: float = Field(1e-3, gt=0, description="Smallest peak learning rate.")
    end_lr: float = Field(8e-3, gt=0, description="Largest peak learning rate.")
    num_lrs: int = Field(4, ge=1, le=100, description="Peak learning rates, by equal factors.")
    decay: str = Field(
        "constant", description="After the warm-up: constant, inverse-sqrt, linear, cosine, polynomial[:key=value,...]."
    )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """All optimizers."""
        return self.optimizer

    def with_names(self, variants: tuple[str, ...], optimizers: tuple[str, ...]) -> Self:
        """The same of these variants and optimizers."""
        return self.model_copy(update={"variant": variants, "optimizer": optimizers})

    @field_validator("optimizer", "warmup", mode="before", check_fields=False)
    @classmethod
    def _parse_choices(cls, value: Any) -> Any:
        return split_choices(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _lrs_are_a_range(self) -> Self:
        if self.start_lr > self.end_lr or (self.start_lr == self.end_lr) != (self.num_lrs == 1):
            raise ValueError(
                f"start_lr {self.start_lr:g} to end_lr {self.end_lr:g} is no range of {self.num_lrs} learning rates; "
                "it must rise, or be one value with num_lrs 1"
            )
        return self


class RaceSpec(LrGridSpec):
    """Everything that decides the result of `stresstest race`."""

    variant: tuple[str, ...] = Field(
        ("post-ln", "pre-ln", "normformer", "rezero"),
        min_length=1,
        description="Norm variants, NAME[:key=value,...]; 'all' for every one. The first is the reference.",
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    train_steps: int = Field(400, ge=20, description="Steps of training, the warm-up among them.")
    target_loss: float | None = Field(
        None, gt=0, description="Training loss that is raced for (off: what the reference has at its end)."
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps >= self.train_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} leave nothing of train_steps {self.train_steps}")
        return self


FEWEST_STEPS = 10  # of the largest batch


class BatchSweepSpec(LrGridSpec):
    """Everything that decides the result of `stresstest batch-sweep`."""

    variant: tuple[str, ...] = Field(
        ("pre-ln",), min_length=1, description=str(TrainingSpec.model_fields["variant"].description)
    )
    optimizer: tuple[str, ...] = Field(("adamw", "lamb"), min_length=1, description="Optimizers, NAME[:key=value,...].")
    batch_sizes: tuple[int, ...] = Field(
        (32, 128, 512, 2048), min_length=1, description="Sequences or images a step, e.g. 32,128,512,2048."
    )
    tokens: int = Field(
        500_000, ge=1, description="Budget of each run in tokens, e.g. 500k or 2M (an image counts as one)."
    )
    start_lr: float = Field(2e-3, gt=0, description="Smallest peak learning rate, of the first batch size.")
    end_lr: float = Field(0.064, gt=0, description="Largest peak learning rate, of the first batch size.")
    num_lrs: int = Field(6, ge=1, le=100, description=str(LrGridSpec.model_fields["num_lrs"].description))
    seq_len: int = Field(16, ge=1, description=str(TrainingSpec.model_fields["seq_len"].description))
    depth: int = Field(2, ge=1, description=str(OneDepthSpec.model_fields["depth"].description))
    lr_scaling: Literal["sqrt", "linear", "none"] = Field(
        "sqrt",
        description="How the grid, which is that of the first batch size, grows with the batch: sqrt, linear, none.",
    )
    warmup_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of warm-up in the steps of the largest batch; the others have as many steps (linear-epoch "
        "warm-up).",
    )
    decay: str = Field("linear", description=str(LrGridSpec.model_fields["decay"].description))

    @field_validator("batch_sizes", mode="before")
    @classmethod
    def _parse_sizes(cls, value: Any) -> Any:
        try:
            return tuple(int(part) for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("give whole numbers, e.g. 32,128,512,2048") from None

    @field_validator("tokens", mode="before")
    @classmethod
    def _parse_tokens(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        unit = {"k": 10**3, "M": 10**6, "G": 10**9}.get(value[-1:], 1)
        try:
            return int(float(value if unit == 1 else value[:-1]) * unit)
        except (ValueError, OverflowError):
            raise ValueError("is no number of tokens; give e.g. 500k or 2M") from None

    @property
    def tokens_an_example(self) -> int:
        """What an example counts."""
        return 1 if self.task == "images" else self.seq_len

    def steps(self, batch_size: int) -> int:
        """Steps of the budget at a batch size."""
        return self.tokens // (batch_size * self.tokens_an_example)

    @property
    def warmup_steps(self) -> int:
        """Of every batch size."""
        return round(self.warmup_share * self.steps(max(self.batch_sizes)))

    def scale(self, batch_size: int) -> float:
        """How much larger a batch's learning rates are than those of the first batch size."""
        power = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}[self.lr_scaling]
        return float((batch_size / self.batch_sizes[0]) ** power)

    @model_validator(mode="after")
    def _sizes_fit_the_budget(self) -> Self:
        if min(self.batch_sizes) < 1 or any(a >= b for a, b in pairwise(self.batch_sizes)):
            raise ValueError("batch_sizes are positive whole numbers and increase, e.g. 32,128,512,2048")
        default = type(self).model_fields["batch_size"].default
        if self.batch_size not in (default, kind_of(self.model).defaults.get("batch_size"), self.batch_sizes[-1]):
            raise ValueError("batch_size is what is swept; give batch_sizes")
        if self.steps(self.batch_sizes[-1]) < FEWEST_STEPS:
            raise ValueError(
                f"tokens {self.tokens} are {self.steps(self.batch_sizes[-1])} steps of batch size "
                f"{self.batch_sizes[-1]}; give at least {FEWEST_STEPS * self.batch_sizes[-1] * self.tokens_an_example}"
            )
        return self


class WarmupSpec(LrGridSpec):
    """Everything that decides the result of `stresstest warmup`."""

    variant: tuple[str, ...] = Field(
        ("post-ln", "pre-ln"), min_length=1, description=str(TrainingSpec.model_fields["variant"].description)
    )
    optimizer: tuple[str, ...] = Field(
        ("adam",), min_length=1, description="Optimizers, NAME[:key=value,...]; several are searched over."
    )
    warmup: tuple[str, ...] = Field(
        ("linear",),
        min_length=1,
        description="Shapes of the warm-up: linear, exponential, cosine, inverse-sqrt; several are searched over.",
    )
    warmup_steps: tuple[int, ...] = Field(
        (0, 12, 25, 50, 100),
        min_length=1,
        description="Steps of warm-up of the map, e.g. 0,12,25,50,100; the search goes from the first to the last.",
    )
    start_lr: float = Field(5e-4, gt=0, description="Smallest peak learning rate.")
    end_lr: float = Field(0.064, gt=0, description="Largest peak learning rate.")
    num_lrs: int = Field(8, ge=1, le=100, description="Peak learning rates of the map, by equal factors.")
    train_steps: int = Field(200, ge=20, description="Steps of training, the warm-up among them.")
    map: bool = Field(True, description="Train every warm-up of the map at every peak LR.")
    trials: int = Field(
        10, ge=0, description="Trials of the search for the best setting, in all, of each variant; 0 for none."
    )
    trials_at_once: int = Field(5, ge=1, description="Trials that are asked for and trained together.")
    sampler: Literal["auto", "tpe", "gp", "random"] = Field(
        "auto", description="Optuna's sampler: tpe, gp, random, or auto: gp where scipy is installed, else tpe."
    )
    search_seed: int = Field(0, ge=0, lt=1 << 32, description="Seed of the sampler.")

    @field_validator("warmup_steps", mode="before")
    @classmethod
    def _parse_steps(cls, value: Any) -> Any:
        try:
            return tuple(int(part) for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("give whole numbers, e.g. 0,12,25,50,100") from None

    @field_validator("warmup_steps")
    @classmethod
    def _steps_increase(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if min(steps) < 0 or any(a >= b for a, b in pairwise(steps)):
            raise ValueError("steps of warm-up are not negative and increase, e.g. 0,12,25,50,100")
        if 1 in steps:
            raise ValueError("1 step of warm-up is none: the first step has the peak LR; write 0")
        return steps

    @model_validator(mode="after")
    def _ranges_are_some(self) -> Self:
        if self.warmup_steps[-1] >= self.train_steps:
            raise ValueError(
                f"a warm-up of {self.warmup_steps[-1]} steps leaves nothing of train_steps {self.train_steps}; "
                "use a shorter one, or more steps"
            )
        if not self.map and not self.trials:
            raise ValueError("neither a map nor trials are asked for; use --map, or --trials 20")
        if self.trials and (self.start_lr == self.end_lr or len(self.warmup_steps) == 1):
            raise ValueError("a search needs a range of warm-ups and of learning rates; use trials 0 for the map alone")
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
