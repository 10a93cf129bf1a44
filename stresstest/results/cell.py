"""A finished cell, as it is stored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stresstest.results.bracket import Bracket
from stresstest.results.brief import Brief
from stresstest.results.shocks import ShockRecord
from stresstest.results.typed import (
    AS_WRITTEN,
    CoordsRecord,
    DiagnosisRecord,
    HoldRecord,
    PointRecord,
    RampRecord,
    RecipeRecord,
    SignalRecord,
    TheoryRecord,
)

Status = Literal["done", "crashed", "oom", "timeout", "interrupted"]


class Cell(Brief):
    """One finished cell: one experiment at one point for one seed; what was not asked for is empty."""

    key: str = Field(description="Hash of all that decides the result; the cell's files are named by it.")
    variant: str = Field(description="Norm variant, NAME[:key=value,...].")
    depth: int = Field(description="Number of blocks.")
    seed: int = Field(description="Seed of the initial weights and the batches.")
    status: Status = Field(description="done, or why the result is missing, which says nothing about stability.")
    error: str = Field("", description="What went wrong, where something did: a line, or a traceback.")
    curves_sum: str = Field(
        "", description="Checksum of its curves' file (BLAKE2b, 64 bits).", exclude_if=lambda text: not text
    )
    seconds: float = Field(0.0, description="Wall time of its training, its share of that of its population, in s.")
    probe_seconds: float = Field(0.0, description="Of these, what reading it while it trained took, in s.")
    replay_seconds: float = Field(
        0.0,
        description="Of these, what reading a loader's batches once more took, as after a resume, in s.",
        exclude_if=lambda seconds: seconds == 0.0,
    )
    metrics: dict[str, Bracket] = Field({}, description="By name.")
    ramp: RampRecord = Field(RampRecord(), description="The run whose learning rate rises.")
    hold: list[HoldRecord] = Field([], description="The held LRs, the smallest first.")
    theory: TheoryRecord = Field(TheoryRecord(), description="How critical and predicted LR were found.")
    why: DiagnosisRecord = Field(DiagnosisRecord(), description="Why the run that broke did.")
    point: Annotated[PointRecord, AS_WRITTEN] = Field(
        PointRecord(), description="What the experiment varies beside variant, depth and seed."
    )
    recipe: RecipeRecord = Field(RecipeRecord(), description="The run through a schedule.")
    coords: CoordsRecord = Field(
        CoordsRecord(),
        description="How far the output of each place moved in the first steps.",
        exclude_if=lambda coords: not coords,
    )
    shock: ShockRecord = Field(
        ShockRecord(), description="A shock beside its undisturbed twin.", exclude_if=lambda shock: not shock
    )
    signal: SignalRecord = Field(SignalRecord(), description="Signal propagation at initialisation.")
    signals: dict[int, SignalRecord] = Field(
        {}, description="Signal propagation before these steps of the fixed recipe."
    )
