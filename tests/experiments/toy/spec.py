"""Settings of `stresstest lr-points`: a few learning rates, each held for a few steps."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from stresstest.specs.base import OneDepthSpec, TrainingSpec


class LrPointsSpec(TrainingSpec, OneDepthSpec):
    """Everything that decides the result of `stresstest lr-points`."""

    optimizer: str = Field("adam", description="Optimizer, NAME[:key=value,...].")
    lrs: tuple[float, ...] = Field((0.001, 0.01), min_length=1, description="Learning rates, e.g. 0.001,0.01.")
    train_steps: int = Field(20, ge=10, description="Steps of training.")

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The one optimizer."""
        return (self.optimizer,)

    def with_names(self, variants: tuple[str, ...], optimizers: tuple[str, ...]) -> LrPointsSpec:
        """The same of these variants and this one optimizer."""
        return self.model_copy(update={"variant": variants, "optimizer": optimizers[0]})

    @field_validator("lrs", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return tuple(map(float, value.split(","))) if isinstance(value, str) else value
