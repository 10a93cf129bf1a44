"""W&B's `run-ID.wandb`, as it lies on the disk of whoever trained, without the server (seen with 0.31).

The file is a LevelDB log: after seven bytes of its own, blocks of 32 KiB with pieces of records. A record is a message
`Record` of W&B, of which the run's name and the rows of its history are read.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from stresstest.errors import ConfigError
from stresstest.logs.columns import Collector
from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.wire import BYTES, VARINT, fields, varint

_MAGIC = b":W&B"
_BLOCK = 1 << 15
_PIECE = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _RUN = 2, 17  # fields of Record
_LARGEST = 64 << 20  # bytes of a record


class WandbFile:
    """The history of one run, a row for each `wandb.log`."""

    name = "W&B run file"
    reads = "W&B's own .wandb file, also of an offline run"

    def fits(self, file: LogFile) -> bool:
        """It starts with `:W&B`."""
        return file.head.startswith(_MAGIC)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        records = _Records(file)
        rows = Collector("_step")
        run = Run("", "", 0)
        for record in records:
            for number, kind, start, stop in fields(record):
                if (number, kind) == (_HISTORY, BYTES):
                    rows.add(_row(record, start, stop))
                elif (number, kind) == (_RUN, BYTES):
                    run = _run(record, start, stop)
        notes = (*records.notes, *rows.notes)
        facts = FormatFacts(roles={"step": "_step"})
        yield RawLog(self.name, rows.curves(), facts, name=run.name or run.run_id, notes=notes)


@dataclass(frozen=True)
class Run:
    """Who the run is, and when it was started, in seconds."""

    run_id: str
    name: str
    started: float


def run_of(file: LogFile) -> Run:
    """The run that a file belongs to; empty where the file does not say."""
    for record in _Records(file):
        for number, kind, start, stop in fields(record):
            if (number, kind) == (_RUN, BYTES):
                return _run(record, start, stop)
    return Run("", "", 0)


class _Records:
    """The records of a file up to its end, or to what is damaged, which is noted."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[bytes]:
        record = b""
        count = 0
        for kind, piece in self._pieces():
            record = piece if kind in (_WHOLE, _FIRST) else record + piece
            if len(record) > _LARGEST:
                raise ConfigError(f"{self._file.shown}: a record is larger than {_LARGEST >> 20} MiB: not a W&B run")
            if kind in (_WHOLE, _LAST):
                count += 1
                yield record
        if not count:
            raise ConfigError(f"{self._file.shown}: a W&B file without a whole record{''.join(self.notes)}")

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        with self._file.path.open("rb") as stream:
            offset = start = 7
            stream.seek(start)
            while block := stream.read(_BLOCK - start):
                at = 0
                while len(block) - at >= _PIECE.size:
                    checksum, length, kind = _PIECE.unpack_from(block, at)
                    piece = block[at + _PIECE.size : at + _PIECE.size + length]
                    if checksum == length == kind == 0:
                        break
                    if len(piece) < length and len(block) < _BLOCK - start:
                        self._damaged("is cut short", offset + at)
                        return
                    if zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum or kind > _LAST:
                        self._damaged("has a wrong checksum", offset + at)
                        return
                    yield kind, piece
                    at += _PIECE.size + length
                if 0 < len(block) - at < _PIECE.size and len(block) < _BLOCK - start:
                    self._damaged("is cut short", offset + at)
                offset += len(block)
                start = 0

    def _damaged(self, how: str, offset: int) -> None:
        self.notes = (f"the record at byte {offset} {how}; read up to there",)


def _run(record: bytes, start: int, stop: int) -> Run:
    texts = {1: "", 8: ""}
    started = 0.0
    for number, kind, at, end in fields(record, start, stop):
        if number in texts and kind == BYTES:
            texts[number] = record[at:end].decode("utf-8", "replace")
        elif (number, kind) == (17, BYTES):
            parts = {field: varint(record, first)[0] for field, _, first, _ in fields(record, at, end)}
            started = parts.get(1, 0) + parts.get(2, 0) / 1e9
    return Run(texts[1], texts[8], started)


def _row(record: bytes, start: int, stop: int) -> dict[str, object]:
    row: dict[str, object] = {}
    for number, kind, at, end in fields(record, start, stop):
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
