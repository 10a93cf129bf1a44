"""Settings of the experiments that look for a boundary by ramp and hold: lr-range, depth-sweep."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model
from stresstest.specs.parsing import MOST_STEPS


class BoundarySpec(TrainingSpec):
    """How a boundary is looked for: by which ramp and hold."""

    optimizer: str = Field("adam", description="Optimizer, NAME[:key=value,...].")
    ramp: Literal["exponential", "linear"] = Field(
        "exponential", description="How the learning rate rises: exponential, or linear (NormFormer's Fig. 5)."
    )
    start_lr: float = Field(1e-4, ge=0, description="Learning rate at the first step of the ramp.")
    end_lr: float = Field(10.0, gt=0, description="Learning rate at the last step of the ramp.")
    num_steps: int = Field(200, ge=20, le=MOST_STEPS, description="Steps of the ramp.")
    hold_steps: int = Field(150, ge=20, le=MOST_STEPS, description="Steps of each constant-LR run of the hold.")
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
    parallel: Literal["off", "fsdp"] = Field(
        "off",
        description="One replica of your own model over all processes that torchrun started: off, or fsdp "
        "(torch's fully_shard).",
    )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The one optimizer."""
        return (self.optimizer,)

    def with_names(self, variants: tuple[str, ...], optimizers: tuple[str, ...]) -> Self:
        """The same of these variants and this one optimizer."""
        return self.model_copy(update={"variant": variants, "optimizer": optimizers[0]})

    @model_validator(mode="after")
    def _only_the_users_model_is_sharded(self) -> Self:
        if self.parallel == "off":
            return self
        if not is_user_model(self.model):
            raise ValueError(f"parallel works only with your own model, FILE.py:FACTORY; {self.model} is built in")
        for name in ("theory", "probes"):
            if name in self.model_fields_set and getattr(self, name) not in (False, "off"):
                raise ValueError(
                    f"parallel {self.parallel} has no {name}, which needs all weights on one device; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _ramp_rises(self) -> Self:
        if self.start_lr >= self.end_lr:
            raise ValueError(f"start_lr {self.start_lr:g} is not below end_lr {self.end_lr:g}; the ramp must rise")
        if self.ramp == "exponential" and self.start_lr == 0:
            raise ValueError("an exponential ramp cannot start at 0; use start_lr 1e-4, or ramp linear")
        return self
