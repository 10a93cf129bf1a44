"""Trackio's table of rows, each a JSON object (seen with 0.43)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from stresstest.logs.columns import Collector
from stresstest.logs.curve import FormatFacts, RawLog

COLUMNS = frozenset({"id", "run_name", "step", "metrics"})
_STEP = "step"


def runs_in(database: sqlite3.Connection, has_ids: bool) -> Iterator[RawLog]:
    """The runs, in the order in which they began. Rows are ordered by their id: many share one time."""
    run = "run_id" if has_ids else "run_name"
    runs = database.execute(f"SELECT {run}, run_name FROM metrics GROUP BY {run} ORDER BY min(id)").fetchall()
    for key, name in runs:
        rows, bad = Collector(_STEP), 0
        for step, metrics in database.execute(
            f"SELECT step, metrics FROM metrics WHERE {run} IS ? ORDER BY id", (key,)
        ):
            try:
                row = json.loads(metrics)
            except (TypeError, ValueError):
                bad += 1
                continue
            if isinstance(row, dict):
                rows.add({**row, _STEP: step})
        notes = (*rows.notes, *([f"{bad} rows that are not JSON were left out"] if bad else []))
        facts = FormatFacts(roles={"step": _STEP})
        yield RawLog("Trackio", rows.curves(), facts, name=str(name or key or ""), notes=notes)
