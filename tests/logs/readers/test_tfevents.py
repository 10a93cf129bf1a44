"""TensorBoard's event files; the oracle is TensorBoard's own loader."""

import math
import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_BFLOAT16, DT_DOUBLE, DT_FLOAT, DT_HALF, DT_INT64
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.tfevents import EventFiles, read_events
from stresstest.logs.segments import assemble

START = Event(wall_time=1.0, file_version="brain.Event:2")


def _simple(step: int, **values: float) -> Event:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
    return Event(wall_time=1000.0 + step, step=step, summary=summary)


def _tensor(step: int, tag: str, tensor: TensorProto, plugin: str = "scalars") -> Event:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]))


def _write(path: Path, *events: Event) -> Path:
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        for event in (START, *events):
            writer.write(event.SerializeToString())
    return path


def _read(*paths: Path) -> RawLog:
    raw = read_events([LogFile(path, path.name) for path in paths])
    assert raw is not None
    return raw


def _rows(raw: RawLog, tag: str) -> list[tuple[float, float]]:
    curve = raw.curves[tag]
    return list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))


def _by_tensorboard(path: Path) -> dict[str, list[tuple[float, float]]]:
    found = defaultdict(list)
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "scalars":
                number = tensor_util.make_ndarray(value.tensor).astype(float).item()
                found[value.tag].append((float(event.step), number))
    return dict(found)


def test_scalars_are_those_that_tensorboard_reads(tmp_path: Path):
    noise = np.random.default_rng(0)
    events = [
        _simple(int(step), **{tag: float(value) for tag, value in zip(tags, noise.normal(size=3), strict=False)})
        for step in (*range(300), 5, 2**40, -1, 127, 128)
        for tags in (["loss"], ["lr", "a_rather_long_name"], ["loss", "lr", "accuracy"])
    ]
    path = _write(tmp_path / "events.out.tfevents.1", *events)
    raw = _read(path)
    expected = _by_tensorboard(path)
    assert set(raw.curves) == set(expected)
    assert {tag: _rows(raw, tag) for tag in expected} == expected


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(dtype=DT_FLOAT, float_val=[0.75]),
        TensorProto(dtype=DT_FLOAT, tensor_content=struct.pack("<f", 0.75)),
        TensorProto(dtype=DT_DOUBLE, double_val=[0.1]),
        TensorProto(dtype=DT_DOUBLE, tensor_content=struct.pack("<d", 0.1)),
        TensorProto(dtype=DT_HALF, half_val=[int(np.float16(0.3).view(np.uint16))]),
        TensorProto(dtype=DT_HALF, tensor_content=np.float16(0.3).tobytes()),
        TensorProto(dtype=DT_INT64, int64_val=[300]),
    ],
    ids=["float", "float bytes", "double", "double bytes", "half", "half bytes", "whole number"],
)
def test_tensors_of_one_element_are_scalars(tmp_path: Path, tensor: TensorProto):
    path = _write(
        tmp_path / "events.out.tfevents.1", _tensor(0, "epoch_loss", tensor), _tensor(9, "epoch_loss", tensor)
    )
    assert _rows(_read(path), "epoch_loss") == _by_tensorboard(path)["epoch_loss"]


def test_bfloat16_is_the_upper_half_of_a_float(tmp_path: Path):
    tensor = TensorProto(dtype=DT_BFLOAT16, tensor_content=struct.pack("<f", 1.5)[2:])
    path = _write(tmp_path / "events.out.tfevents.1", _tensor(3, "loss", tensor))
    assert _rows(_read(path), "loss") == [(3.0, 1.5)]


def test_what_is_no_scalar_is_passed_over(tmp_path: Path):
    path = _write(
        tmp_path / "events.out.tfevents.1",
        _tensor(0, "note", TensorProto(dtype=DT_FLOAT, float_val=[1.0]), plugin="text"),
        _tensor(0, "many", TensorProto(dtype=DT_FLOAT, tensor_content=struct.pack("<2f", 1, 2))),
        Event(step=1, graph_def=b"\x0a" * 200_000),
        Event(step=1, summary=Summary(value=[Summary.Value(tag="picture", image=Summary.Image(height=2))])),
        _simple(1, loss=0.5),
    )
    assert {tag: _rows(_read(path), tag) for tag in _read(path).curves} == {"loss": [(1.0, 0.5)]}


def test_nan_and_infinity_stay_what_they_are(tmp_path: Path):
    path = _write(tmp_path / "events.out.tfevents.1", _simple(0, loss=math.inf), _simple(1, loss=math.nan))
    (_, first), (_, second) = _rows(_read(path), "loss")
    assert first == math.inf
    assert math.isnan(second)


