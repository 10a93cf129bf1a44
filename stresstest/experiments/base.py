"""What an experiment is: the parts from which its command, function, schema, selectors, estimate and reports come.

An experiment is one folder: `spec.py` (its settings), `measure.py` (what is trained), `findings.py`, `document.py`, and
`experiment.py`, an `Experiment` that brings them together. It is known once it stands in `EXPERIMENTS`, in `table.py`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stresstest.errors import ConfigError
from stresstest.registry import Registry
from stresstest.reports.numbers import NO_DATA
from stresstest.results.metrics import METRICS

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document
    from stresstest.results.records import Cell, Result
    from stresstest.results.summary import Reduced
    from stresstest.runs.settings import RunSettings
    from stresstest.specs.base import TrainingSpec

S = TypeVar("S", bound="TrainingSpec")

Row = Mapping[str, Any]  # variant, depth, optimizer and what else is varied; no depth: over all of them
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Resolution:
    """How finely a metric is measured: in octaves where its scale is log2, else in its unit; 0 of a measured number.

    `over_all`: it stands in a row over all depths, warm-ups or batch sizes, and not in one of each.
    """

    step: float = 0.0
    over_all: bool = False


@dataclass(frozen=True)
class Cost:
    """What one variant at one depth takes: runs of all seeds, their steps together, and the largest batch."""

    runs: int
    steps: int
    batch_size: int


@dataclass(frozen=True)
class Part(Generic[S]):
    """What one variant is trained at: a depth with the settings there, in words, and what it takes."""

    words: str
    spec: S
    depth: int
    cost: Cost


class Experiment(Generic[S]):
    """One question, from its settings to its report. Every part in `PARTS` has to be given; the others have a default.

    Importing the module of an experiment must not import torch: `plan` does that when it is called. The methods below
    that raise are placeholders, which `Experiments.register` refuses: an abstract class would complain when it is made,
    and not when it is registered.
    """

    name: str
    spec: type[S]
    summary: str
    details: str
    varies: tuple[str, ...]
    gated: tuple[str, ...]
    source: str = ""  # the paper that it comes from
    shares_search: bool = False

    def plan(self, spec: S) -> Plan:
        """Resolve and check everything, with the cells to train and how; `ConfigError` before any training."""
        raise NotImplementedError  # each experiment has its own, as `PARTS` asks

    def metrics(self, spec: S) -> dict[str, Resolution]:
        """The metrics of its rows, and how finely each is measured."""
        raise NotImplementedError  # each experiment has its own, as `PARTS` asks

    def rows(self, spec: S) -> list[Row]:
        """Every row that its result will have."""
        raise NotImplementedError  # each experiment has its own, as `PARTS` asks

    def cost(self, spec: S) -> Cost:
        """What one variant at one depth takes."""
        raise NotImplementedError  # each experiment has its own, as `PARTS` asks

    def parts(self, spec: S) -> list[Part[S]]:
        """What an estimate adds up, of one variant; by default each depth."""
        return [Part(f"depth {depth}", spec, depth, self.cost(spec)) for depth in depths_of(spec)]

    def steps(self, spec: S, point: Mapping[str, Any]) -> float:
        """What one cell takes, at its point; by default the same everywhere."""
        cost = self.cost(spec)
        return cost.steps / max(1, cost.runs)

    def spread(self, spec: S) -> float:
        """By how much of them the steps of a cell differ from that, as a standard deviation."""
        return 0.1

    def reduce(self, spec: S, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """What the cells come to: rows, and the findings about them."""
        raise NotImplementedError  # each experiment has its own, as `PARTS` asks

    def document(self, result: Result) -> Document:
        """The report of a result, for every format."""
        raise NotImplementedError  # each experiment has its own, as `PARTS` asks

    def asks_for_more(self, spec: S) -> str:
        """The setting that asks for cells as others end, which a shard cannot know; empty without one."""
        return ""

    def check_storage(self, plan: Plan, settings: RunSettings) -> None:
        """Whether a storage can be shared, before any training; of an experiment that `shares_search`."""


PARTS: Mapping[str, str] = {
    "name": "the command, in lower case: 'my-sweep'",
    "spec": "its settings, a subclass of TrainingSpec",
    "summary": "the question in one sentence, for help and list",
    "details": "what it does with no options, and its cost",
    "varies": "a tuple: what its rows differ in beside variant, depth and optimizer: selectors, and names of cells",
    "gated": "a tuple: the metrics that stresstest check gates where a scenario names none",
    "plan": "plan(spec) -> Plan: the cells, and how they are trained",
    "metrics": "metrics(spec) -> {metric: Resolution}",
    "rows": "rows(spec) -> list of rows",
    "cost": "cost(spec) -> Cost, for the estimate",
    "reduce": "reduce(spec, cells, data) -> Reduced: rows and findings",
    "document": "document(result) -> Document, for every format",
}


@dataclass(frozen=True)
class Listed:
    """An experiment of the table: where it is, MODULE:CLASS, and what is said of it where all are listed."""

    name: str
    where: str
    summary: str
    source: str


class Experiments(Registry[Experiment[Any]]):
    """The experiments by command, each imported once it is asked for; a part that is missing is a `ConfigError`."""

    def __init__(self, listed: Iterable[Listed] = ()) -> None:
        super().__init__("experiment", ())
        self._listed = {entry.name: entry for entry in listed}

    def __getitem__(self, name: str) -> Experiment[Any]:
        if name in self._listed and name not in self._entries:
            self._entries[name] = _imported(self._listed[name])
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self._listed or super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._listed, *self._entries]))

    def __len__(self) -> int:
        return len(self._listed.keys() | self._entries.keys())

    @property
    def entries(self) -> Registry[Listed | Experiment[Any]]:
        """Name, summary and source of each, for which none is imported."""
        registered = [entry for name, entry in self._entries.items() if name not in self._listed]
        return Registry("experiment", [*self._listed.values(), *registered])

    def register(self, experiment: Experiment[Any]) -> None:
        """Make it known everywhere; checks that every part is there and fits the others."""
        _check(experiment)
        if experiment.name in self:
            raise ConfigError(f"experiment '{experiment.name}' is registered already; give another name")
        self._entries[experiment.name] = experiment

    def unregister(self, name: str) -> None:
        """Forget one."""
        del self._entries[name]

    def of(self, spec: TrainingSpec) -> Experiment[Any]:
        """The experiment whose settings these are."""
        return next(experiment for experiment in self.values() if experiment.spec is type(spec))

    @property
    def specs(self) -> dict[str, type[TrainingSpec]]:
        """The settings of each, by its command."""
        return {name: experiment.spec for name, experiment in self.items()}

    @property
    def selectors(self) -> tuple[str, ...]:
        """What a threshold's selector may name."""
        varied = (key for experiment in self.values() for key in experiment.varies)
        return tuple(dict.fromkeys(("variant", "depth", "optimizer", *varied)))


