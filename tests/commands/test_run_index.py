"""`stresstest report --index`: a row for each run below a folder, whatever state it is in."""

from __future__ import annotations

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from stresstest.cli.main import run
from tests.reports.scale_results import PRE, law, result_of

TINY = (
    "lr-range --depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 2 --num-steps 20 --hold-steps 20 --device cpu "
    "-q -j 1 --seeds 1 --variant pre-ln"
).split()
HOSTILE = "<img src=x onerror=alert(1)> #1?\x1b[31m"
Capture = pytest.CaptureFixture[str]


class Page(HTMLParser):
    """The links and the tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a result."""
    path = tmp_path_factory.mktemp("index") / "run"
    assert run([*TINY, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A folder with runs of every state: finished, of a scenario, stopped, damaged, of another version."""
    for name in (HOSTILE, "scenario/one", "scenario/two", "stopped", "damaged", "other", "bare"):
        shutil.copytree(finished, tmp_path / name)
    for name in ("result.json", "report.html", "answer.json", "cells.jsonl"):
        (tmp_path / "stopped" / name).unlink()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    manifest = (tmp_path / "other" / "manifest.json").read_text()
    (tmp_path / "other" / "manifest.json").write_text(manifest.replace("manifest/1", "manifest/9"))
    (tmp_path / "bare" / "manifest.json").unlink()
    (tmp_path / "bare" / "answer.json").unlink()
    (tmp_path / "no-run").mkdir()
    os.utime(tmp_path / "stopped" / "manifest.json", (2e9, 2e9))
    return tmp_path


def test_it_has_every_run_with_its_verdict_and_links_to_what_is_there(root: Path, capsys: Capture) -> None:
    assert run(["report", "--index", str(root)]) == 0
    out, page = capsys.readouterr().out, Page((root / "index.html").read_text())
    assert page.words.count("7 runs") >= 1
    files = {str((root / unquote(link)).relative_to(root)) for link in page.links}
    for name in (HOSTILE, "scenario/one", "scenario/two", "bare"):
        assert {f"{name}/report.html", f"{name}/result.json"} <= files
    assert all((root / name).is_file() for name in files)
    assert "stopped/result.json" not in files
    verdicts = json.loads((root / "scenario/one/answer.json").read_text())["verdicts"]
    for text in (page.words, out):
        assert text.count(verdicts[0]) == 4
        assert "0 of 1" in text
    assert out.index("stopped") < out.index("scenario/one"), "the newest first"
    assert "scenario scenario" in page.words


def test_what_is_damaged_is_named_in_its_row_and_names_are_text(root: Path, capsys: Capture) -> None:
    assert run(["report", "--index", str(root), "-o", f"md:{root / 'index.md'}"]) == 0
    out, page = capsys.readouterr().out, Page((root / "index.html").read_text())
    for text in (page.words, " ".join(out.split())):
        assert "cannot be read: Expecting property name" in text
        assert "schema 'stresstest.manifest/9', this version reads 'stresstest.manifest/1'" in text
    assert "\x1b" not in out
    assert "img" not in page.tags
    assert "&lt;img src=x" in (root / "index.md").read_text()


def test_it_says_how_often_the_laws_of_all_paths_of_sizes_were_right(tmp_path: Path, capsys: Capture) -> None:
    for name, right in (("one", False), ("two", True)):
        (tmp_path / name).mkdir()
        laws = {"pre-ln": [law("max_stable_lr", 0.25, -1.0, wrong=not right)]}
        (tmp_path / name / "result.json").write_text(result_of(PRE, laws).to_json())
    assert run(["report", "--index", str(tmp_path)]) == 0
    words = "over 2 runs of stresstest scale, inside in 24 of 36 when the largest sizes were left out, up to 1 octave"
    assert words in " ".join(capsys.readouterr().out.split())
    assert words in " ".join(Page((tmp_path / "index.html").read_text()).words.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing"], "missing is not a folder"),
        (["no-run"], "no run below no-run"),
        ([".", "--json"], "leave out --json"),
    ],
)
def test_where_there_is_no_run_it_says_so_in_a_line(
    words: list[str], said: str, root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert run(["report", "--index", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err
