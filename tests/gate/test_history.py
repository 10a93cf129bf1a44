"""The history of a gate: what its checks found, in the order of the commits."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stresstest.cli.main import run
from stresstest.gate.baseline import BASELINE_SCHEMA, Baseline, BaselineExperiment, BaselineRow
from stresstest.gate.history import keep_record, read_history
from stresstest.gate.history_report import history_document
from stresstest.gate.records import CheckVerdict, GatedRow, GateLine
from stresstest.reports.document import Chart
from stresstest.reports.output import render
from stresstest.results.records import Bracket, summarise

CHECKS = Path(".stresstest/checks")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOSTILE = "<img src=x> | subject"
ENVIRONMENT = "torch2/cpu"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three commits of a repository that one works in, the oldest first."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q", ".")
    git("config", "user.email", "somebody@example.org")
    git("config", "user.name", "Somebody")
    Path("gate.yaml").write_text(
        "experiments:\n  boundary: {command: lr-range}\nthresholds:\n  max_stable_lr: med >= 0.003\n"
    )
    found = []
    for number in range(3):
        git("commit", "-q", "--allow-empty", "-m", HOSTILE if number == 1 else f"commit {number}")
        found.append(git("rev-parse", "HEAD")[:10])
    return found


def record(
    commit: str,
    lr: float,
    hour: int,
    verdict: str = "no-change",
    environment: str = ENVIRONMENT,
    kernel: str = "torch",
) -> None:
    """A check of a commit that found this max_stable_lr, a tenth more for each seed."""
    head = summarise("max_stable_lr", {seed: Bracket.exactly(lr * (1 + 0.1 * seed)) for seed in range(3)})
    line = GateLine.model_validate(
        {
            "place": GatedRow(experiment="boundary", variant="pre-ln", depth=4, optimizer="adam"),
            "metric": "max_stable_lr",
            "threshold": "med vs base >= -0.5oct",
            "level": "error",
            "verdict": verdict,
            "base": head,
            "head": head,
            "unit": "oct",
            "tolerance": 0.5,
            "resolution": 0.5,
        }
    )
    found = CheckVerdict(
        scenario="gate",
        mode="base",
        base={},
        head={"commit": commit, "environment": environment, "kernel": kernel},
        alpha=0.05,
        looks=[3],
        seeds=3,
        lines=[line],
        limits=[],
        reproduce="stresstest check gate.yaml",
    )
    keep_record(found, CHECKS, NOON + timedelta(hours=hour))


def chart() -> Chart:
    [(_, picture)] = history_document(read_history("gate", CHECKS, 30)).pictures("html")
    assert isinstance(picture, Chart)
    return picture


def test_values_stand_in_the_order_of_commits_and_failures_are_marked(commits: list[str]) -> None:
    for commit, lr, hour in ((commits[2], 0.1, 0), (commits[0], 0.3, 1), (commits[1], 0.2, 2)):
        record(commit, lr, hour, "regressed" if commit == commits[2] else "no-change")
    line, failed = chart().series
    assert chart().x.names == tuple(commit[:7] for commit in commits)
    assert [y for _, y in line.points] == pytest.approx([0.33, 0.22, 0.11])
    assert line.spans[0] == pytest.approx((0.3, 0.36))
    assert [(x, pytest.approx(y)) for x, y in failed.points] == [(2.0, 0.11)]
    assert failed.notes == (f"{commits[2]}: pre-ln regressed",)


def test_a_commit_that_was_checked_again_counts_by_its_last_check(commits: list[str]) -> None:
    record(commits[0], 0.3, 0)
    record(commits[0], 0.1, 5)
    record(f"{commits[0]}+", 0.2, 6)
    record(f"{commits[0]}+", 0.4, 7)
    assert [y for _, y in chart().series[0].points] == pytest.approx([0.11, 0.22, 0.44])


def test_what_is_left_out_is_said(commits: list[str]) -> None:
    record(commits[0], 0.3, 0)
    record(commits[1], 0.2, 1)
    record(commits[1], 0.2, 2, environment="torch2/cuda")
    record(commits[2], 0.2, 2, kernel="native")
    record(commits[2], 0.1, 3)
    (CHECKS / "history/gate/20261101T150000000000-ff.verdict.json").write_text('{"schema": "stresstest.verdict/9"}')
    history = read_history("gate", CHECKS, 1)
    assert [entry.commit for entry in history.entries] == [commits[2]]
    assert history.left_out == (
        "2 of another environment or kernel",
        "1 that cannot be read by this version",
        "2 older ones (--limit)",
    )


def test_the_baselines_of_earlier_commits_are_in_it(commits: list[str]) -> None:
    record(commits[2], 0.1, 3)
    file = Path("stresstest-baselines/gate/torch2-cpu.json")
    file.parent.mkdir(parents=True)
    for commit, lr in ((commits[0], 0.5), (commits[1], 0.4)):
        row = BaselineRow(variant="pre-ln", depth=4, optimizer="adam", metrics={"max_stable_lr": {"0": (lr, lr)}})
        experiment = BaselineExperiment(command="lr-range", settings="", data="", rows=[row])
        baseline = Baseline(
            schema_=BASELINE_SCHEMA,
            scenario="gate",
            environment=ENVIRONMENT,
            commit=commit,
            created="2026-10-01",
            reason="it changed",
            experiments={"boundary": experiment},
        )
        file.write_text(baseline.to_json())
        git("add", "-A", "stresstest-baselines")
        git("commit", "-q", "-m", "baseline")
    assert [y for _, y in chart().series[0].points] == pytest.approx([0.5, 0.4, 0.11])


def test_the_command_trains_nothing_and_prints_a_table_and_a_page(
    commits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", "gate.yaml", "--history"]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "no check of gate is on record here; each check leaves one: stresstest check" in err
    record(commits[0], 0.3, 0)
    record(commits[1], 0.2, 1, "regressed")
    assert run(["check", "gate.yaml", "--history", "--limit", "5", "-o", "md:history.md"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [commits[1], "regressed", "0.22"] in [row[:3] for row in rows]
    page = (CHECKS / "gate.history.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x&gt;" in page
    assert "&lt;img src=x> \\| subject" in Path("history.md").read_text()
    assert render(history_document(read_history("gate", CHECKS, 5)), "md") in Path("history.md").read_text()
