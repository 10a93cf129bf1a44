"""A whole result: the cells, the rows over seeds, what they say."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from stresstest.errors import ConfigError
from stresstest.json_text import parse_json
from stresstest.results.bracket import Bracket, Record, finite
from stresstest.results.brief import Brief
from stresstest.results.cell import Cell, Status
from stresstest.results.outcome import HARMLESS, TRAINED
from stresstest.results.size_laws import SizeLawRecord
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

if TYPE_CHECKING:
    import pandas
    import polars

    from stresstest.reports.figure import Figure
    from stresstest.results.curves import Curve

Phase = Literal["ramp", "hold", "recipe", "twin", "null", "shock"]
TableName = Literal["metrics", "runs", "summary", "seeds", "curves"]
RESULT_SCHEMA = "stresstest.result/1"
_ROWS = ("cells", "summary", "trends", "searches", "findings")  # of a result: lists of records


class SummaryRow(Brief):
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


class MapPlace(Brief):
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


class TrendRow(Brief):
    """One variant over all that an experiment varies: the depths of a sweep, the warm-ups and LRs of a map."""

    variant: str = Field(description="Norm variant, NAME[:key=value,...].")
    optimizer: str = Field(description="Optimizer, NAME[:key=value,...].")
    metrics: dict[str, MetricSummary] = Field(description="Over seeds, by name.")
    point: Annotated[PointRecord, AS_WRITTEN] = Field(PointRecord(), description="What else the row stands for.")
    map: list[MapPlace] = Field([], description="Every warm-up at every peak LR.")
    min_warmup: dict[str, MetricSummary] = Field(
        {}, description="By peak LR, the fewest steps of warm-up that train, in steps."
    )
    laws: list[Annotated[SizeLawRecord, AS_WRITTEN]] = Field(
        [], description="How its metrics change with size.", exclude_if=lambda laws: not laws
    )


class SearchRow(Brief):
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
        return "".join(self.json_parts())

    def json_parts(self) -> Iterator[str]:
        """The same, a record at a time, each on a line of its own: of very many cells the whole is larger than they."""
        bare = self.model_copy(update={name: [] for name in _ROWS})
        rest = bare.model_dump_json(indent=1).replace('"schema_"', '"schema"', 1)
        for name in _ROWS:
            before, rest = rest.split(f'\n "{name}": []', 1)
            yield f'{before}\n "{name}": ['
            rows: list[Record] = getattr(self, name)
            for place, row in enumerate(rows):
                yield f"{',' if place else ''}\n  {row.model_dump_json()}"
            yield "\n ]" if rows else "]"
        yield rest + "\n"

    @property
    def kernel(self) -> str:
        """What trained it: torch, native, triton or graph; of a result that is older than the choice torch."""
        return str(self.spec.get("kernel", "torch"))

    @property
    def run_dir(self) -> Path | None:
        """The run directory that it came from, where its curves are; `None` of one that came from none."""
        found: Path | None = vars(self).get("_run_dir")  # no field: neither stored nor compared
        return found

    def of_run(self, run_dir: Path, keeps: object = None, unsealed: Path | None = None) -> Result:
        """The same from a run directory; `keeps` lives as long as it does. unsealed: a file without a checksum."""
        found = self.model_copy()
        vars(found).update(_run_dir=run_dir.absolute(), _keeps=keeps, _unsealed=unsealed)
        return found

    def being_read(self) -> AbstractContextManager[None]:
        """Within, what is missing or of another kind is a `ConfigError`, if no checksum vouches for the file."""
        from stresstest.results.sums import being_read

        return being_read(vars(self).get("_unsealed"))

    @property
    def curves(self) -> list[Curve]:
        """Every run of training of every cell, step by step, as arrays; `ConfigError` where there are none."""
        from stresstest.results.curves import curves_of

        return curves_of(self.cells, self.run_dir)

    def curve(
        self, cell: Cell | str, phase: Phase | Literal[""] = "", lr: float | None = None, dose: float | None = None
    ) -> Curve:
        """A run of one cell, or of a cell's key: of this phase, of a hold at this learning rate, of a shock of this
        dose; else its first.

        What is not there is a `ConfigError`.
        """
        from stresstest.results.curves import curve_of

        return curve_of(self.cells, cell, self.run_dir, phase, lr, dose)

    def to_pandas(self, table: TableName = "metrics") -> pandas.DataFrame:
        """A tidy table as a frame of pandas.

        metrics: a row a cell and metric; runs: a row a run of training; summary: a row a metric over seeds; seeds: the
        same seed by seed; curves: a row a step. Where pandas is not installed, or the curves are not there, it is a
        `ConfigError`.
        """
        from stresstest.results.frames import chosen_table, pandas_frame

        return pandas_frame(chosen_table(self, table))

    def to_polars(self, table: TableName = "metrics") -> polars.DataFrame:
        """The same as a frame of polars."""
        from stresstest.results.frames import chosen_table, polars_frame

        return polars_frame(chosen_table(self, table))

    @property
    def plots(self) -> dict[str, Figure]:
        """The charts of its report by name, as Vega-Lite specifications."""
        found: dict[str, Figure] = _views().figures(self)
        return found

    def plot(self, name: str = "") -> Figure:
        """A chart of its report, the first one without a name: a notebook draws it, `.save("x.svg")` writes it.

        `.to_dict()` is its Vega-Lite specification. A name that is not in `plots` is a `ConfigError`.
        """
        found: Figure = _views().figure(self, name)
        return found

    def __repr__(self) -> str:
        """What it was, and its verdicts: a few lines."""
        text: str = _views().text(self)
        return text

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Verdicts, tables and charts for a notebook: static, with styles that stay within it."""
        fragment: str = _views().fragment(self)
        return fragment


def _views() -> ModuleType:
    """What shows results; it stands above them, and is imported where one is shown."""
    return importlib.import_module("stresstest.experiments.result_views")


def read_result(path: Path) -> Result:
    """Read a `result.json`; what is truncated, damaged, foreign or of another schema is a `ConfigError`."""
    from stresstest.results.sums import AGAIN, check_file

    try:
        content = path.read_bytes()
        sealed = check_file(path, content, AGAIN)
        stored = parse_json(content)
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
        return Result.model_validate({"schema_": stored.pop("schema"), **stored}).of_run(
            path.parent, unsealed=None if sealed else path
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} does not fit its schema at {where}: {first['msg']}; the file was not changed"
        ) from None
