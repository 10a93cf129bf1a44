"""`stresstest warmup` on the command line: what it prints, where, and the exit codes."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from stresstest.cli.main import run
from stresstest.engine.population import Population
from stresstest.engine.replicas import Readings
from stresstest.tasks.task import Batch

Capture = pytest.CaptureFixture[str]
TINY = (
    "warmup --variant pre-ln --depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 2 --train-steps 20 --warmup-steps "
    "0,5 --num-lrs 2 --trials 2 --trials-at-once 2 --seeds 1 --device cpu -j 1"
).split()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_the_map_and_the_best_setting_and_stores_everything(project: Path, capsys: Capture) -> None:
    assert run([*TINY, "--run-dir", "here", "-o", "notes.md", "-v"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == "Warm-up x peak LR: decoder, depth 1, width 8, adam, 1 seed"
    assert re.search(r"^peak LR +0.0005 +0.064$", out, re.MULTILINE)
    assert re.search(r"^ +0  +\d\.\d\d.  +\d\.\d\d", out, re.MULTILINE)
    assert out.rstrip().splitlines()[-1].startswith("again: stresstest warmup --width 8")
    assert [re.match(r"\[\d/\d\]", line) is not None for line in err.splitlines()] == [True] * 6
    assert re.search(r"\[6/6\] pre-ln adam depth 1 \d steps to \S+ seed 0: \S+, loss \d\.\d\d, \d+ s", err)
    assert {path.name for path in (project / "here").iterdir()} >= {"cells.jsonl", "study.journal", "report.html"}
    assert "| warm-up | 0.0005 | 0.064 |" in (project / "notes.md").read_text()
    assert run(["report", "here", "-v"]) == 0
    assert capsys.readouterr().out == out


def test_the_printed_command_resumes_and_more_trials_train_only_what_is_new(project: Path, capsys: Capture) -> None:
    assert run([*TINY, "--json", "-q"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run([*shlex.split(first["reproduce"])[1:], "--json", "-q", "-j", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert run([*TINY, "--trials", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["cells"]) == 7
    assert err.count("seed 0: ") == 1
    assert len(list(project.glob(".stresstest/runs/*-warmup"))) == 1


BAD: list[tuple[list[str], list[str]]] = [
    (["--warmup-steps", "0,20"], ["a warm-up of 20 steps leaves no other steps of train_steps 20"]),
    (["--warmup-steps", "5,0"], ["warmup_steps '5,0'", "must be 0 or more and in increasing order"]),
    (["--warmup-steps", ""], ["warmup_steps"]),
    (["--warmup-steps", "0,1"], ["write 0 instead of 1"]),
    (["--warmup-steps", "ten"], ["warmup_steps 'ten'", "whole numbers"]),
    (["--warmup-steps", "0"], ["a search needs a range of warm-ups", "trials 0"]),
    (
        ["--start-lr", "0.1", "--end-lr", "0.01"],
        ["start_lr 0.1 to end_lr 0.01 is not a range", "end_lr must be larger"],
    ),
    (["--start-lr", "0.1", "--end-lr", "0.1"], ["start_lr 0.1 to end_lr 0.1 is not a range of 2"]),
    (["--start-lr", "0"], ["start_lr 0.0: input should be greater than 0"]),
    (["--num-lrs", "0"], ["num_lrs 0"]),
    (["--sampler", "tpr"], ["'tpr'", "tpe"]),
    (["--warmup", "liner"], ["unknown warm-up 'liner'", "did you mean 'linear'?"]),
    (["--decay", "cosin"], ["unknown decay 'cosin'", "did you mean 'cosine'?"]),
    (["--decay", "linear:end_share=2"], ["end_share", "below 1"]),
    (["--optimizer", "adam,lam"], ["unknown optimizer 'lam'"]),
    (["--no-map", "--trials", "0"], ["nothing to train: use --map"]),
    (["--trials", "-1"], ["trials -1"]),
    (["--shard", "1/2"], ["leave out --shard: a search (--trials) asks for cells depending on other results"]),
    (["--model", "encoder", "--task", "images"], ["task images does not fit model encoder"]),
    (["--variant", "pre-lm"], ["unknown variant 'pre-lm'"]),
]


@pytest.mark.parametrize(("args", "named"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input_is_one_line_before_any_training(
    args: list[str], named: Sequence[str], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def step(self: Population, batch: Batch, lr_R: Tensor) -> Readings:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Population, "step", step)
    assert run([*TINY, *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stresstest: ")
    assert len(err.splitlines()) == 1
    assert all(part in err for part in named), err
    assert list(project.iterdir()) == [], "no run directory was made"


@pytest.mark.parametrize(
    ("words", "cells", "timed"),
    [
        (["--no-map"], "2 cells, all of them chosen as the run goes on, on ", "2 cells: about "),
        (["--no-map", "--max-cells", "1"], "2 cells, all of them chosen", "1 cell: about "),
        ([], "6 cells, 2 of them chosen as the run goes on, on ", "6 cells: about "),
        (["--trials", "0"], "4 cells on ", "4 cells: about "),
    ],
)
def test_a_dry_run_counts_the_trials_that_a_search_will_ask_for(
    words: list[str], cells: str, timed: str, project: Path, capsys: Capture
) -> None:
    assert run([*TINY, *words, "--dry-run"]) == 0
    *_, needs, seconds = capsys.readouterr().out.splitlines()
    assert needs.startswith(cells)
    assert re.search(r", at most about [\d.]+ MiB a replica; nothing was trained$", needs)
    assert seconds.startswith(timed)
    assert list(project.iterdir()) == []


def test_searches_of_two_depths_have_two_run_directories(project: Path) -> None:
    alone = [*TINY, "--no-map", "-q"]
    for depth in ("1", "2", "1"):
        assert run([*alone, "--depth", depth]) == 0
    assert len(list(project.glob(".stresstest/runs/*-warmup*/result.json"))) == 2


def test_a_search_in_which_every_trial_fails_reports_and_says_where_to_look(capsys: Capture) -> None:
    assert run([*TINY, "--no-map", "--trials", "3", "--start-lr", "100", "--end-lr", "10000", "-q", "-v"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "pre-ln: try --start-lr 0.39 --end-lr 100. Every run fails, at every warm-up and peak LR" in out
    assert "the range lies above the boundary." in out
    assert "no setting trains with every seed" in out


def test_shards_of_a_map_are_joined_to_the_whole(capsys: Capture) -> None:
    alone = [*TINY, "--trials", "0", "-q", "--json", "--seeds", "2"]
    assert run([*alone, "--run-dir", "whole"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for index in (1, 2):
        assert run([*alone, "--shard", f"{index}/2", "--run-dir", f"part{index}"]) == 0
    capsys.readouterr()
    assert run(["merge", "part1", "part2", "--run-dir", "joined", "--json"]) == 0
    joined = json.loads(capsys.readouterr().out)
    assert joined["trends"] == whole["trends"]
    assert joined["summary"] == whole["summary"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_search_says_how_to_go_on_and_the_rest_is_trained(
    number: signal.Signals, code: int, project: Path, capsys: Capture
) -> None:
    many = [*TINY, "--no-map", "--trials", "16", "--train-steps", "60", "--run-dir", "here", "--sampler", "tpe"]
    command = [sys.executable, "-m", "stresstest", *many]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        cells = project / "here" / "cells.jsonl"
        while process.poll() is None and not cells.exists():
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    last = err.splitlines()[-1]
    assert re.search(r"interrupted; \d+ of \d+ cells are saved in here; to go on: stresstest warmup", last)
    again = shlex.split(last.partition("to go on: ")[2])
    assert run([*again[1:], "-j", "1", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["searches"][0]["trials"] == 16
