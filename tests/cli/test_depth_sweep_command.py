"""`stresstest depth-sweep` on the command line: what it prints, where, and the exit codes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stresstest.cli.main import run
from stresstest.engine.population import Population
from stresstest.engine.replicas import Readings
from stresstest.tasks.task import Batch

Capture = pytest.CaptureFixture[str]
MLP = "depth-sweep --model mlp --width 8 --batch-size 10 --train-steps 20 --seeds 1 --device cpu -j 1".split()
TINY = [*MLP, "--variant", "rezero,plain", "--depths", "2,20"]
DECODER = (
    "depth-sweep --width 8 --heads 2 --seq-len 8 --batch-size 2 --num-steps 20 --hold-steps 20 --device cpu "
    "--seeds 1 --variant pre-ln --depths 1,2 -j 1"
).split()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_prints_its_tables_and_stores_everything(project: Path, capsys: Capture) -> None:
    assert run([*TINY, "--run-dir", "sweep", "-o", "notes.md", "-v"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("Depth sweep: mlp, width 8, 1 seed")
    assert re.search(r"fixed recipe: adam at 0.0003, 20\s+steps", out)
    assert len(re.findall(r"^ (rezero|plain) +2 ", out, re.MULTILINE)) == 2
    assert out.rstrip().splitlines()[-1].startswith("again: stresstest depth-sweep --model mlp")
    assert len(err.splitlines()) == 4
    assert re.search(r"\[4/4\] .* depth \d+ seed 0: fixed recipe \S+, \d+ s", err)
    assert {path.name for path in (project / "sweep").iterdir()} >= {
        "cells.jsonl",
        "curves",
        "result.json",
        "report.html",
    }
    assert "| rezero | 20 |" in (project / "notes.md").read_text()
    assert run(["report", "sweep", "-v"]) == 0
    assert capsys.readouterr().out == out
    assert run(["report", "sweep"]) == 0
    brief = capsys.readouterr().out
    assert len(brief.splitlines()) <= 24 < len(out.splitlines())
    assert "report: sweep/report.html\n" in brief


def test_the_printed_command_resumes_and_more_depths_train_only_what_is_new(project: Path, capsys: Capture) -> None:
    assert run([*TINY, "--json", "-q"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run([*shlex.split(first["reproduce"])[1:], "--json", "-q", "-j", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(list(project.glob(".stresstest/runs/*-depth-sweep"))) == 1
    assert {row["depth"] for row in first["summary"]} == {2, 20}
    assert {row["variant"] for row in first["trends"]} == {"rezero", "plain"}


def test_at_initialisation_alone_it_shows_the_signal(capsys: Capture) -> None:
    assert run(["depth-sweep", "--init-only", *DECODER[1:], "--variant", "post-ln,rezero", "-q", "-v"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Signal propagation at initialisation: decoder" in out
    assert "log10 singular values of the Jacobian, at depth 2" in out
    assert "rezero is the identity at initialisation" in out


def test_the_environment_and_the_project_set_a_sweeps_options(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.stresstest]\nwidth = 24\ndepth = 3\n[tool.stresstest.depth-sweep]\ndepths = [2, 5]\nmodel = "mlp"\n'
    )
    monkeypatch.setenv("STRESSTEST_PEAK_LR", "0.01")
    assert run(["depth-sweep", "--dry-run", "--train-steps", "50"]) == 0
    out = capsys.readouterr().out
    found = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}
    assert found["depths"] == "2,5 pyproject.toml"
    assert found["width"] == "24 pyproject.toml"
    assert found["peak_lr"] == "0.01 environment"
    assert found["train_steps"] == "50 command line"
    assert found["batch_size"] == "100 model mlp"
    assert "heads" not in found, "an MLP has none"
    assert re.search(r"24 cells on .*, at most about \S+ MiB a replica; nothing was trained", " ".join(out.split()))


BAD = [
    (["--depths", "0,4"], ["depths '0,4'", "positive whole numbers in increasing order"]),
    (["--depths", "8,4"], ["depths '8,4'", "positive whole numbers in increasing order"]),
    (["--depths", "4.5"], ["depths '4.5'", "give depths such as 4,12,64, or a range such as 10:10000:x10"]),
    (["--depths", "10:100"], ["depths '10:100'", "10:10000:x10"]),
    (["--depths", ""], ["depths"]),
    (["--variant", "sub-ln"], ["variant sub-ln does not exist for model mlp", "it has plain, residual"]),
    (["--variant", "rezerro"], ["unknown variant 'rezerro'", "did you mean 'rezero'?"]),
    (["--depths", "10,100000000"], ["depth 100000000 of rezero needs about", "GiB", "are free", "use fewer blocks"]),
    (["--model", "mpl"], ["'mpl'", "mlp"]),
    (["--model", "encoder", "--task", "images"], ["task images does not fit model encoder"]),
    (["--heads", "2"], ["model mlp has no setting heads"]),
    (["--data", "digits:3"], ["data 'digits:3'", "has no argument"]),
    (["--data", "cifar10:nowhere"], ["data folder 'nowhere' does not exist", "cifar10:FOLDER"]),
    (["--data", "pydoc"], ["unknown image source 'pydoc'", "synthetic, digits, cifar10"]),
    (["--measure", "boundary"], ["measure 'boundary'", "'outcome', 'ramp' or 'hold'"]),
    (["--measure", ""], ["measure"]),
    (["--probe-steps", "21"], ["probe_steps 21 is outside train_steps, 1 to 20"]),
    (["--probe-steps", "ten"], ["probe_steps 'ten'"]),
    (["--warmup-steps", "20"], ["warmup_steps 20 leave no other steps of train_steps 20"]),
    (["--measure", "ramp", "--bisect"], ["bisect belongs to the fixed recipe", "--measure outcome"]),
    (["--peak-lr", "0"], ["peak_lr 0"]),
    (["--target-loss", "-1"], ["target_loss -1"]),
    (["--depth", "4"], ["--depth", "--depths"]),
    (["--jacobian-input", "zeros"], ["'zeros'", "noise"]),
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


def test_a_depth_that_runs_out_of_memory_all_the_same_is_oom_and_ends_with_4(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    step = Population.step

    def too_deep(self: Population, batch: Batch, lr_R: Tensor) -> Readings:
        if self.model.spec.depth == 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch, lr_R)

    monkeypatch.setattr(Population, "step", too_deep)
    assert run([*MLP, "--variant", "rezero", "--depths", "2,20"]) == 4
    out, err = capsys.readouterr()
    assert "rezero depth 20 seed 0: oom (CUDA out of memory)" in err
    assert "x oom: rezero depth 20 seed 0 has no result" in out
    assert re.search(r"^ seeds that train at depth +2 *\n.*\n rezero +\d/1 *$", out, re.MULTILINE), "20 is no column"


def test_the_help_shows_each_options_default_for_each_model(capsys: Capture) -> None:
    assert run(["depth-sweep", "--help"]) == 0
    out = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert "Find the boundary at growing depth" in out
    for option in ("--depths", "--measure", "--init-only", "--bisect", "--probe-steps", "--peak-lr", "--target-loss"):
        assert option in out
    assert "mlp 0.0003" in out
    assert "mlp outcome" in out
