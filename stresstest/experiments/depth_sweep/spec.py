"""Settings of `stresstest depth-sweep`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.parsing import MANY_DEPTHS, MOST_STEPS, parse_depths

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
    train_steps: int = Field(200, ge=20, le=MOST_STEPS, description="Fixed recipe: steps of training.")
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
