"""W&B's run file; the bytes are put together here, by LevelDB's log format and W&B's messages."""

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.wandb_file import WandbFile, run_of

_BLOCK = 32768


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _history(**values: str) -> bytes:
    items = b"".join(
        _field(1, b"".join(_field(2, part.encode()) for part in key.split("__")) + _field(16, value.encode()))
        for key, value in values.items()
    )
    return _varint(1 << 3) + _varint(300) + _field(2, items)


def _run(run_id: str, name: str, started: int) -> bytes:
    return _field(17, _field(1, run_id.encode()) + _field(8, name.encode()) + _field(17, b"\x08" + _varint(started)))


def _file(path: Path, records: Sequence[bytes]) -> LogFile:
    content = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first = True
        while first or record:
            room = _BLOCK - len(content) % _BLOCK
            if room < 7:
                content += bytes(room)
                continue
            piece, record = record[: room - 7], record[room - 7 :]
            kind = 1 if first and not record else 2 if first else 3 if record else 4
            content += struct.pack("<IHB", zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
            first = False
    path.write_bytes(content)
    return LogFile(path, path.name)


def _read(file: LogFile) -> RawLog:
    (raw,) = WandbFile().read(file)
    return raw


def test_each_history_record_is_a_row(tmp_path: Path):
    rows = [_history(_step=str(step), loss=str(3.0 - step), train__lr="1e-05") for step in range(3)]
    file = _file(tmp_path / "run-a.wandb", [_run("abc", "tiny", 100), *rows])
    assert WandbFile().fits(file)
    raw = _read(file)
    assert raw.name == "tiny"
    assert raw.curves["loss"].step.tolist() == [0, 1, 2]
    assert raw.curves["loss"].value.tolist() == [3, 2, 1]
    assert raw.curves["train.lr"].value.tolist() == [1e-05] * 3


def test_bare_nan_and_infinity_are_numbers(tmp_path: Path):
    rows = [_history(_step=str(i), loss=token) for i, token in enumerate(["1.5", "Infinity", "NaN", "-Infinity"])]
    values = _read(_file(tmp_path / "run-a.wandb", rows)).curves["loss"].value.tolist()
    assert values[:2] == [1.5, math.inf]
    assert math.isnan(values[2])
    assert values[3] == -math.inf


def test_what_is_no_number_is_left_out(tmp_path: Path):
    row = _history(_step="0", loss="1.0", note='"better"', histogram='{"bins": [1, 2]}', done="true")
    assert set(_read(_file(tmp_path / "run-a.wandb", [row])).curves) == {"_step", "loss"}


def test_records_over_the_edge_of_a_block_are_put_together(tmp_path: Path):
    rows = [_history(_step=str(step), loss=f"{step}.5", note='"' + "x" * 700 + '"') for step in range(200)]
    file = _file(tmp_path / "run-a.wandb", [_field(13, b"y" * 100_000), *rows])
    raw = _read(file)
    assert raw.curves["loss"].value.tolist() == [step + 0.5 for step in range(200)]
    assert raw.notes == ()


@pytest.mark.parametrize("cut", [1, 20])
def test_a_file_cut_short_is_read_up_to_there(tmp_path: Path, cut: int):
    file = _file(tmp_path / "run-a.wandb", [_history(_step=str(step), loss="1.0") for step in range(3)])
    file.path.write_bytes(file.path.read_bytes()[:-cut])
    raw = _read(file)
    assert raw.curves["loss"].step.tolist() == [0, 1]
    assert len(raw.notes) == 1
    assert "is cut short; read up to there" in raw.notes[0]


def test_a_wrong_checksum_ends_the_reading_with_its_place(tmp_path: Path):
    rows = [_history(_step=str(step), loss="1.0") for step in range(3)]
    file = _file(tmp_path / "run-a.wandb", rows)
    content = bytearray(file.path.read_bytes())
    place = len(content) - len(rows[0]) - 7
    content[-2] ^= 1
    file.path.write_bytes(content)
    raw = _read(file)
    assert raw.curves["loss"].step.tolist() == [0, 1]
    assert raw.notes == (f"the record at byte {place} has a wrong checksum; read up to there",)


def test_a_file_without_a_whole_record_is_refused(tmp_path: Path):
    (tmp_path / "run-a.wandb").write_bytes(b":W&B\xe1\xbe\x00\x01\x02")
    with pytest.raises(ConfigError, match=r"^run-a\.wandb: a W&B file without a whole record"):
        _read(LogFile(tmp_path / "run-a.wandb", "run-a.wandb"))


def test_the_run_and_its_start_are_known_without_reading_the_history(tmp_path: Path):
    run = run_of(_file(tmp_path / "run-a.wandb", [_run("abc", "tiny", 1_700_000_000), _history(_step="0")]))
    assert (run.run_id, run.name, run.started) == ("abc", "tiny", 1_700_000_000)
