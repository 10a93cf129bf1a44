"""TensorBoard's event files, read by a reader of our own.

The two small packages for it do less: tbparse 0.0.9 (August 2024) needs pandas and all of tensorboard, with grpcio,
and tbreader 1.0.1 (September 2020) is not maintained. Neither stops at a bad checksum with a place, and both take a
Python object for each event. This reader needs numpy alone. Records of one shape (one tag, one length) are taken apart
together: the first one is read field by field, and the same bytes are then cut out of all that differ from it in
nothing but step, time and value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, FormatFacts, Ints, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.event import Event, Kind, Scalar, read_event
from stresstest.logs.readers.event_folders import common_folder, name_in_run
from stresstest.logs.readers.packed import PackedLog
from stresstest.logs.readers.tfrecords import LARGEST, Batch, batches

Bytes = NDArray[np.uint8]


class EventFiles:
    """One event file; `read_events` takes several of one run."""

    name = "TensorBoard events"
    reads = "TensorBoard event files, without TensorFlow"

    def fits(self, file: LogFile) -> bool:
        """The first record says `brain.Event:2`."""
        return b"brain.Event:" in file.head[:64] or ("tfevents" in file.path.name and b"\0" in file.head)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        raw = read_events([file, *file.more])
        if raw is not None:
            yield raw


def read_events(files: Sequence[LogFile]) -> RawLog | None:
    """The run that these files, in the order in which they were written, hold; None if they hold no scalar.

    Raises:
        ConfigError: A file's first record is damaged.
    """
    run = _Run(common_folder(files))
    seams: list[int] = []
    notes = [f"{len(files)} event files of one run were joined"] if len(files) > 1 else []
    for file in files:
        before, taken = run.records, run.log.taken
        damage = run.add(file)
        if damage:
            if run.records == before:
                raise ConfigError(f"{file.shown}: {damage}; nothing stands before it")
            notes.append(f"{file.path.name}: {damage}; read up to there")
        if taken and run.log.taken > taken:
            seams.append(before)
    if not run.log.curves:
        return None
    notes += run.notes()
    curves = run.log.unpacked()
    return RawLog(EventFiles.name, curves, _facts(curves), notes=tuple(notes), seams=tuple(seams))


def _facts(curves: Mapping[str, Curve]) -> FormatFacts:
    """transformers' Trainer writes its rows under names of its own: their losses are means, 0.0 where not finite."""
    if {"train/loss", "train/epoch", "train/learning_rate"} <= set(curves):
        return FormatFacts({"loss": "train/loss"}, row_kind="mean", zero_for_nan=True, one_value_a_row=True)
    return FormatFacts(one_value_a_row=True)


@dataclass
class _Run:
    folder: Path
    log: PackedLog = field(default_factory=PackedLog)
    records: int = 0
    purged: int = 0
    purges: list[int] = field(default_factory=list)
    names: dict[Path, set[str]] = field(default_factory=dict)  # of the curves, by the folder that they are from

    def add(self, file: LogFile) -> str:
        """Read a file; returns what is damaged in it."""
        first, damage = self.records, ""
        names = self.names.setdefault(file.path.parent, set())
        for batch in batches(file.path):
            pieces = _Pieces()
            for restart in pieces.take(batch):
                self.purges.append(restart)
                self.purged += self.log.keep_below(restart, names)
            for tag, (steps, values, rows) in pieces.joined():
                name = name_in_run(tag, file, self.folder)
                names.add(name)
                self.log.append(name, steps, values, rows + first)
            self.log.bound()
            self.records = first + batch.first + len(batch.starts)
            damage = batch.damage
        return damage

    def notes(self) -> list[str]:
        """What was dropped or mended."""
        if not self.purged:
            return self.log.notes()
        places = ", ".join(map(str, self.purges))
        said = f"{self.purged} values dropped: the writer began again at step {places} and took them back"
        return [said, *self.log.notes()]


Piece = tuple[Ints, NDArray[np.floating], Ints]


class _Pieces:
    """The scalars of one batch, by tag."""

    def __init__(self) -> None:
        self._found: dict[str, list[Piece]] = {}

    def take(self, batch: Batch) -> list[int]:
        """Read a batch; returns the steps at which a writer says that it began again."""
        restarts: list[int] = []
        wanted = np.flatnonzero(batch.lengths <= LARGEST)
        for length in np.unique(batch.lengths[wanted]):
            members = wanted[batch.lengths[wanted] == length]
            if length == 0:
                continue
            records = np.lib.stride_tricks.sliding_window_view(batch.buffer, int(length))[batch.starts[members]]
            restarts += self._take_group(records, members + batch.first)
        return restarts

    def _take_group(self, records: Bytes, rows: Ints) -> Iterator[int]:
        while len(records):
            record = records[0].tobytes()
            event = _event(record)
            if event.restart:
                yield int(_integers(records[:1], event.step)[0])
            mask = _mask(event, len(record))
            same = (((records ^ records[0]) & mask) == 0).all(axis=1)
            if event.scalars:
                self._cut(event, records[same], rows[same])
            records, rows = records[~same], rows[~same]

    def _cut(self, event: Event, records: Bytes, rows: Ints) -> None:
        steps = _integers(records, event.step)
        for scalar in event.scalars:
            self._found.setdefault(scalar.tag, []).append((steps, _values(records, scalar), rows))

    def joined(self) -> Iterator[tuple[str, Piece]]:
        """Each tag's scalars in the order in which they were written."""
        for tag, pieces in self._found.items():
            steps, values, rows = (np.concatenate(part) for part in zip(*pieces, strict=True))
            order = np.argsort(rows, kind="stable")
            yield tag, (steps[order], values[order], rows[order])


def _event(record: bytes) -> Event:
    try:
        return read_event(record)
    except ValueError:
        return Event((0, 0), (0, 0), ())


def _mask(event: Event, length: int) -> Bytes:
    """[length] the bits of each byte that records of one shape share."""
    mask = np.full(length, 0xFF, dtype=np.uint8)
    mask[slice(*event.time)] = 0
    mask[slice(*event.step)] = 0x80
    for scalar in event.scalars:
        mask[slice(*scalar.span)] = 0x80 if scalar.kind in ("int", "half bits") else 0
    return mask


def _integers(records: Bytes, span: tuple[int, int]) -> Ints:
    """[n] the variable-length numbers at a span."""
    numbers = np.zeros(len(records), dtype=np.uint64)
    for place, column in enumerate(range(*span)):
        numbers |= (records[:, column] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * place)
    return numbers.view(np.int64)


def _values(records: Bytes, scalar: Scalar) -> NDArray[np.floating]:
    kind: Kind = scalar.kind
    if kind == "int":
        return _integers(records, scalar.span).astype(np.float64)
    if kind == "half bits":
        return _integers(records, scalar.span).astype(np.uint16).view(np.float16).astype(np.float32)
    cut = np.ascontiguousarray(records[:, slice(*scalar.span)])
    if kind == "bfloat16":
        return (cut.view("<u2")[:, 0].astype(np.uint32) << np.uint32(16)).view(np.float32)
    values: NDArray[np.floating] = cut.view(kind)[:, 0]
    return values.astype(np.float32) if kind == "<f2" else values