@pytest.mark.parametrize("place", ["length", "content"])
def test_a_bad_checksum_ends_the_reading_with_a_note(tmp_path: Path, place: str):
    path = _write(tmp_path / "events.out.tfevents.1", *(_simple(step, loss=1.0) for step in range(1, 10)))
    content = bytearray(path.read_bytes())
    size = len(_simple(5, loss=1.0).SerializeToString()) + 16
    start = len(content) - 5 * size  # of the record with step 5
    content[start + (0 if place == "length" else 20)] ^= 1
    path.write_bytes(content)
    raw = _read(path)
    assert [step for step, _ in _rows(raw, "loss")] == [1, 2, 3, 4]
    assert raw.notes == (
        f"events.out.tfevents.1: the checksum of record 6, at byte {start}, is wrong; read up to there",
    )


def test_a_file_that_is_damaged_from_its_start_is_refused_in_one_line(tmp_path: Path):
    path = _write(tmp_path / "events.out.tfevents.1", _simple(0, loss=1.0))
    content = bytearray(path.read_bytes())
    content[14] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^events.out.tfevents.1: the checksum of record 1, at byte 0, is wrong"):
        _read(path)


@pytest.mark.parametrize("cut", [1, 5, 13, 30])
def test_a_last_record_cut_short_is_noted(tmp_path: Path, cut: int):
    path = _write(tmp_path / "events.out.tfevents.1", _simple(1, loss=1.0), _simple(2, loss=2.0), _simple(3, loss=3.0))
    path.write_bytes(path.read_bytes()[:-cut])
    raw = _read(path)
    assert _rows(raw, "loss") == [(1.0, 1.0), (2.0, 2.0)]
    assert "record 4" in raw.notes[0]
    assert "is cut short; read up to there" in raw.notes[0]


def test_records_across_the_pieces_of_a_file_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stresstest.logs.readers.tfrecords._PIECE", 101)
    events = [_simple(step, loss=float(step)) for step in range(50)]
    events.insert(20, Event(step=1, graph_def=b"\x0a" * 70_000))
    path = _write(tmp_path / "events.out.tfevents.1", *events)
    assert _rows(_read(path), "loss") == [(step, step) for step in range(50)]


def test_steps_that_were_not_given_are_said(tmp_path: Path):
    path = _write(tmp_path / "events.out.tfevents.1", *(_simple(0, loss=float(row)) for row in range(3)))
    raw = _read(path)
    assert raw.notes == ("every step is 0, so none was given to the writer: rows are counted instead",)
    assert np.isnan(raw.curves["loss"].step).all()


def test_a_purge_step_takes_back_what_earlier_files_say_from_there_on(tmp_path: Path):
    first = _write(tmp_path / "events.out.tfevents.1", *(_simple(step, loss=1.0) for step in range(8)))
    restart = Event(step=5, session_log=SessionLog(status=SessionLog.START))
    second = _write(tmp_path / "events.out.tfevents.2", restart, *(_simple(step, loss=2.0) for step in range(5, 8)))
    raw = _read(first, second)
    assert _rows(raw, "loss") == [(step, 1.0 if step < 5 else 2.0) for step in range(8)]
    assert raw.notes == (
        "2 event files of one run were joined",
        "3 values dropped: the writer began again at step 5 and took them back",
    )
    (seam,) = raw.seams
    assert (raw.curves["loss"].row < seam).sum() == 5


def test_a_long_curve_is_merged_in_pairs_and_its_nan_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stresstest.logs.readers.packed._LONGEST", 200)
    monkeypatch.setattr("stresstest.logs.readers.tfrecords._PIECE", 1000)
    losses = [1.0] * 1000
    losses[777] = math.nan
    path = _write(tmp_path / "events.out.tfevents.1", *(_simple(step, loss=loss) for step, loss in enumerate(losses)))
    raw = _read(path)
    curve = raw.curves["loss"]
    assert len(curve) <= 201
    assert np.isnan(curve.value).sum() == 1
    assert (np.diff(curve.step) > 0).all()
    assert curve.step[-1] == 999
    assert "rows each were merged into one" in raw.notes[0]


def test_values_beside_the_loss_are_no_rows_without_one(tmp_path: Path):
    events = [_simple(step, **{tag: 1.0}) for step in range(9) for tag in ("loss", "lr")]
    raw = _read(_write(tmp_path / "events.out.tfevents.1", *events))
    assert not any("no loss" in note for note in assemble(raw, "x").notes)


def test_event_files_are_known_by_their_first_record(tmp_path: Path):
    path = _write(tmp_path / "anything", _simple(0, loss=1.0))
    assert EventFiles().fits(LogFile(path, "anything"))
    (tmp_path / "text").write_text("step 1 loss 2.0")
    assert not EventFiles().fits(LogFile(tmp_path / "text", "text"))


def test_events_of_transformers_trainer_are_means_and_0_where_not_finite(tmp_path: Path):
    rows = [{"train/loss": loss, "train/epoch": 0.1, "train/learning_rate": 0.01} for loss in (4.0, 3.0, 0.0, 0.0)]
    raw = _read(_write(tmp_path / "events.out.tfevents.1", *(_simple(5 * at, **row) for at, row in enumerate(rows, 1))))
    assert (raw.facts.row_kind, raw.facts.zero_for_nan) == ("mean", True)
    assert assemble(raw, "run").segments[0].zeros_for_nan == 2
