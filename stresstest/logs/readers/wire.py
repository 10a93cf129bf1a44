"""Protocol buffers without their library: the fields of a message, as spans of its bytes.

Event files and W&B's runs are messages of a few known fields; see the encoding guide of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(buffer: bytes, start: int) -> tuple[int, int]:
    """The unsigned number at `start`, and where it ends; `ValueError` where the bytes end before it."""
    value = shift = 0
    for position in range(start, min(start + 10, len(buffer))):
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise ValueError(f"no whole number at byte {start}")


def fields(buffer: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Each field of the message in a span: its number, wire type, and the start and stop of its content.

    Raises:
        ValueError: The bytes are not a message.
    """
    end = len(buffer) if stop is None else stop
    while start < end:
        key, start = varint(buffer, start)
        kind = key & 7
        if kind == VARINT:
            after = varint(buffer, start)[1]
        elif kind == FIXED64:
            after = start + 8
        elif kind == FIXED32:
            after = start + 4
        elif kind == BYTES:
            length, start = varint(buffer, start)
            after = start + length
        else:
            raise ValueError(f"no wire type {kind} at byte {start}")
        if after > end:
            raise ValueError(f"a field at byte {start} goes on after the message's end")
        yield key >> 3, kind, start, after
        start = after
