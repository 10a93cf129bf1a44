"""Settings of the experiments that train schedules over a grid of peak learning rates: warmup, race, batch-sweep."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stresstest.choices import split_choices
from stresstest.model_specs import OneDepthSpec, TrainingSpec, kind_of


class LrGridSpec(TrainingSpec, OneDepthSpec):
    """Optimizers, and a grid of peak learning rates at each of which a schedule is trained."""

    optimizer: tuple[str, ...] = Field(("adam",), min_length=1, description="Optimizers, NAME[:key=value,...].")
    start_lr: float = Field(1e-3, gt=0, description="Smallest peak learning rate.")
    end_lr: float = Field(8e-3, gt=0, description="Largest peak learning rate.")
    num_lrs: int = Field(4, ge=1, le=100, description="Number of peak learning rates, spaced by equal factors.")
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
                f"start_lr {self.start_lr:g} to end_lr {self.end_lr:g} is not a range of {self.num_lrs} "
                f"learning rates; "
                "end_lr must be larger, or equal with num_lrs 1"
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
    train_steps: int = Field(400, ge=20, description="Steps of training, including the warm-up.")
    target_loss: float | None = Field(
        None, gt=0, description="Training loss to race to (off: the reference's at its end)."
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps >= self.train_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} leave no other steps of train_steps {self.train_steps}; use fewer"
            )
        return self


FEWEST_STEPS = 10  # of the largest batch
LR_POWERS = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}  # of the batch size, by the name of the scaling


class BatchSweepSpec(LrGridSpec):
    """Everything that decides the result of `stresstest batch-sweep`."""

    variant: tuple[str, ...] = Field(
        ("pre-ln",), min_length=1, description=str(TrainingSpec.model_fields["variant"].description)
    )
    optimizer: tuple[str, ...] = Field(("adamw", "lamb"), min_length=1, description="Optimizers, NAME[:key=value,...].")
    batch_sizes: tuple[int, ...] = Field(
        (32, 128, 512, 2048), min_length=1, description="Sequences or images per step, e.g. 32,128,512,2048."
    )
    tokens: int = Field(
        500_000, ge=1, description="Budget of each run in tokens, e.g. 500k or 2M (an image counts as one)."
    )
    start_lr: float = Field(1e-3, gt=0, description="Smallest peak learning rate, at the first batch size.")
    end_lr: float = Field(0.032, gt=0, description="Largest peak learning rate, at the first batch size.")
    num_lrs: int = Field(6, ge=1, le=100, description=str(LrGridSpec.model_fields["num_lrs"].description))
    seq_len: int = Field(16, ge=1, description=str(TrainingSpec.model_fields["seq_len"].description))
    depth: int = Field(2, ge=1, description=str(OneDepthSpec.model_fields["depth"].description))
    lr_scaling: Literal["sqrt", "linear", "none"] = Field(
        "sqrt",
        description="How the peak LRs, given for the first batch size, grow with the batch size: sqrt, linear, none.",
    )
    warmup_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Warm-up as a share of the largest batch size's steps; all others warm up for as many steps "
        "(linear-epoch warm-up).",
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
            raise ValueError("not a number of tokens; give e.g. 500k or 2M") from None

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
        return float((batch_size / self.batch_sizes[0]) ** LR_POWERS[self.lr_scaling])

    @model_validator(mode="after")
    def _sizes_fit_the_budget(self) -> Self:
        if min(self.batch_sizes) < 1 or any(a >= b for a, b in pairwise(self.batch_sizes)):
            raise ValueError("batch_sizes must be positive whole numbers in increasing order, e.g. 32,128,512,2048")
        default = type(self).model_fields["batch_size"].default
        if self.batch_size not in (default, kind_of(self.model).defaults.get("batch_size"), self.batch_sizes[-1]):
            raise ValueError("a batch sweep varies batch_size; give batch_sizes")
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
        ("adam",), min_length=1, description="Optimizers, NAME[:key=value,...]; the search chooses among several."
    )
    warmup: tuple[str, ...] = Field(
        ("linear",),
        min_length=1,
        description="Shapes of the warm-up: none, linear, exponential, cosine, inverse-sqrt; the search chooses "
        "among several.",
    )
    warmup_steps: tuple[int, ...] = Field(
        (0, 12, 25, 50, 100),
        min_length=1,
        description="Warm-up steps of the map, e.g. 0,12,25,50,100; the search ranges from the first to the last.",
    )
    start_lr: float = Field(5e-4, gt=0, description="Smallest peak learning rate.")
    end_lr: float = Field(0.064, gt=0, description="Largest peak learning rate.")
    num_lrs: int = Field(
        8, ge=1, le=100, description="Number of peak learning rates of the map, spaced by equal factors."
    )
    train_steps: int = Field(200, ge=20, description="Steps of training, including the warm-up.")
    map: bool = Field(True, description="Train every warm-up of the map at every peak LR.")
    trials: int = Field(10, ge=0, description="Trials of the search for each variant's best setting; 0 for no search.")
    trials_at_once: int = Field(5, ge=1, description="Trials that are proposed and trained together.")
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
            raise ValueError("warm-up steps must be 0 or more and in increasing order, e.g. 0,12,25,50,100")
        if 1 in steps:
            raise ValueError("write 0 instead of 1: with 1 step of warm-up the first step already has the peak LR")
        return steps

    @model_validator(mode="after")
    def _ranges_are_some(self) -> Self:
        if self.warmup_steps[-1] >= self.train_steps:
            raise ValueError(
                f"a warm-up of {self.warmup_steps[-1]} steps leaves no other steps of train_steps {self.train_steps}; "
                "use a shorter one, or more steps"
            )
        if not self.map and not self.trials:
            raise ValueError("nothing to train: use --map, or --trials 20")
        if self.trials and (self.start_lr == self.end_lr or len(self.warmup_steps) == 1):
            raise ValueError(
                "a search needs a range of warm-ups and of learning rates; give more values, or use trials 0 "
                "for the map only"
            )
        return self
