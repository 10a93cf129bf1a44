"""Settings of `stresstest warmup`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stresstest.specs.base import TrainingSpec
from stresstest.specs.lr_grid import LrGridSpec
from stresstest.specs.parsing import MOST_STEPS


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
    train_steps: int = Field(200, ge=20, le=MOST_STEPS, description="Steps of training, including the warm-up.")
    map: bool = Field(True, description="Train every warm-up of the map at every peak LR.")
    trials: int = Field(
        10, ge=0, le=10_000, description="Trials of the search for each variant's best setting; 0 for no search."
    )
    trials_at_once: int = Field(5, ge=1, le=10_000, description="Trials that are proposed and trained together.")
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
