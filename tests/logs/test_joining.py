"""Several files of one run; the event files are written by torch's and TensorBoard's own writers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.joining import grouped, joined, read_runs
from stresstest.logs.readers.table import READERS
from stresstest.logs.sources import Found, found_logs
from tests.logs.readers.test_wandb_file import _file, _history, _run


def _events(path: Path, values: dict[str, Sequence[float]], start: int = 0, time: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
        for tag, losses in values.items():
            for step, loss in enumerate(losses, start):
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=loss)])
                writer.write(Event(wall_time=time, step=step, summary=summary).SerializeToString())


def _lightning(path: Path, steps: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("step,train_loss\n" + "".join(f"{step},{1 / (1 + step)}\n" for step in steps))


def _runs(folder: Path) -> list[RawLog]:
    with found_logs([str(folder)]) as logs:
        files = [each.file for each in logs if isinstance(each, Found)]
    return [raw for file in files for raw in read_runs(file, next(each for each in READERS if each.fits(file)))]


def test_event_files_of_a_restarted_run_are_one_in_the_order_of_their_times(tmp_path: Path):
    _events(tmp_path / "events.out.tfevents.9.host", {"loss": [3, 2, 1]}, start=0, time=100.0)
    _events(tmp_path / "events.out.tfevents.10.host", {"loss": [0.9, 0.8]}, start=3, time=200.0)
    (raw,) = _runs(tmp_path)
    assert raw.curves["loss"].step.tolist() == [0, 1, 2, 3, 4]
    assert "2 event files of one run were joined" in raw.notes
    (seam,) = raw.seams
    assert np.searchsorted(raw.curves["loss"].row, seam) == 3


def test_event_files_that_were_renamed_are_runs_of_their_own(tmp_path: Path):
    _events(tmp_path / "stable.tfevents", {"loss": [3, 2, 1]})
    _events(tmp_path / "broken.tfevents", {"loss": [3, 9, 99]})
    assert len(_runs(tmp_path)) == 2


def test_each_line_of_torchs_add_scalars_is_a_curve_of_the_run(tmp_path: Path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_scalar("train/loss", 1.0, step)
            writer.add_scalars("many/parts", {"a": 2.0, "b": 3.0}, step)
    assert (tmp_path / "many_parts_a").is_dir()
    (raw,) = _runs(tmp_path)
    assert {name: curve.value.tolist() for name, curve in raw.curves.items()} == {
        "train/loss": [1.0] * 3,
        "many/parts/a": [2.0] * 3,
        "many/parts/b": [3.0] * 3,
    }


def test_keras_two_folders_are_one_run_with_its_validation(tmp_path: Path):
    _events(tmp_path / "logs/train/events.out.tfevents.1.host", {"epoch_loss": [3, 2, 1]})
    _events(tmp_path / "logs/validation/events.out.tfevents.2.host", {"epoch_loss": [3, 2.5, 2]})
    (raw,) = _runs(tmp_path)
    assert raw.curves["train/epoch_loss"].value.tolist() == [3, 2, 1]
    assert raw.curves["validation/epoch_loss"].value.tolist() == [3, 2.5, 2]


def test_folders_beside_each_other_are_runs_of_their_own(tmp_path: Path):
    _events(tmp_path / "small/events.out.tfevents.1.host", {"loss": [3, 2, 1]})
    _events(tmp_path / "large/events.out.tfevents.2.host", {"loss": [3, 2.5, 2]})
    _events(tmp_path / "events.out.tfevents.3.host", {"loss": [4, 3, 2], "accuracy": [0, 0, 1]})
    assert len(_runs(tmp_path)) == 3


def test_a_version_that_takes_up_the_steps_of_the_one_before_is_part_of_it(tmp_path: Path):
    _lightning(tmp_path / "version_0/metrics.csv", range(9, 100, 10))
    _lightning(tmp_path / "version_1/metrics.csv", range(89, 200, 10))
    (raw,) = _runs(tmp_path)
    assert raw.seams == (10,)
    assert "2 files of one run were joined" in raw.notes


def test_versions_that_begin_anew_are_runs_of_their_own(tmp_path: Path):
    _lightning(tmp_path / "version_0/metrics.csv", range(9, 1000, 10))
    _lightning(tmp_path / "version_10/metrics.csv", range(4, 500, 5))
    _lightning(tmp_path / "version_2/metrics.csv", range(49, 1000, 50))  # a longer interval, not a resume
    raws = _runs(tmp_path)
    assert [Path(raw.source).parent.name for raw in raws] == ["version_0", "version_2", "version_10"]


def test_a_damaged_version_hides_no_other(tmp_path: Path):
    _lightning(tmp_path / "version_0/metrics.csv", range(9, 100, 10))
    (tmp_path / "version_1").mkdir()
    (tmp_path / "version_1/metrics.csv").write_bytes(b"step,train_loss\n\0\0\0\n")
    _lightning(tmp_path / "version_2/metrics.csv", range(9, 100, 10))
    read = []
    (file,) = grouped([LogFile(tmp_path / f"version_{i}/metrics.csv", f"{i}") for i in range(3)])
    with pytest.raises(ConfigError):
        read.extend(read_runs(file, next(each for each in READERS if each.fits(file))))
    assert [raw.source for raw in read] == ["0", "2"]


def test_lightnings_table_is_read_once_where_event_files_hold_the_same(tmp_path: Path):
    _lightning(tmp_path / "version_0/metrics.csv", range(9, 100, 10))
    _events(tmp_path / "version_0/events.out.tfevents.1.host", {"train_loss": [3, 2, 1]})
    (raw,) = _runs(tmp_path)
    assert raw.notes[-1] == "the event files beside it are of the same run: not read"


def test_wandb_folders_of_one_run_are_joined_by_their_start(tmp_path: Path):
    rows = [_history(_step=str(step), loss=f"{step}.5") for step in range(3)]
    for name, started, history in (("b-later", 200, rows[:2]), ("c-first", 100, rows)):
        (tmp_path / name).mkdir()
        _file(tmp_path / name / "run-abc.wandb", [_run("abc", "tiny", started), *history])
    (raw,) = _runs(tmp_path)
    assert raw.curves["loss"].step.tolist() == [0, 1, 2, 0, 1]
    assert raw.seams == (3,)


def test_metric_files_of_mlflow_are_joined_by_their_run(tmp_path: Path):
    for run in ("a", "b"):
        (tmp_path / run / "metrics/train").mkdir(parents=True)
        (tmp_path / run / "metrics/train/loss").write_text("1795882843829 2.5 0\n")
        (tmp_path / run / "metrics/lr").write_text("1795882843829 0.1 0\n")
    assert [(raw.name, set(raw.curves)) for raw in _runs(tmp_path)] == [
        ("a", {"lr", "train/loss"}),
        ("b", {"lr", "train/loss"}),
    ]


def test_rows_of_joined_logs_stay_in_order():
    def raw(losses: list[float], rows: list[int]) -> RawLog:
        return RawLog("x", {"loss": Curve(np.arange(2.0), np.array(losses), np.array(rows))})

    both = joined([raw([1, 2], [0, 5]), raw([3, 4], [1, 2])])
    assert both.curves["loss"].value.tolist() == [1, 2, 3, 4]
    assert both.curves["loss"].row.tolist() == [0, 5, 7, 8]
    assert both.seams == (6,)


@pytest.mark.parametrize("hole", [0, 1])
def test_a_hole_of_zero_bytes_in_a_printed_log_is_dropped_and_said(hole: int, tmp_path: Path):
    lines = [f"step {step} | loss {4 - step / 100}\n".encode() for step in range(0, 100, 10)]
    lines.insert(hole * 5, bytes(700))
    path = tmp_path / "train.log"
    path.write_bytes(b"".join(lines))
    file = LogFile(path, "train.log")
    (raw,) = read_runs(file, next(reader for reader in READERS if reader.fits(file)))
    assert raw.curves["loss"].step.tolist() == list(range(0, 100, 10))
    assert any(note.startswith("700 zero bytes were dropped") for note in raw.notes)


def test_zero_bytes_among_other_control_bytes_are_binary(tmp_path: Path):
    path = tmp_path / "train.log"
    path.write_bytes(b"loss 2.5\n\0\0\x01\x02loss 2.25\n")
    assert LogFile(path, "train.log").head_text == ""
    path.write_bytes(bytes(500))
    assert LogFile(path, "train.log").head_text == ""
