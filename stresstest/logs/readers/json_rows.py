"""JSON objects as the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter

from stresstest.logs.readers.assembly import Block

_KEYS = ("key", "metric", "metric_name", "tag")
_NESTED: frozenset[type] = frozenset({dict, list})

Row = Mapping[str, object]


def block_of(rows: Sequence[Row]) -> Block:
    """Rows as columns, None where a row lacks one."""
    if len(set(map(tuple, rows))) == 1:
        return {name: list(map(itemgetter(name), rows)) for name in rows[0]}
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}


def flat(rows: Sequence[Row]) -> list[Row]:
    """Rows whose objects are opened: {"train": {"loss": 2}} is {"train/loss": 2}; a metric that is named is its key."""
    return [row if _is_flat(row) else _named(dict(_leaves(row, ""))) for row in rows]


def _is_flat(row: Row) -> bool:
    return "value" not in row and _NESTED.isdisjoint(map(type, row.values()))


def _leaves(row: Row, path: str, depth: int = 0) -> Iterator[tuple[str, object]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            if depth < 8:
                yield from _leaves(value, f"{path}{key}/", depth + 1)
        elif not isinstance(value, list):
            yield f"{path}{key}", value


def _named(row: dict[str, object]) -> Row:
    """{"key": "loss", "value": 2, "step": 1} is {"loss": 2, "step": 1} (MLflow's and Trackio's exports)."""
    if "value" not in row:
        return row
    name = next((row[key] for key in _KEYS if isinstance(row.get(key), str)), None)
    if not isinstance(name, str):
        return row
    return {name: row["value"], **{key: value for key, value in row.items() if key != "value" and key not in _KEYS}}
