"""A finished cell as trackers take it: scalars by step, metrics at the end, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from stresstest.reports.numbers import cell_name
from stresstest.results.cell import Cell
from stresstest.results.courses import Course

_OF_ALL = frozenset({"seeds", "depths"})  # settings that are of the run and not of one cell


@dataclass(frozen=True)
class RunFacts:
    """What the cells of a run have in common: the experiment, its settings, its directory, how it comes again."""

    command: str
    spec: Mapping[str, Any]
    folder: str
    reproduce: str


@dataclass(frozen=True)
class LoggedCell:
    """One cell: by step, from 0, its scalars by name; its metrics and what became of its runs; its settings."""

    name: str
    key: str
    rows: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    outcomes: Mapping[str, str]
    config: Mapping[str, Any]


def logged_cell(cell: Cell, courses: Sequence[Course], facts: RunFacts) -> LoggedCell:
    """What is logged of a cell and its curves.

    A metric that is only known to lie between two values is the lower one, and `NAME_high` the other.
    """
    told = [_rows(course, name) for course, name in zip(courses, _names(courses), strict=True)]
    rows = [{name: value for row in step for name, value in row.items()} for step in zip_longest(*told, fillvalue={})]
    return LoggedCell(cell_name(cell), cell.key, rows, _metrics(cell), _outcomes(cell), _config(cell, facts))


def _names(courses: Sequence[Course]) -> Iterator[str]:
    """PHASE, hold_LR of a held learning rate, shock_DOSE of a shock; null_1, null_2, ... of null twins."""
    nulls = 0
    for course in courses:
        nulls += course.phase == "null"
        if course.dose is not None:
            yield _shocked(course.dose)
        elif course.lr is not None:
            yield _held(course.lr)
        else:
            yield f"null_{nulls}" if course.phase == "null" else course.phase


def _rows(course: Course, prefix: str) -> list[dict[str, float]]:
    """The scalars of a run by step from 0, NAME/loss; nothing before it begins."""
    curves = {"loss": course.loss, **{name: values for name, values in course.beside.items() if name != "judged"}}
    if course.lr is not None:
        del curves["lr"]  # in its name
    names = [f"{prefix}/{name}" for name in curves]
    steps = (dict(zip(names, step, strict=True)) for step in zip(*curves.values(), strict=True))
    return [*({} for _ in range(course.start)), *steps]


def _held(lr: float) -> str:
    return f"hold_{lr:.4g}"


def _shocked(dose: float) -> str:
    return f"shock_{dose:.4g}"


def _metrics(cell: Cell) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in cell.metrics.items():
        if value.low is not None:
            found[name] = value.low
        if value.high is not None and value.high != value.low:
            found[f"{name}_high"] = value.high
    losses = {"recipe/validation_loss": cell.recipe.get("validation_loss"), "recipe/loss": cell.recipe.get("loss")}
    return found | {name: loss for name, loss in losses.items() if loss is not None}


def _outcomes(cell: Cell) -> dict[str, str]:
    runs = {"ramp": cell.ramp, "recipe": cell.recipe, **{_held(held["lr"]): held for held in cell.hold}}
    found = {f"{name}/outcome": run["outcome"] for name, run in runs.items() if run}
    found |= {"twin/outcome": cell.shock["twin_outcome"]} if cell.shock else {}
    return found | {f"{_shocked(each['dose'])}/outcome": each["outcome"] for each in cell.shock.get("doses", [])}


def _config(cell: Cell, facts: RunFacts) -> dict[str, Any]:
    """The settings of the run with those of the cell over them, as trackers take them: no lists."""
    optimizer = facts.spec.get("optimizer", "")
    own = {"variant": cell.variant, "depth": cell.depth, "seed": cell.seed, "optimizer": optimizer, **cell.point}
    settings = {name: value for name, value in facts.spec.items() if name not in _OF_ALL} | own
    about = {"command": facts.command, "cell": cell.key, "run_dir": facts.folder, "reproduce": facts.reproduce}
    return {name: _plain(value) for name, value in (settings | about).items() if value not in (None, "", (), [])}


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
