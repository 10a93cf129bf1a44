"""Settings of the experiments that train schedules over a grid of peak learning rates: warmup, race, batch-sweep."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from stresstest.specs.base import OneDepthSpec, TrainingSpec
from stresstest.specs.parsing import split_choices


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
