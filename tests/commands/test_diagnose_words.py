"""What `stresstest diagnose` says, as a person in a hurry reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from stresstest.cli.main import run

Capture = pytest.CaptureFixture[str]


def printed(capsys: Capture, *args: str) -> str:
    run(["diagnose", *args])
    return capsys.readouterr().out


def write(tmp_path: Path, losses: Iterable[float], **more: Iterable[float]) -> str:
    path = tmp_path / "log.jsonl"
    columns = {"loss": losses, **more}
    lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(json.dumps({"step": step, **line}) for step, line in enumerate(lines)))
    return str(path)


def decay(rows: int = 200) -> list[float]:
    return [1.0 + 2.0 * math.exp(-5.0 * i / rows) + 0.01 * ((i * 7919) % 13 - 6) / 6 for i in range(rows)]


def test_a_run_that_spiked_is_not_called_stable(tmp_path: Path, capsys: Capture) -> None:
    losses = decay()
    losses[100:110] = [4.0] * 10
    out = printed(capsys, write(tmp_path, losses))
    assert out.splitlines()[-1] == "exit 0: the run did not break (spiked)"


def test_a_spike_that_is_not_over_at_the_end_is_named_in_the_verdict(tmp_path: Path, capsys: Capture) -> None:
    losses = decay()
    losses[150:] = [4.0] * 10 + [1.4] * 40  # a fifth of what was learned stays lost
    out = printed(capsys, write(tmp_path, losses))
    assert "SPIKED, not back at the end" in out
    assert out.splitlines()[-1] == "exit 0: the run did not break (spiked, not back at the end)"


def test_where_no_step_was_taken_the_verdict_says_that(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, [2.44 + 0.001 * (i % 3) for i in range(60)], grad_norm=[math.inf] * 60)
    assert "no step was taken: every one was skipped; loss 2.44" in " ".join(printed(capsys, path).split())


def test_a_warm_up_that_does_not_end_is_told_once(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path, decay(), lr=[1e-5 * (i + 1) for i in range(200)])
    out = printed(capsys, path)
    assert "The LR still rises at the last row" in out
    assert "LR rises to" not in out
    assert "LR rises to" in printed(capsys, "-v", path)


def test_what_is_true_of_many_segments_is_said_once(tmp_path: Path, capsys: Capture) -> None:
    rows = decay(60)
    lr = [0.001 * (1 - i / 60) for i in range(59)] + [0.001]
    lines = [json.dumps({"step": i, "loss": rows[i], "lr": lr[i]}) for _ in range(3) for i in range(60)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    out = " ".join(printed(capsys, str(tmp_path / "log.jsonl")).split())
    assert out.count("its schedule began again") == 1
    assert "Segments 0 to 2: The LR had fallen" in out


def test_ctrl_c_speaks_of_no_cells(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("stresstest.commands.diagnose.diagnose_logs", stop)
    assert run(["diagnose", write(tmp_path, decay())]) == 130
    assert capsys.readouterr().err == "stresstest: interrupted; no verdict\n"
