"""One TensorBoard event: where its step, its time and its scalars lie among its bytes.

The messages are `Event`, `SessionLog`, `Summary`, `SummaryMetadata` and `TensorProto` of TensorFlow. Scalars are a
`simple_value` (torch, tensorboardX, TensorFlow 1) or a tensor of one element (Keras, TensorFlow 2). Text, pictures,
histograms and graphs have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stresstest.logs.readers.wire import BYTES, FIXED32, FIXED64, VARINT, fields, varint

Kind = Literal["<f4", "<f8", "<f2", "bfloat16", "half bits", "int"]

_FLOAT, _DOUBLE, _INT32, _INT64, _BFLOAT16, _HALF = 1, 2, 3, 9, 14, 19
_CONTENT: dict[int, Kind] = {_FLOAT: "<f4", _DOUBLE: "<f8", _HALF: "<f2", _BFLOAT16: "bfloat16"}
_LISTED: dict[int, Kind] = {5: "<f4", 6: "<f8", 7: "int", 10: "int", 13: "half bits"}  # by the field's number
_START = 1  # SessionLog.status
NO_SPAN = (0, 0)


@dataclass(frozen=True)
class Scalar:
    """A tag, and the span of its value."""

    tag: str
    kind: Kind
    span: tuple[int, int]


@dataclass(frozen=True)
class Event:
    """Spans of the step and the time (0, 0 where left out, which means 0), and the scalars.

    restart: the writer says that what was logged from this step on holds no longer.
    """

    step: tuple[int, int]
    time: tuple[int, int]
    scalars: tuple[Scalar, ...]
    restart: bool = False


def read_event(record: bytes) -> Event:
    """Where the parts of an event lie; `ValueError` if it is none."""
    step = time = NO_SPAN
    scalars: list[Scalar] = []
    restart = False
    for number, kind, start, stop in fields(record):
        if (number, kind) == (1, FIXED64):
            time = (start, stop)
        elif (number, kind) == (2, VARINT):
            step = (start, stop)
        elif (number, kind) == (5, BYTES):
            scalars += _scalars(record, start, stop)
        elif (number, kind) == (7, BYTES):
            restart = any(
                field == 1 and varint(record, at)[0] == _START for field, _, at, _ in fields(record, start, stop)
            )
    return Event(step, time, tuple(scalars), restart)


def _scalars(record: bytes, start: int, stop: int) -> Iterator[Scalar]:
    for number, kind, at, end in fields(record, start, stop):
        if (number, kind) == (1, BYTES) and (scalar := _scalar(record, at, end)) is not None:
            yield scalar


def _scalar(record: bytes, start: int, stop: int) -> Scalar | None:
    tag, plugin = "", "scalars"
    value: tuple[Kind, tuple[int, int]] | None = None
    for number, kind, at, end in fields(record, start, stop):
        if (number, kind) == (1, BYTES):
            tag = record[at:end].decode("utf-8", "replace")
        elif (number, kind) == (2, FIXED32):
            value = ("<f4", (at, end))
        elif (number, kind) == (8, BYTES):
            value = _element(record, at, end)
        elif (number, kind) == (9, BYTES):
            plugin = _plugin(record, at, end) or plugin
    return Scalar(tag, *value) if value is not None and plugin == "scalars" else None


def _plugin(record: bytes, start: int, stop: int) -> str:
    for number, kind, at, end in fields(record, start, stop):
        if (number, kind) == (1, BYTES):
            for inner, inner_kind, first, last in fields(record, at, end):
                if (inner, inner_kind) == (1, BYTES):
                    return record[first:last].decode("utf-8", "replace")
    return ""


def _element(record: bytes, start: int, stop: int) -> tuple[Kind, tuple[int, int]] | None:
    """The one element of a tensor; None of one with more, or of text."""
    dtype = 0
    found: tuple[Kind, tuple[int, int]] | None = None
    for number, kind, at, end in fields(record, start, stop):
        if (number, kind) == (1, VARINT):
            dtype = varint(record, at)[0]
        elif (number, kind) == (2, BYTES) and not _has_one_element(record, at, end):
            return None
        elif (number, kind) == (4, BYTES) and dtype in _CONTENT:
            found = (_CONTENT[dtype], (at, end))
        elif number in _LISTED and dtype in (_FLOAT, _DOUBLE, _INT32, _INT64, _HALF):
            found = (_LISTED[number], (at, end))
    width = {"<f4": 4, "<f8": 8, "<f2": 2, "bfloat16": 2}
    if found is None or found[1][1] - found[1][0] != width.get(found[0], found[1][1] - found[1][0]):
        return None
    return found


def _has_one_element(record: bytes, start: int, stop: int) -> bool:
    for number, kind, at, end in fields(record, start, stop):
        if (number, kind) == (2, BYTES):
            size = next((varint(record, first)[0] for field, _, first, _ in fields(record, at, end) if field == 1), 0)
            if size != 1:
                return False
    return True
