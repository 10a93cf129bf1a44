"""The dictionaries that a shock stores: what it cost at each dose, and what it moved first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from stresstest.results.outcome import Outcome

_STRICT = with_config(extra="forbid")


@_STRICT
class DoseRecord(TypedDict):
    """What a shock cost at one dose; null where the run broke before it could be told."""

    dose: Annotated[float, Field(description="How much of it, in the unit of the shock's dose.")]
    outcome: Annotated[Literal["recovered", "scarred", "broke"], Field(description="What became of the run.")]
    peak_excess: Annotated[float | None, Field(description="Largest loss above the twin's, in nats.")]
    recovery_steps: Annotated[
        float | None,
        Field(description="Steps after the shock until the difference counts no more; null: beyond the end."),
    ]
    lasting_damage: Annotated[float | None, Field(description="Mean difference of the last 30 steps, in nats.")]
    lasting_share: Annotated[float | None, Field(description="The same as a share of what the twin has learned.")]
    lasting_steps: Annotated[float | None, Field(description="Steps of the twin by which the run lags behind.")]


@_STRICT
class FirstMoveRecord(TypedDict):
    """What left its twin's first, by a factor of two."""

    signal: Annotated[Literal["weight", "gradient", "update"], Field(description="Whose root mean square.")]
    place: Annotated[str, Field(description="Of which matrix.")]
    step: Annotated[int, Field(description="Step from the shock on.")]
    factor: Annotated[float, Field(description="Times the twin's.")]


@_STRICT
class ShockRecord(TypedDict, total=False):
    """A shock of one run, beside the undisturbed twin."""

    outcome: Annotated[
        Literal["recovered", "scarred", "broke", "untrained"],
        Field(description="At the standard dose; untrained: the undisturbed run did not train, or breaks by chance."),
    ]
    twin_outcome: Annotated[Outcome, Field(description="What became of the undisturbed run.")]
    peak_lr: Annotated[float, Field(description="Its peak learning rate.")]
    learned: Annotated[
        float | None, Field(description="What it learned, beyond the constant predictor or its own start, in nats.")
    ]
    noise: Annotated[
        float | None, Field(description="Root mean square of the null twins' lasting differences from it, in nats.")
    ]
    floor: Annotated[float | None, Field(description="Lasting damage from which a run is scarred, in nats.")]
    nulls: Annotated[int, Field(description="Null twins.")]
    dose: Annotated[float, Field(description="The standard dose, at which metrics are taken.")]
    monotone: Annotated[bool, Field(description="Whether no larger dose did less harm.")]
    moved: Annotated[FirstMoveRecord, Field(description="What it moved first; absent where nothing left the twin's.")]
    doses: Annotated[list[DoseRecord], Field(description="Every dose that was tried, ascending.")]
    curve: Annotated[
        list[tuple[int, float]],
        Field(
            description="[step, loss in nats] at the standard dose, from the shock on, thinned to at most 80 points; "
            "the largest of each stretch."
        ),
    ]
    twin_curve: Annotated[
        list[tuple[int, float]], Field(description="The same of the undisturbed run, from its first step.")
    ]
    steps: Annotated[int, Field(description="Steps that were taken, with the cell's share of the twins'.")]
