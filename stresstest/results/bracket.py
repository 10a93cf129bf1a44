"""A value as it was measured: exact, or known to lie between two others."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass


class Record(BaseModel):
    """Base of everything stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


# no Record, which takes five times the memory: of very many cells each has some nine
@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid", ser_json_inf_nan="null"))
class Bracket:
    """Where a value lies: between `low` and `high`; `None` is an open side; equal sides are exact."""

    low: float | None = Field(description="The value is at least this, in the metric's unit; null: unknown.")
    high: float | None = Field(description="The value is at most this, in the metric's unit; null: unknown.")

    @classmethod
    def exactly(cls, value: float) -> Bracket:
        """A value that was measured."""
        return cls(low=value, high=value)

    def model_dump(self) -> dict[str, float | None]:
        """Both sides by name, as a `Record` gives them."""
        return {"low": self.low, "high": self.high}


def finite(value: float) -> float | None:
    """The value, or `None` where it is not finite: JSON has no such numbers."""
    return float(value) if math.isfinite(value) else None


def clipped(loss: float, initial_loss: float) -> float:
    """min(loss, loss at initialisation): what is not finite counts as having learned nothing."""
    return min(loss, initial_loss) if math.isfinite(loss) else initial_loss
