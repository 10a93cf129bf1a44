"""Rows of a W&B history, many records at once: a call for each field costs more than its number."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain

from stresstest.logs.readers.assembly import Block
from stresstest.logs.readers.json_rows import block_of
from stresstest.logs.readers.wire import BYTES, VARINT, fields, varint

# An item: its length, its key and its value as JSON, in which no byte is below 32; after the last one the step, whose
# message is empty where it is 0. Keys of a row stand in no fixed order (W&B 0.31).
_ITEM = re.compile(
    rb"\n.[\n\x12].([^\x00-\x1f]*?)\x82\x01.([^\x00-\x1f]*)"
    rb"(\x12(?:\x00|[\x02-\x0b]\x08[\x80-\xff]*[\x00-\x7f]))?",
    re.DOTALL,
)
_AROUND = 7  # bytes of an item that are neither key, value nor step

Found = Sequence[tuple[bytes, bytes, bytes]]


def columns_of(histories: Sequence[bytes]) -> Block:
    """The columns of rows, each a message `HistoryRecord`; None where a row lacks one."""
    joined = b"".join(histories)
    found = _ITEM.findall(joined)
    size = sum(map(len, chain.from_iterable(found))) + _AROUND * len(found)
    ends = sum(1 for _, _, step in found if step)
    if size != len(joined) or ends != len(histories):
        return block_of([row_of(history) for history in histories])
    return {key.decode("utf-8", "replace"): _numbers(tokens) for key, tokens in _columns(found, ends).items()}


def _columns(found: Found, num_rows: int) -> Mapping[bytes, Sequence[bytes | None]]:
    """The tokens of each key, a row for each step."""
    tokens: dict[bytes, list[bytes | None]] = defaultdict(list)
    for key, token, _ in found:
        tokens[key].append(token)
    if b"_step" in tokens and all(len(column) == num_rows for column in tokens.values()):
        return tokens
    rows: list[dict[bytes, bytes]] = []
    row: dict[bytes, bytes] = {}
    for key, token, step in found:
        row[key] = token
        if step:
            row.setdefault(b"_step", b"%d" % (varint(step, 3)[0] if len(step) > 2 else 0))
            rows.append(row)
            row = {}
    return {key: [row.get(key) for row in rows] for key in (*tokens, b"_step")}


def _numbers(tokens: Sequence[bytes | None]) -> Sequence[object]:
    try:
        return list(map(float, tokens))  # type: ignore[arg-type]  # None raises, as a word does
    except (ValueError, TypeError):
        return [None if token is None else _value(token) for token in tokens]


def row_of(record: bytes) -> dict[str, object]:
    """One row, whatever the order of its fields."""
    row: dict[str, object] = {}
    for number, kind, at, end in fields(record):
        if (number, kind) == (1, BYTES):
            key, value = _item(record, at, end)
            row[key] = value
        elif (number, kind) == (2, BYTES) and "_step" not in row:
            row["_step"] = next(
                (
                    varint(record, first)[0]
                    for field, sort, first, _ in fields(record, at, end)
                    if (field, sort) == (1, VARINT)
                ),
                0,
            )
    return row


def _item(record: bytes, start: int, stop: int) -> tuple[str, object]:
    key: list[str] = []
    value: object = None
    for number, kind, at, end in fields(record, start, stop):
        if number in (1, 2) and kind == BYTES and end > at:
            key.append(record[at:end].decode("utf-8", "replace"))
        elif (number, kind) == (16, BYTES):
            value = _value(record[at:end])
    return ".".join(key), value


def _value(text: bytes) -> object:
    """A number, or a word that may stand for one; None of what is longer, as histograms are."""
    try:
        return float(text)
    except ValueError:
        return json.loads(text) if text[:1] == b'"' and len(text) < 40 else None
