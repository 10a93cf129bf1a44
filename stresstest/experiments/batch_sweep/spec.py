"""Settings of `stresstest batch-sweep`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stresstest.specs.base import OneDepthSpec, TrainingSpec
from stresstest.specs.kinds import kind_of
from stresstest.specs.lr_grid import LrGridSpec
from stresstest.specs.parsing import MOST_STEPS

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
    def largest_batch(self) -> int:
        """Examples in a step, the most that there are."""
        return max(self.batch_sizes)

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
        if self.steps(self.batch_sizes[0]) > MOST_STEPS:
            raise ValueError(
                f"tokens {self.tokens} are {self.steps(self.batch_sizes[0])} steps of batch size "
                f"{self.batch_sizes[0]}; give at most {MOST_STEPS * self.batch_sizes[0] * self.tokens_an_example}"
            )
        return self
