"""Logs of any length in each family of formats, of one run: a loss that falls, with noise, its LR and gradient norm."""

from __future__ import annotations

import json
import random
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from stresstest.logs.curve import Floats
from stresstest.logs.readers.crc32c import masked_crc32c

_CHUNK = 100_000  # rows that are made at once
_NAMES = ("loss", "lr", "grad_norm")
_TIME = 1.7e9  # seconds since 1970

Row = tuple[int, float, float, float]


def rows_of(num_rows: int, every: int = 1, seed: int = 0) -> Iterator[Row]:
    """(step, loss, lr, grad_norm) of each row, one every so many steps."""
    rng = np.random.default_rng(seed)
    for first in range(0, num_rows, _CHUNK):
        rows = np.arange(first + 1, min(num_rows, first + _CHUNK) + 1)
        loss, lr, grad_norm = _numbers(rows / num_rows, rng)
        yield from zip((rows * every).tolist(), loss.tolist(), lr.tolist(), grad_norm.tolist(), strict=True)


def _numbers(done: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Loss, LR and gradient norm at these shares of the run, with the digits that people print."""
    loss = 2 + 8.4 * np.exp(-20 * done) + 0.05 * rng.standard_normal(len(done))
    lr = 3e-4 * np.minimum(1, done / 0.01) * 0.5 * (1 + np.cos(np.pi * done))
    grad_norm = np.exp(0.2 * rng.standard_normal(len(done)) - done)
    return loss.round(4), np.array([float(f"{each:.4g}") for each in lr]), grad_norm.round(4)


def csv_table(path: Path, num_rows: int) -> None:
    """step,loss,lr,grad_norm."""
    with path.open("w") as stream:
        stream.write("step,loss,lr,grad_norm\n")
        stream.writelines(f"{step},{loss},{lr},{norm}\n" for step, loss, lr, norm in rows_of(num_rows))


def json_lines(path: Path, num_rows: int) -> None:
    """An object a line."""
    with path.open("w") as stream:
        stream.writelines(
            f'{{"step": {step}, "loss": {loss}, "lr": {lr}, "grad_norm": {norm}}}\n'
            for step, loss, lr, norm in rows_of(num_rows)
        )


def printed_text(path: Path, num_rows: int) -> None:
    """What a training loop prints."""
    with path.open("w") as stream:
        stream.writelines(
            f"step {step} | loss {loss:.4f} | lr {lr:.4g} | grad_norm {norm:.4f}\n"
            for step, loss, lr, norm in rows_of(num_rows)
        )


def trainer_state(path: Path, num_rows: int) -> None:
    """transformers' Trainer, as its `save_to_json` writes it, a row for every 10 steps."""
    rows = (
        {"epoch": step / 1e6, "grad_norm": norm, "learning_rate": lr, "loss": loss, "step": step}
        for step, loss, lr, norm in rows_of(num_rows, every=10)
    )
    with path.open("w") as stream:
        head = {"best_metric": None, "epoch": 1.0, "global_step": 10 * num_rows, "is_world_process_zero": True}
        stream.write(json.dumps(head, indent=2)[:-2] + ',\n  "log_history": [\n    ')
        stream.writelines(_joined_objects(rows))
        stream.write(f'\n  ],\n  "logging_steps": 10,\n  "max_steps": {10 * num_rows}\n}}\n')


def _joined_objects(rows: Iterator[dict[str, float]]) -> Iterator[str]:
    for first, row in enumerate(rows):
        yield (",\n    " if first else "") + json.dumps(row, indent=2).replace("\n", "\n    ")


def event_file(path: Path, num_rows: int) -> None:
    """TensorBoard's: an event for each number."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as stream:
        stream.write(_records([b"\x09" + struct.pack("<d", _TIME) + b"\x1a\x0dbrain.Event:2"]))
        rows = rows_of(num_rows)
        while many := list(islice(rows, _CHUNK // 4)):
            stream.write(_records([_event(row, i) for row in many for i in range(3)]))


def _event(row: Row, which: int) -> bytes:
    value = _bytes(1, _NAMES[which].encode()) + b"\x15" + struct.pack("<f", row[1 + which])
    time = b"\x09" + struct.pack("<d", _TIME + row[0] / 10)
    return time + b"\x10" + _varint(row[0]) + _bytes(5, _bytes(1, value))


def _records(contents: list[bytes]) -> bytes:
    """Each with its length before it, and the checksums of both."""
    framed = b"".join(struct.pack("<Q4x", len(each)) + each + b"\0" * 4 for each in contents)
    lengths = np.array([len(each) for each in contents])
    starts = np.concatenate(([0], np.cumsum(lengths + 16)[:-1]))
    buffer = np.frombuffer(framed, np.uint8).copy()
    for begin, size, at in (
        (starts, np.full_like(lengths, 8), starts + 8),
        (starts + 12, lengths, starts + 12 + lengths),
    ):
        sums = masked_crc32c(buffer, begin, size).astype("<u4").view(np.uint8).reshape(-1, 4)
        buffer[at[:, None] + np.arange(4)] = sums
    return buffer.tobytes()


def wandb_file(path: Path, num_rows: int) -> None:
    """W&B's own file: a record for each `wandb.log`."""
    with path.open("wb") as stream:
        stream.write(b":W&B\xe1\xbe\x00")
        place = 7
        order = random.Random(0)
        for num, row in enumerate(rows_of(num_rows), 1):
            record = b"\x08" + _varint(num) + _bytes(2, _history(row, order))
            for piece in _pieces(record, place):
                stream.write(piece)
                place += len(piece)


def _history(row: Row, order: random.Random) -> bytes:
    """Its items stand in any order, as W&B 0.31 writes them."""
    items = [*zip(("_step", *_NAMES), row, strict=True), ("_timestamp", _TIME + row[0] / 10)]
    order.shuffle(items)
    written = b"".join(_bytes(1, _bytes(2, key.encode()) + _bytes(16, repr(value).encode())) for key, value in items)
    return written + _bytes(2, b"\x08" + _varint(row[0]))


def _pieces(record: bytes, place: int) -> Iterator[bytes]:
    """A LevelDB log's: whole, or first, middle and last, none of them over the edge of a block of 32 KiB."""
    first = True
    while True:
        left = 32768 - place % 32768
        if left < 7:
            yield b"\0" * left
            place += left
            continue
        piece, record = record[: left - 7], record[left - 7 :]
        kind = (1 if first else 4) if not record else (2 if first else 3)
        yield struct.pack("<IHB", zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
        place += 7 + len(piece)
        first = False
        if not record:
            return


def mlflow_database(path: Path, num_rows: int) -> None:
    """MLflow's SQLite store: a row for each number, with its keys as MLflow has them."""
    metrics = (
        "CREATE TABLE metrics (key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL, "
        "run_uuid VARCHAR(32) NOT NULL, step BIGINT DEFAULT '0' NOT NULL, is_nan BOOLEAN DEFAULT '0' NOT NULL, "
        "CONSTRAINT metric_pk PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan))"
    )
    runs = "CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), start_time BIGINT, "
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(runs + "lifecycle_stage VARCHAR(20))")
        database.execute(metrics)
        database.execute("INSERT INTO runs VALUES (?, 'run', 0, 'active')", ("0" * 32,))
        for i, key in enumerate(_NAMES):  # key by key: an index that is filled in its own order is filled fast
            values = (
                (key, row[1 + i], 1000 * int(_TIME) + 100 * row[0], "0" * 32, row[0]) for row in rows_of(num_rows)
            )
            database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, 0)", values)


def trackio_database(path: Path, num_rows: int) -> None:
    """Trackio's: a row for each `trackio.log`, as JSON."""
    with closing(sqlite3.connect(path)) as database, database:
        columns = "id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, timestamp TEXT, run_name TEXT, step INTEGER"
        database.execute(f"CREATE TABLE metrics ({columns}, metrics TEXT)")
        values = (
            (f"2026-01-01T00:00:{step % 60:02d}", step, json.dumps(dict(zip(_NAMES, rest, strict=True))))
            for step, *rest in rows_of(num_rows)
        )
        insert = "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('0', ?, 'run', ?, ?)"
        database.executemany(insert, values)


FAMILIES: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "CSV": ("log.csv", csv_table),
    "JSON lines": ("log.jsonl", json_lines),
    "printed text": ("train.log", printed_text),
    "trainer_state.json": ("trainer_state.json", trainer_state),
    "TensorBoard events": ("events/events.out.tfevents.1700000000.host.1.0", event_file),
    "W&B .wandb": ("run-1.wandb", wandb_file),
    "MLflow SQLite": ("mlflow.db", mlflow_database),
    "Trackio SQLite": ("trackio.db", trackio_database),
}


def _bytes(number: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
