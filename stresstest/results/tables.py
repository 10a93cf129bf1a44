"""A result as tidy tables of plain columns, {name: values}: for CSV, Parquet, pandas and polars.

Every number is the one of `result.json`, to the last digit; `None` is a value that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stresstest.results.bracket import Bracket
from stresstest.results.cell import Cell
from stresstest.results.columns import (
    CELL_COLUMNS,
    CURVE_COLUMNS,
    METRIC_COLUMNS,
    ROW_COLUMNS,
    RUN_COLUMNS,
    SEED_COLUMNS,
    SUMMARY_COLUMNS,
    Column,
)
from stresstest.results.courses import Course, read_courses
from stresstest.results.metrics import unit_of
from stresstest.results.records import MetricSummary, Result

Table = dict[str, list[Any]]  # columns of one length
_Row = dict[str, Any]

_OF_CELLS = frozenset((*CELL_COLUMNS, *METRIC_COLUMNS, *RUN_COLUMNS, *CURVE_COLUMNS))
_OF_ROWS = frozenset((*ROW_COLUMNS, *SUMMARY_COLUMNS, *SEED_COLUMNS))


def metrics_table(result: Result) -> Table:
    """A row for each cell and metric, with its bracket; a cell without a result has a row without a metric."""

    def rows() -> Iterator[_Row]:
        for cell in result.cells:
            who = _cell(result, cell) | {"status": cell.status}
            for name, value in _metrics(cell).items():
                yield who | {"metric": name, "unit": unit_of(name, result.data)} | value.model_dump()
            if cell.status != "done":
                yield who

    return table_of(rows(), (*CELL_COLUMNS, *_varied(result), *METRIC_COLUMNS))


def runs_table(result: Result) -> Table:
    """A row for each run of training in a cell: its ramp, each held LR, the one through a schedule, each shock."""

    def rows() -> Iterator[_Row]:
        for cell in result.cells:
            who = _cell(result, cell)
            for phase, records in (("ramp", [cell.ramp]), ("hold", cell.hold), ("recipe", [cell.recipe])):
                yield from (who | {"phase": phase} | record for record in records if record)
            if cell.shock:
                yield who | {"phase": "twin", "outcome": cell.shock["twin_outcome"]}
                yield from (who | {"phase": "shock"} | record for record in cell.shock["doses"])

    return table_of(rows(), (*CELL_COLUMNS, *_varied(result), *RUN_COLUMNS))


def summary_table(result: Result) -> Table:
    """A row for each metric of each row over seeds: its median, with the interval that covers it so often."""

    def rows() -> Iterator[_Row]:
        for who, value in _over_seeds(result):
            told = value.model_dump(include={"low", "high", "coverage", "n", "censored"})
            yield who | told | {"median_low": value.median.low, "median_high": value.median.high}

    return table_of(rows(), (*ROW_COLUMNS, *_varied_by_rows(result), *SUMMARY_COLUMNS))


def seeds_table(result: Result) -> Table:
    """The same seed by seed: what the medians are of, also where it is known of several cells together."""

    def rows() -> Iterator[_Row]:
        for who, value in _over_seeds(result):
            yield from (who | {"seed": int(seed)} | each.model_dump() for seed, each in value.per_seed.items())

    return table_of(rows(), (*ROW_COLUMNS, *_varied_by_rows(result), *SEED_COLUMNS))


def curves_table(result: Result, folder: Path | None = None) -> Table:
    """A row for each step of each run: of the curves in the run directory, or else of those that the result holds.

    A result holds the ramp, whose steps are not known, or a shock at its standard dose and the twin, each thinned to at
    most 80 points.
    """

    def rows() -> Iterator[_Row]:
        for cell in result.cells:
            who = _cell(result, cell)
            stored = [] if folder is None else read_courses(folder, cell)
            for number, course in enumerate(stored):
                yield from (who | {"run": number} | step for step in _steps(course))
            if not stored:
                yield from (who | step for step in _thinned(cell))

    return table_of(rows(), (*CELL_COLUMNS, *_varied(result), *CURVE_COLUMNS))


def without_curves(result: Result, folder: Path | None) -> int:
    """How many of the finished cells have no curves in this run directory."""
    there = set() if folder is None else {path.stem for path in (folder / "curves").glob("*.npz")}
    return sum(cell.status == "done" and cell.key not in there for cell in result.cells)


def table_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Rows as columns of these names; what a row does not say is `None`."""
    table: Table = {name: [] for name in columns}
    for row in rows:
        for name, values in table.items():
            values.append(row.get(name))
    return table


TABLES: Mapping[str, Callable[[Result], Table]] = {
    "metrics": metrics_table,
    "runs": runs_table,
    "summary": summary_table,
    "seeds": seeds_table,
}  # but the curves


