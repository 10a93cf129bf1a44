"""Tables as Parquet, by pyarrow: columns keep their types, also where a column is empty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stresstest.reports.output import Tables
from stresstest.results.columns import COLUMNS


def write(tables: Tables, folder: Path) -> None:
    """Write `NAME.parquet` for each table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, columns in tables.items():
        arrays = {column: _array(column, values) for column, values in columns.items()}
        pq.write_table(pa.table(arrays), folder / f"{name}.parquet")


def _array(name: str, values: Sequence[Any]) -> Any:
    """A column of the type that it always has; one that an experiment added, of the type of its values, or text."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    for kind in (kinds[COLUMNS[name].kind] if name in COLUMNS else None, None):
        try:
            found = pa.array(values, kind)
            return found.cast(pa.string()) if pa.types.is_null(found.type) else found
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            continue
    return pa.array([None if value is None else str(value) for value in values], pa.string())
