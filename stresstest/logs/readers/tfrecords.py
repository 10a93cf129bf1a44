"""TFRecord files: a length, its checksum, the bytes, their checksum; read in pieces, whole records at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.readers.crc32c import masked_crc32c

LARGEST = 1 << 16  # bytes of a record that is looked into; larger ones are pictures and graphs
_PIECE = 1 << 20
_HEAD = struct.Struct("<Q")


@dataclass(frozen=True)
class Batch:
    """Sound records of one piece of a file.

    buffer: bytes of the piece. starts, lengths: [n] of each record's content in it. first: number of its first record
    in the file. damage: what is wrong with what follows the last record; nothing is read after it.
    """

    buffer: NDArray[np.uint8]
    starts: NDArray[np.intp]
    lengths: NDArray[np.intp]
    first: int
    damage: str = ""


def batches(path: Path) -> Iterator[Batch]:
    """The records of a file, without those above 64 KiB."""
    with path.open("rb") as stream:
        rest, offset, number = b"", 0, 0
        while True:
            piece = rest + stream.read(_PIECE)
            starts, lengths, end = _frames(piece)
            batch = _checked(piece, starts, lengths, number, offset)
            number += len(batch.starts)
            if batch.damage or not piece[end:]:
                yield batch
                if batch.damage or len(piece) < _PIECE:
                    return
                rest, offset = b"", offset + end
                continue
            offset, rest, damage, skipped = _over_the_edge(stream, piece[end:], offset + end, number)
            number += skipped
            yield Batch(batch.buffer, batch.starts, batch.lengths, batch.first, damage)
            if damage:
                return


def _frames(piece: bytes) -> tuple[list[int], list[int], int]:
    starts, lengths, end = [], [], 0
    size, unpack = len(piece), _HEAD.unpack_from
    while end + 16 <= size:
        (length,) = unpack(piece, end)
        after = end + 16 + length
        if after > size:
            break
        starts.append(end + 12)
        lengths.append(length)
        end = after
    return starts, lengths, end


def _checked(piece: bytes, starts: list[int], lengths: list[int], first: int, offset: int) -> Batch:
    buffer = np.frombuffer(piece, np.uint8)
    at, sizes = np.array(starts, dtype=np.intp), np.array(lengths, dtype=np.intp)
    bad = (masked_crc32c(buffer, at - 12, np.full_like(at, 8)) != _stored(buffer, at - 4)) | (
        masked_crc32c(buffer, at, np.where(sizes <= LARGEST, sizes, 0)) != _stored(buffer, at + sizes)
    ) & (sizes <= LARGEST)
    if not bad.any():
        return Batch(buffer, at, sizes, first)
    broken = int(np.argmax(bad))
    damage = f"the checksum of record {first + broken + 1}, at byte {offset + starts[broken] - 12}, is wrong"
    return Batch(buffer, at[:broken], sizes[:broken], first, damage)


def _stored(buffer: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.uint32]:
    quads = buffer[at[:, None] + np.arange(4)]
    return np.ascontiguousarray(quads).view("<u4")[:, 0]


def _over_the_edge(stream: BinaryIO, rest: bytes, offset: int, number: int) -> tuple[int, bytes, str, int]:
    """What to do with a record that goes on after the piece: the new offset and rest, the damage, records skipped."""
    cut = f"record {number + 1}, at byte {offset}, is cut short"
    more = stream.read(16 - len(rest)) if len(rest) < 16 else b""
    rest += more
    if len(rest) < 12:
        return offset, b"", cut, 0
    head = np.frombuffer(rest[:12], np.uint8)
    if masked_crc32c(head, np.array([0]), np.array([8]))[0] != _stored(head, np.array([8]))[0]:
        return offset, b"", f"the checksum of record {number + 1}, at byte {offset}, is wrong", 0
    (length,) = _HEAD.unpack_from(rest)
    missing = 16 + length - len(rest)
    if length <= LARGEST:
        more = stream.read(max(0, missing))
        return (offset, rest + more, "", 0) if len(more) == max(0, missing) else (offset, b"", cut, 0)
    here = stream.tell()
    size = stream.seek(0, 2)
    if here + missing > size:
        return offset, b"", cut, 0
    stream.seek(here + missing)
    return offset + 16 + length, b"", "", 1
