"""A whole result: the cells, the rows over seeds, what they say."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from stresstest.errors import ConfigError
from stresstest.results.bracket import Bracket, Record, finite
from stresstest.results.cell import Cell, Status
from stresstest.results.outcome import HARMLESS, TRAINED
from stresstest.results.statistics import MetricSummary, count, interval_rank, ratios, summarise
from stresstest.results.typed import (
    AS_WRITTEN,
    DataRecord,
    EnvironmentRecord,
    PointRecord,
    RulesRecord,
    TrialRecord,
)

__all__ = [
    "HARMLESS",
    "RESULT_SCHEMA",
    "TRAINED",
    "Bracket",
    "Cell",
    "Finding",
    "MapPlace",
    "MetricSummary",
    "Record",
    "Result",
    "SearchRow",
    "Status",
    "SummaryRow",
    "TrendRow",
    "count",
    "finite",
    "interval_rank",
    "ratios",
    "read_result",
    "summarise",
]

RESULT_SCHEMA = "stresstest.result/1"


class SummaryRow(Record):
    """One variant at one depth: its metrics, and what became of its replicas."""

    variant: str = Field(description="Norm variant, NAME[:key=value,...].")
    depth: int = Field(description="Number of blocks.")
    optimizer: str = Field(description="Optimizer, NAME[:key=value,...].")
    metrics: dict[str, MetricSummary] = Field(description="Over seeds, by name.")
    outcomes: dict[str, int] = Field(
        description="Replicas by outcome: of the fixed recipe where that was asked for, or else of the ramp."
    )
    times_weakest: MetricSummary | None = Field(
        None, description="max_stable_lr over that of the row with the smallest, seed by seed, in times."
    )
    point: Annotated[PointRecord, AS_WRITTEN] = Field(
        PointRecord(), description="What the experiment varies beside variant, depth and optimizer."
    )
    curve: list[tuple[float, float]] = Field(
        [], description="[learning rate, median loss over seeds in nats] of the ramp."
    )


class MapPlace(Record):
    """One warm-up at one peak LR: by seed, what became of the run and its loss at the end."""

    warmup_steps: int = Field(description="Steps of warm-up.")
    peak_lr: float = Field(description="Learning rate after the warm-up.")
    outcomes: dict[str, str] = Field(description="What became of the run, by seed.")
    losses: dict[str, float] = Field(
        description="Held-out loss by seed, at most that at initialisation (also where the run broke), in nats."
    )

    @property
    def loss(self) -> float:
        """The median over seeds."""
        return statistics.median(self.losses.values())

    @property
    def num_trained(self) -> int:
        """How many seeds trained."""
        return sum(outcome in TRAINED for outcome in self.outcomes.values())


class TrendRow(Record):
    """One variant over all that an experiment varies: the depths of a sweep, the warm-ups and LRs of a map."""

    variant: str = Field(description="Norm variant, NAME[:key=value,...].")
    optimizer: str = Field(description="Optimizer, NAME[:key=value,...].")
    metrics: dict[str, MetricSummary] = Field(description="Over seeds, by name.")
    point: Annotated[PointRecord, AS_WRITTEN] = Field(PointRecord(), description="What else the row stands for.")
    map: list[MapPlace] = Field([], description="Every warm-up at every peak LR.")
    min_warmup: dict[str, MetricSummary] = Field(
        {}, description="By peak LR, the fewest steps of warm-up that train, in steps."
    )


class SearchRow(Record):
    """A variant's best setting, out of how many."""

    variant: str = Field(description="Norm variant, NAME[:key=value,...].")
    best: Annotated[PointRecord, AS_WRITTEN] = Field(description="The setting with the lowest loss that trains.")
    loss: MetricSummary = Field(description="Its validation loss over seeds, in nats.")
    settings: int = Field(description="Settings that were tried with every seed, those of the map among them.")
    trials: int = Field(description="Of these, the trials of the search.")
    trained: int = Field(description="Settings that train with every seed.")
    importance: dict[str, float] = Field(
        {}, description="By parameter, its share of the loss's variance over the trials (fANOVA), 0 to 1."
    )
    places: list[Annotated[TrialRecord, AS_WRITTEN]] = Field(
        [], description="The trials of the search in the order of their learning rates."
    )


class Finding(Record):
    """A sentence about the result, with its remedy."""

    kind: str = Field(description="What it is about: stable, for machines.")
    subject: str = Field(description="Which variant, optimizer or row it is about; several are joined by commas.")
    text: str = Field(description="The sentence.")


class Result(Record):
    """A whole result, as `result.json` holds it."""

    schema_: str = Field(description="Name and version of this format.")
    command: str = Field(description="The experiment.")
    reproduce: str = Field(description="The command line that gives this result again.")
    spec: dict[str, Any] = Field(description="Every setting with its value.")
    rules: Annotated[RulesRecord, AS_WRITTEN] = Field(description="The constants by which outcomes are judged.")
    environment: Annotated[EnvironmentRecord, AS_WRITTEN] = Field(description="Versions and hardware.")
    data: Annotated[DataRecord, AS_WRITTEN] = Field(description="What was trained on.")
    cells: list[Cell] = Field(description="Every cell, in the order of the plan.")
    summary: list[SummaryRow] = Field(description="Over seeds: a row a variant and what else is compared.")
    trends: list[TrendRow] = Field([], description="Over all that the experiment varies: a row a variant.")
    searches: list[SearchRow] = Field([], description="The best settings that a search found: a row a variant.")
    findings: list[Finding] = Field(description="What the rows say, the most important first.")
    verdicts: list[str] = Field([], max_length=0, description="Empty: a gate writes its verdicts to verdict.json.")

    def to_json(self) -> str:
        """The text of `result.json`."""
        return self.model_dump_json(indent=1).replace('"schema_"', '"schema"', 1) + "\n"


def read_result(path: Path) -> Result:
    """Read a `result.json`; what is truncated, foreign or of another schema is a `ConfigError`."""
    import json

    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no result at {path}; give a run directory or a result.json") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable result ({error}); the file was not changed") from None
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema != RESULT_SCHEMA:
        raise ConfigError(
            f"{path} has schema {schema!r}, this version reads {RESULT_SCHEMA!r}; the file was not changed"
        )
    try:
        return Result.model_validate({"schema_": stored.pop("schema"), **stored})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} does not fit its schema at {where}: {first['msg']}; the file was not changed"
        ) from None
