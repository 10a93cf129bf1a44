"""Tidy tables as data frames of pandas and polars, where these are installed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean
from stresstest.results.columns import COLUMNS, Kind
from stresstest.results.tables import TABLES, Table, curves_table

if TYPE_CHECKING:
    import pandas
    import polars

    from stresstest.results.records import Result

# By kind of column: pandas' type without missing values, and with.
_PANDAS: dict[Kind, tuple[str, str]] = {
    "text": ("object", "object"),
    "integer": ("int64", "Int64"),
    "number": ("float64", "float64"),
    "boolean": ("bool", "boolean"),
}


def chosen_table(result: Result, name: str) -> Table:
    """A table by its name, or the curves; what is not there is a `ConfigError`."""
    if name == "curves":
        assert result.curves, "none at all is an error"
        return curves_table(result, result.run_dir)
    if name not in TABLES:
        raise ConfigError(f"unknown table '{name}'{did_you_mean(str(name), [*TABLES, 'curves'])}")
    with result.being_read():
        return TABLES[name](result)


def pandas_frame(table: Table) -> pandas.DataFrame:
    """A table as a frame; a column has one type, also where nothing is in it."""
    pd = _installed("pandas")
    made: pandas.DataFrame = pd.DataFrame(
        {name: pd.Series(values, dtype=_pandas_type(name, values)) for name, values in table.items()}
    )
    return made


def polars_frame(table: Table) -> polars.DataFrame:
    """The same as a frame of polars."""
    pl = _installed("polars")
    kinds = {"text": pl.String, "integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean}
    known = {name: kinds[COLUMNS[name].kind] for name in table if name in COLUMNS}
    made: polars.DataFrame = pl.DataFrame(table, schema_overrides=known, strict=False, infer_schema_length=None)
    return made


def _pandas_type(name: str, values: list[Any]) -> str | None:
    return _PANDAS[COLUMNS[name].kind][None in values] if name in COLUMNS else None


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"a frame of {name} needs it; install it: pip install {name}") from None
