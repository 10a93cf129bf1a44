"""Tables that trackers export: several runs side by side, or below one another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stresstest.logs.curve import Curve, FormatFacts, RawLog
from stresstest.logs.readers.assembly import Columns, counted_by
from stresstest.logs.readers.table_rows import TableRows
from stresstest.logs.roles import step_key

_CHART_STEPS = re.compile(
    r"step|.*global_step|epoch|.*/epoch|relative time.*|wall time|_step|_runtime|.*iteration", re.I
)
_RUN_AND_METRIC = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<edge>__MIN|__MAX)?")
_RUN_COLUMNS = ("run_name", "run_id", "run_uuid", "run id", "run", "run_hash")
_KEY_COLUMNS = ("key", "metric", "metric_name", "metric_key", "tag", "name", "variable")


def is_runs_table(header: Sequence[str]) -> bool:
    """W&B's table of runs: a row for each run."""
    return "Name" in header and "State" in header and ("Created" in header or "Runtime" in header)


def is_chart(header: Sequence[str]) -> bool:
    """W&B's export of a chart: the axis, then "run - metric" with its __MIN and __MAX."""
    rest = [name for name in header[1:] if name]
    return bool(_CHART_STEPS.fullmatch(header[0])) and bool(rest) and all(" - " in name for name in rest)


def chart_runs(table: TableRows) -> Iterator[RawLog]:
    """The runs of a chart; the least and the greatest of what a point stands for are left out."""
    axis = table.dialect.header[0]
    columns = Columns(table.dialect.header)
    for block in table.blocks():
        columns.add(block)
    runs: dict[str, dict[str, Curve]] = {}
    for name, curve in counted_by(columns.curves(), axis).items():
        found = _RUN_AND_METRIC.fullmatch(name)
        if found and not found["edge"] and found["metric"] not in (axis, "_step"):
            runs.setdefault(found["run"], {})[found["metric"]] = curve
    facts = FormatFacts(row_note="a point that the chart sampled")
    for run, own in runs.items():
        yield RawLog("W&B chart", own, facts, run if len(runs) > 1 else "", table.damage.notes())


def run_column(header: Sequence[str]) -> str | None:
    """The column that names the run of a row."""
    return next((name for name in header if name.strip().lower() in _RUN_COLUMNS), None)


def is_long(header: Sequence[str]) -> bool:
    """One number a row: the name of a metric, its step and its value."""
    return _long_columns(header) is not None


def long_runs(table: TableRows, kind: str) -> Iterator[RawLog]:
    """The runs of a table with one number a row; a metric's values keep their order."""
    header = table.dialect.header
    found = _long_columns(header)
    assert found is not None
    key_column, value_column = found
    owner_column, step = run_column(header), step_key(header)
    runs: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for block in table.blocks():
        keys = block[key_column]
        owners = block[owner_column] if owner_column else ("",) * len(keys)
        steps = block[step] if step else ("",) * len(keys)
        for owner, key, at, value in zip(owners, keys, steps, block[value_column], strict=True):
            runs.setdefault(owner.strip(), {}).setdefault(key.strip(), []).append((at, value))
    for owner, metrics in runs.items():
        yield RawLog(kind, _curves(metrics), FormatFacts(), owner if len(runs) > 1 else "", table.damage.notes())


def _long_columns(header: Sequence[str]) -> tuple[str, str] | None:
    by_lower = {name.lower(): name for name in header}
    key = next((by_lower[name] for name in _KEY_COLUMNS if name in by_lower), None)
    return (key, by_lower["value"]) if key is not None and "value" in by_lower else None


def _curves(metrics: dict[str, list[tuple[str, str]]]) -> dict[str, Curve]:
    curves = {}
    for key, pairs in metrics.items():
        columns = Columns(("step", "value"))
        columns.add({"step": [at for at, _ in pairs], "value": [value for _, value in pairs]})
        if (curve := columns.curves().get("value")) is not None:
            curves[key] = curve
    return curves
