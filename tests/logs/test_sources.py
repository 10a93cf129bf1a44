"""What a name leads to: files, folders, patterns, pipes, and a line for what cannot be read."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from stresstest.logs import sources
from stresstest.logs.sources import Found, Unread, found_logs, printable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str = "step,loss\n1,2\n") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def files(*names: str) -> list[str]:
    with found_logs(names) as logs:
        return [each.file.shown for each in logs if isinstance(each, Found)]


def problems(*names: str) -> dict[str, str]:
    with found_logs(names) as logs:
        return {each.shown: each.why for each in logs if isinstance(each, Unread)}


def test_a_folder_is_walked_for_what_may_be_a_log() -> None:
    for path in ("a/one.csv", "a/b/two.log", "a/b/weights.bin", "a/.git/three.csv", "a/node_modules/x/four.json"):
        write(path)
    assert files("a") == ["a/one.csv", "a/b/two.log"]


def test_event_files_and_mlflow_metrics_need_no_suffix() -> None:
    write("r/events.out.tfevents.17.host.1.0")
    write("r/mlruns/0/abc/metrics/train/loss")
    assert sorted(files("r")) == ["r/events.out.tfevents.17.host.1.0", "r/mlruns/0/abc/metrics/train/loss"]


def test_of_checkpoints_only_the_last_is_read() -> None:
    for number in (500, 1000, 1500):
        write(f"out/checkpoint-{number}/trainer_state.json", "{}")
    assert files("out") == ["out/checkpoint-1500/trainer_state.json"]
    write("out/trainer_state.json", "{}")
    assert files("out") == ["out/trainer_state.json"]


def test_a_folder_without_logs_says_so() -> None:
    Path("empty").mkdir()
    assert "without logs" in problems("empty")["empty"]


def test_a_tree_that_is_too_large_is_read_in_part_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_LOGS", 3)
    for i in range(5):
        write(f"big/{i}/x.csv")
    assert len(files("big")) == 3
    assert "too large to walk" in problems("big")["big"]


def test_a_quoted_pattern_is_expanded_and_a_file_is_read_once() -> None:
    write("runs/a.csv")
    write("runs/deep/b.csv")
    assert files("runs/**/*.csv", "runs/a.csv") == ["runs/a.csv", "runs/deep/b.csv"]
    assert problems("runs/*.xyz") == {"runs/*.xyz": "no file fits this pattern"}


def test_a_file_whose_name_looks_like_a_pattern_is_that_file() -> None:
    write("lr[0.1].csv")
    assert files("lr[0.1].csv") == ["lr[0.1].csv"]


def test_a_missing_file_is_told_its_nearest_name() -> None:
    write("runs/train.csv")
    assert problems("runs/trian.csv") == {"runs/trian.csv": "no such file; did you mean 'runs/train.csv'?"}
    Path("link.csv").symlink_to("nowhere")
    assert problems("link.csv") == {"link.csv": "a link to a file that is not there"}
    assert problems("elsewhere/q") == {"elsewhere/q": "no such file or folder"}


def test_empty_too_large_and_special_files_are_a_line_each() -> None:
    write("empty.csv", "")
    with Path("large.csv").open("wb") as stream:
        stream.truncate(sources.LARGEST)
    assert "empty" in problems("empty.csv")["empty.csv"]
    assert "2.0 GB" in problems("large.csv")["large.csv"]
    assert "device" in problems("/dev/zero")["/dev/zero"]


def test_a_file_without_permission_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write("secret.csv")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read all
    assert problems("secret.csv") == {"secret.csv": "no permission to read it"}


def test_a_name_with_control_characters_is_shown_escaped() -> None:
    write("a\x1b[31m.csv")
    assert files("a\x1b[31m.csv") == ["a\\x1b[31m.csv"]
    assert printable("\u2028x\r") == "\\u2028x\\r"
    assert printable("txt.\u202evsc") == "txt.\\u202evsc"
    assert problems("a\0b")["a\\x00b"].startswith("cannot be read")


def test_a_pipe_is_kept_in_a_private_folder_until_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"step,loss\n1,2\n")))
    with found_logs(["-"]) as logs:
        (found,) = logs
        assert isinstance(found, Found)
        path = found.file.path
        assert (found.file.shown, path.read_text()) == ("stdin", "step,loss\n1,2\n")
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


def test_an_empty_pipe_and_a_named_one() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text("loss 1\n"))
    writer.start()
    with found_logs(["pipe"]) as logs:
        (found,) = logs
        assert isinstance(found, Found)
        assert found.file.head == b"loss 1\n"
    writer.join()


def test_a_pipe_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST", 1 << 21)
    with Path("/dev/zero").open("rb") as endless:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=endless))
        assert "or more" in problems("-")["stdin"]
