"""The reference page of tables and trackers: every column of every file that an export writes."""

from __future__ import annotations

from collections.abc import Mapping

from _markdown import code, page, plain, table

from stresstest.diagnosis.tables import DIAGNOSIS_TABLES
from stresstest.gate.tables import CLAIM_COLUMNS, VERDICT_TABLES
from stresstest.loggers.table import TRACKERS
from stresstest.reports.output import FOLDERS
from stresstest.results.columns import Column
from stresstest.results.tables import RESULT_COLUMNS

_WRITERS: Mapping[str, tuple[str, Mapping[str, Mapping[str, Column]]]] = {
    "Of a result": (
        "The experiments, `report` and `merge`. Behind the columns of the cell stands a column for each setting that "
        "the experiment varies: `warmup`, `warmup_steps`, `peak_lr`, `batch_size`, and what an experiment of your own "
        "varies (as `point_NAME` where a column has that name already).",
        RESULT_COLUMNS,
    ),
    "Of a verdict": ("`check` and `compare`.", VERDICT_TABLES),
    "Of claims": ("`papers`.", {"claims": CLAIM_COLUMNS}),
    "Of logs": ("`diagnose`.", DIAGNOSIS_TABLES),
}


def tables_page() -> str:
    """Every table with its columns, and every tracker."""
    formats = ", ".join(f"`-o {name}:FOLDER`" for name, each in FOLDERS.items() if each.of == "tables")
    parts = [f"What {formats} write, a file a table; [how to read them](../guides/export.md)."]
    for title, (who, tables) in _WRITERS.items():
        parts += [f"## {title}", who]
        for name, columns in tables.items():
            rows = ([code(column), facts.kind, plain(facts.summary)] for column, facts in columns.items())
            parts += [f"### `{name}`", table(["column", "type", "meaning"], rows)]
    rows = (
        [code(name), each.place, each.default or ("given always" if each.default is None else "its own"), each.summary]
        for name, each in TRACKERS.items()
    )
    parts += ["## Trackers", "What `--log NAME[:PLACE]` takes.", table(["name", "PLACE", "without one", "what"], rows)]
    return page("Tables and trackers", "the tables of columns", *parts)