RESULT_COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "metrics": {**CELL_COLUMNS, **METRIC_COLUMNS},
    "runs": {**CELL_COLUMNS, **RUN_COLUMNS},
    "summary": {**ROW_COLUMNS, **SUMMARY_COLUMNS},
    "seeds": {**ROW_COLUMNS, **SEED_COLUMNS},
    "curves": {**CELL_COLUMNS, **CURVE_COLUMNS},
}  # beside those of what an experiment varies


def result_tables(result: Result, folder: Path | None = None) -> dict[str, Table]:
    """Every table of a result by name; the curves are read from its run directory."""
    return {name: of(result) for name, of in TABLES.items()} | {"curves": curves_table(result, folder)}


def _metrics(cell: Cell) -> dict[str, Bracket]:
    """Those of a cell; of one that only ran through a schedule, its loss is one of them."""
    if "validation_loss" in cell.metrics or "validation_loss" not in cell.recipe:
        return cell.metrics
    loss = cell.recipe["validation_loss"]
    return {"validation_loss": Bracket(low=loss, high=loss), **cell.metrics}


def _steps(course: Course) -> Iterator[_Row]:
    lrs, judged, norms = (course.beside.get(name) for name in ("lr", "judged", "grad_norm"))
    for step, loss in enumerate(course.loss):
        yield {
            "phase": course.phase,
            "dose": course.dose,
            "step": course.start + step,
            "lr": None if lrs is None else lrs[step],
            "loss": loss,
            "judged_loss": None if judged is None else judged[step],
            "grad_norm": None if norms is None else norms[step],
        }


def _thinned(cell: Cell) -> Iterator[_Row]:
    """The points of the curves that the result itself holds."""
    for lr, loss in cell.ramp.get("curve", []):
        yield {"phase": "ramp", "run": 0, "lr": lr, "loss": loss}
    for step, loss in cell.shock.get("twin_curve", []):
        yield {"phase": "twin", "run": 0, "step": step, "loss": loss}
    for step, loss in cell.shock.get("curve", []):
        yield {"phase": "shock", "run": 1, "dose": cell.shock["dose"], "step": step, "loss": loss}


def _over_seeds(result: Result) -> Iterator[tuple[_Row, MetricSummary]]:
    """(row with the metric, value) of the summary, the trends and the best settings of searches."""
    for row in result.summary:
        who = _row(result, "summary", row.variant, row.depth, row.optimizer, row.point)
        beside = {} if row.times_weakest is None else {"times_weakest": row.times_weakest}
        yield from _named(result, who, {**row.metrics, **beside})
    for trend in result.trends:
        who = _row(result, "trends", trend.variant, None, trend.optimizer, trend.point)
        yield from _named(result, who, trend.metrics)
        for lr, least in trend.min_warmup.items():
            at = _row(result, "trends", trend.variant, None, trend.optimizer, {**trend.point, "peak_lr": float(lr)})
            yield from _named(result, at, {"min_warmup": least})
    for search in result.searches:
        optimizer = search.best.get("optimizer", _optimizer(result))
        who = _row(result, "searches", search.variant, None, optimizer, search.best)
        yield from _named(result, who, {"validation_loss": search.loss})


def _named(result: Result, who: _Row, metrics: Mapping[str, MetricSummary]) -> Iterator[tuple[_Row, MetricSummary]]:
    for name, value in metrics.items():
        yield who | {"metric": name, "unit": unit_of(name, result.data)}, value


def _row(result: Result, table: str, variant: str, depth: int | None, optimizer: str, at: Mapping[str, Any]) -> _Row:
    who = {"table": table, "variant": variant, "depth": depth, "optimizer": optimizer}
    return who | _settings(at, _OF_ROWS)


def _cell(result: Result, cell: Cell) -> _Row:
    optimizer = cell.point.get("optimizer", _optimizer(result))
    who = {"cell": cell.key, "variant": cell.variant, "depth": cell.depth, "optimizer": optimizer, "seed": cell.seed}
    return who | _settings(cell.point, _OF_CELLS)


def _optimizer(result: Result) -> str:
    given = result.spec.get("optimizer", "")
    return str(given if isinstance(given, str) else next(iter(given), ""))


def _varied(result: Result) -> tuple[str, ...]:
    """The columns of what cells differ in beside variant, depth, optimizer and seed."""
    return tuple(dict.fromkeys(name for cell in result.cells for name in _settings(cell.point, _OF_CELLS)))


def _varied_by_rows(result: Result) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for who, _ in _over_seeds(result) for name in who if name not in _OF_ROWS))


def _settings(point: Mapping[str, Any], taken: frozenset[str]) -> _Row:
    """A point by the names of columns; one that another column has gets `point_` before it."""
    named = {f"point_{name}" if name in taken else name: value for name, value in point.items() if name != "optimizer"}
    return {name: _plain(value) for name, value in named.items()}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)
