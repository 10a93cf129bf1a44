"""W&B's `run-ID.wandb`, as it lies on the disk of whoever trained, without the server (seen with 0.31).

The file is a LevelDB log: after seven bytes of its own, blocks of 32 KiB with pieces of records. A record is a message
`Record` of W&B, of which the run's name and the rows of its history are read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stresstest.errors import ConfigError
from stresstest.logs.columns import Collector
from stresstest.logs.curve import Floats, FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.wandb_history import columns_of
from stresstest.logs.readers.wire import BYTES, fields, varint
from stresstest.logs.values import Bools, numbers

_MAGIC = b":W&B"
_BLOCK = 1 << 15
_PIECE = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _RUN = 2, 17  # fields of Record
_HISTORY_KEY = bytes([_HISTORY << 3 | BYTES])
_ROWS = 1 << 13  # that are taken apart at once
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
        histories: list[bytes] = []
        for record in records:
            history = _history_alone(record)
            if history is not None:
                histories.append(history)
            else:
                for number, kind, start, stop in fields(record):
                    if (number, kind) == (_HISTORY, BYTES):
                        histories.append(record[start:stop])
                    elif (number, kind) == (_RUN, BYTES):
                        run = _run(record, start, stop)
            if len(histories) == _ROWS:
                _add(histories, rows)
                histories = []
        _add(histories, rows)
        notes = (*records.notes, *rows.notes)
        facts = FormatFacts(roles={"step": "_step"})
        yield RawLog(self.name, rows.curves(), facts, name=run.name or run.run_id, notes=notes)


def _add(histories: Sequence[bytes], rows: Collector) -> None:
    values: dict[str, Floats] = {}
    present: dict[str, Bools] = {}
    for key, tokens in (columns_of(histories) if histories else {}).items():
        values[key], there = numbers(tokens)
        if there is not None:
            present[key] = there
    rows.add_columns(values, present)


def _history_alone(record: bytes) -> bytes | None:
    """The history of a record of nothing but its number and a history of less than 16 KiB; None of another one."""
    at = 0
    if record[:1] == b"\x08":
        at = 2
        while record[at - 1] > 127:
            at += 1
    if record[at : at + 1] != _HISTORY_KEY or at + 3 > len(record):
        return None
    length, start = record[at + 1], at + 2
    if length > 127:
        length, start = (length & 127) | record[start] << 7, at + 3
    return record[start:] if start + length == len(record) else None


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
