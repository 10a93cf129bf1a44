"""A result without a checksum, which somebody may have changed: shown, or an error of one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from stresstest.cli.main import run
from stresstest.commands.show_result import result_text
from stresstest.errors import ConfigError
from stresstest.experiments.lr_range import document
from stresstest.results.records import Result, read_result
from stresstest.results.sums import digest
from tests.torture.malformed import changed

STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_what_was_changed_is_shown_or_told_in_a_line(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, content, told = random.Random(0), json.loads(path.read_text()), list[str]()
    file = tmp_path / "result.json"
    for _ in range(40):
        file.write_text(json.dumps(changed(content, draw)))
        code = run(["report", str(file), "-o", f"html:{tmp_path / 'page.html'}", "-o", f"csv:{tmp_path / 'tables'}"])
        assert code in (0, 2)
        lines = [line for line in capsys.readouterr().err.splitlines() if "lacks the curves" not in line]
        assert len(lines) == (1 if code else 0), lines
        told += lines
    assert told
    assert [text for text in told if str(file) not in text] == []


def test_what_is_wrong_with_a_result_that_was_written_so_is_a_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "result.json"
    file.write_bytes((Path(__file__).parent / "stored" / "lr-range.json").read_bytes())

    def fails(result: Result) -> str:
        raise KeyError("heads")

    monkeypatch.setattr(document, "_title", fails)
    with pytest.raises(ConfigError, match=r"is not what was written \(KeyError: 'heads'\), and no checksum"):
        result_text(read_result(file), "md")
    file.with_suffix(".sum").write_text(digest(file.read_bytes()))
    with pytest.raises(KeyError, match="heads"):
        result_text(read_result(file), "md")
