"""Settings of `stresstest race`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stresstest.specs.lr_grid import LrGridSpec
from stresstest.specs.parsing import MOST_STEPS


class RaceSpec(LrGridSpec):
    """Everything that decides the result of `stresstest race`."""

    variant: tuple[str, ...] = Field(
        ("post-ln", "pre-ln", "normformer", "rezero"),
        min_length=1,
        description="Norm variants, NAME[:key=value,...]; 'all' for every one. The first is the reference.",
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    train_steps: int = Field(400, ge=20, le=MOST_STEPS, description="Steps of training, including the warm-up.")
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