def _imported(listed: Listed) -> Experiment[Any]:
    module, _, kind = listed.where.partition(":")
    experiment: Experiment[Any] = getattr(importlib.import_module(module), kind)()
    _check(experiment)
    for fact in ("name", "summary", "source"):
        if getattr(experiment, fact) != getattr(listed, fact):
            raise ConfigError(f"{listed.where}: {fact} is another than in EXPERIMENTS; give the same")
    return experiment


def _check(experiment: Experiment[Any]) -> None:
    """Whether every part is there and fits the others; otherwise a `ConfigError`."""
    from stresstest.specs.base import TrainingSpec

    who = f"experiment '{getattr(experiment, 'name', '') or type(experiment).__name__}'"
    for part, what in PARTS.items():
        if getattr(experiment, part, None) in (None, "") or not _given(experiment, part):
            raise ConfigError(f"{who} has no {part}; give {what}")
        if not _fits(getattr(experiment, part), part):
            raise ConfigError(f"{who}: {part} is {getattr(experiment, part)!r}; give {what}")
    if not _NAME.fullmatch(experiment.name):
        raise ConfigError(f"{who}: name '{experiment.name}' is not lower case words joined by '-'")
    if not (isinstance(experiment.spec, type) and issubclass(experiment.spec, TrainingSpec)):
        raise ConfigError(f"{who}: spec is {experiment.spec!r}; give {PARTS['spec']}")
    if bare := [name for name, field in experiment.spec.model_fields.items() if not field.description]:
        raise ConfigError(f"{who}: spec's setting '{bare[0]}' has no description; it is the help of its option")
    spec = experiment.spec()
    if unknown := [name for name in experiment.metrics(spec) if name not in METRICS]:
        raise ConfigError(f"{who}: metrics has '{unknown[0]}', which is not in METRICS; add it there")
    varied = {key for row in experiment.rows(spec) for key in row} - {"variant", "depth", "optimizer"}
    if varied - set(experiment.varies):
        raise ConfigError(f"{who}: rows differ in '{min(varied - set(experiment.varies))}'; add it to varies")


def depths_of(spec: TrainingSpec) -> tuple[int, ...]:
    """The depths that an experiment trains: those that it sweeps, or its one."""
    found: tuple[int, ...] = getattr(spec, "depths", ()) or (getattr(spec, "depth", 1),)
    return found


def _fits(value: object, part: str) -> bool:
    """Whether a part is of the type that is asked for."""
    if part in ("name", "summary", "details"):
        return isinstance(value, str)
    if part in ("varies", "gated"):
        return isinstance(value, tuple) and all(isinstance(name, str) for name in value)
    return callable(value)


def _given(experiment: Experiment[Any], part: str) -> bool:
    """Whether a part is the experiment's own, and not the placeholder of the base."""
    placeholder = getattr(Experiment, part, None)
    return placeholder is None or getattr(type(experiment), part, None) is not placeholder
