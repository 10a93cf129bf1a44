"""The kernel of a run: chosen once, before anything is trained, and kept by whoever goes on with it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from stresstest.cli.main import run
from stresstest.engine import native
from stresstest.engine.native import build
from stresstest.errors import ConfigError
from stresstest.experiments.document_parts import machine_words
from stresstest.experiments.kernel import Chosen, check_kernel, choose_kernel
from stresstest.experiments.plan import Plan
from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate.baseline import BASELINE_SCHEMA, Baseline, BaselineExperiment, BaselineRow
from stresstest.gate.planning import in_kernels_of, kernel_words
from stresstest.results.records import RESULT_SCHEMA, Result
from stresstest.scenario.reader import ScenarioExperiment
from stresstest.specs.profiles import make_spec

NO_COMPILER = "install a compiler"
MLP = {"model": "mlp", "width": 8, "seeds": (0,), "variant": ("rezero",), "device": "cpu"}
LINE = (
    "lr-range --model mlp --width 8 --batch-size 4 --depth 2 --variant rezero --seeds 2 --num-steps 20 --hold-steps 20 "
    "--no-theory --device cpu -j 1 -q"
).split()
SMALL: dict[str, dict[str, Any]] = {
    "scale": {"widths": (8, 10, 12), "depth": 1},
    "shock": {"shock": ("lr-pulse",), "depth": 1},
    "depth-sweep": {"depths": (1, 2)},
    "batch-sweep": {"batch_sizes": (4, 8), "tokens": 2000},
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this machine have the native kernel, or lack it for a reason."""
    return lambda reason: monkeypatch.setattr(native, "why_not", lambda: reason)


def planned(command: str = "lr-range", **settings: Any) -> Plan:
    given = {**MLP, **SMALL.get(command, {"depth": 2, "batch_size": 4}), **settings}
    return EXPERIMENTS[command].plan(make_spec(EXPERIMENTS[command].spec, "quick", given))


@pytest.mark.parametrize("command", list(EXPERIMENTS))
def test_every_experiment_trains_the_mlp_by_the_native_kernel_where_it_is_there(command: str, has: Any) -> None:
    has("")
    ours = planned(command)
    has(NO_COMPILER)
    theirs = planned(command)
    assert (ours.spec.kernel, theirs.spec.kernel) == ("native", "torch")
    assert {ours.spec_of(cell).kernel for cell in ours.cells} == {"native"}
    assert set(ours.identities) == set(theirs.identities)
    assert not {cell.key for cell in ours.cells} & {cell.key for cell in theirs.cells}
    assert [cell.key for cell in ours.of_kernel("torch").cells] == [cell.key for cell in theirs.cells]


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "decoder", "variant": ("pre-ln",), "seq_len": 8},
        {"model": "resnet", "variant": ("rezero",), "depth": 3},
        {"dtype": "bfloat16"},
        {"kernel": "torch"},
    ],
)
def test_no_compiler_is_looked_for_where_torch_trains(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "why_not", lambda: pytest.fail("it was looked for"))
    plan = planned(**settings)
    assert (plan.spec.kernel, plan.other_kernel) == ("torch", None)


def test_a_gpu_trains_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "why_not", lambda: pytest.fail("it was looked for"))
    spec = make_spec(EXPERIMENTS["lr-range"].spec, "quick", MLP)
    assert choose_kernel(spec, [(spec, 2)], "cuda:0") == Chosen("torch")
    with pytest.raises(ConfigError, match="the native kernel runs on a CPU, and the device is cuda"):
        choose_kernel(spec.model_copy(update={"kernel": "native"}), [(spec, 2)], "cuda:0")


@pytest.mark.parametrize(
    ("settings", "device", "said"),
    [
        ({"kernel": "triton", **MLP}, "cuda:0", ""),
        ({"kernel": "triton", **MLP, "norm": "dyt"}, "cuda:0", "kernel triton: the Triton kernel has the norms"),
        ({"kernel": "triton", **MLP, "width": 512}, "cuda:0", "kernel triton: the Triton kernel has widths up to 256"),
        ({"kernel": "triton", **MLP}, "cpu", "kernel triton: the Triton kernel runs on a GPU, and the device is cpu"),
        ({"kernel": "triton"}, "cuda:0", "kernel triton: it trains model mlp alone, and this is decoder"),
        ({"kernel": "graph"}, "cuda:0", ""),
        ({"kernel": "graph"}, "cpu", "kernel graph: CUDA graphs need a GPU, and the device is cpu"),
        ({"kernel": "graph", "dropout": 0.1}, "cuda:0", "kernel graph: the masks of dropout are drawn on the host"),
    ],
)
def test_what_was_never_measured_is_taken_where_it_is_asked_for(
    settings: dict[str, Any], device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    spec = make_spec(EXPERIMENTS["lr-range"].spec, "quick", settings)
    if not said:
        assert choose_kernel(spec, [(spec, 2)], device) == Chosen(settings["kernel"])
        return
    with pytest.raises(ConfigError, match=re.escape(f"leave out {said}")):
        choose_kernel(spec, [(spec, 2)], device)


def test_triton_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    spec = make_spec(EXPERIMENTS["lr-range"].spec, "quick", {"kernel": "triton", **MLP})
    with pytest.raises(ConfigError, match="install triton, which comes with torch's CUDA builds; or leave out kernel"):
        choose_kernel(spec, [(spec, 2)], "cuda:0")
    with pytest.raises(ConfigError, match="or train all cells again, with kernel torch: this run began with the tri"):
        check_kernel(spec)


def test_what_only_looks_at_the_start_needs_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "why_not", lambda: pytest.fail("it was looked for"))
    assert planned("depth-sweep", init_only=True).spec.kernel == "torch"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], f"{NO_COMPILER}; or leave out kernel native"),
        (["--dtype", "bfloat16"], "leave out kernel native: the native kernel computes in float32"),
        (["--model", "decoder", "--variant", "pre-ln"], "leave out kernel native: it trains model mlp alone"),
    ],
)
def test_a_kernel_that_cannot_be_had_is_one_line_before_any_training(
    words: list[str], said: str, has: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    has(NO_COMPILER)
    assert run([*LINE, "--kernel", "native", *words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"stresstest: {said}")
    assert error.count("\n") == 1
    assert not Path(".stresstest/runs").exists()


def test_without_a_compiler_the_mlp_trains_by_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    build.kernel.cache_clear()
    try:
        assert run([*LINE, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["spec"]["kernel"] == "torch"
        assert run(["doctor"]) == 0
        assert "native kernel: none" in capsys.readouterr().out
    finally:
        build.kernel.cache_clear()


def test_a_run_goes_on_with_its_own_kernel(has: Any, capsys: pytest.CaptureFixture[str]) -> None:
    has(NO_COMPILER)
    assert run([*LINE, "--max-cells", "1"]) == 0
    has("")
    assert run([*LINE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["kernel"] == "torch"
    (folder,) = Path(".stresstest/runs").iterdir()
    assert len((folder / "cells.jsonl").read_text().splitlines()) == 2


def test_a_run_of_the_native_kernel_waits_for_it(has: Any, capsys: pytest.CaptureFixture[str]) -> None:
    has("")
    plan = planned(seeds=(0, 1), num_steps=20, hold_steps=20, theory=False)
    begun = {"command": "lr-range", "again": "", "identity": plan.identity, "code": plan.settings["code"]}
    Path(".stresstest/runs/1-lr-range").mkdir(parents=True)
    Path(".stresstest/runs/1-lr-range/manifest.json").write_text(json.dumps({**begun, "spec": {"kernel": "native"}}))
    has(NO_COMPILER)
    assert run(LINE) == 2
    assert capsys.readouterr().err == (
        f"stresstest: {NO_COMPILER}; or train all cells again, with kernel torch: this run began with the native one\n"
    )
    assert run([*LINE, "--kernel", "torch"]) == 0
    assert len(list(Path(".stresstest/runs").iterdir())) == 2


def test_a_node_without_the_kernel_of_the_run_refuses(has: Any) -> None:
    has("")
    native_spec = planned().spec
    has(NO_COMPILER)
    with pytest.raises(ConfigError, match=NO_COMPILER):
        check_kernel(native_spec)
    check_kernel(planned().spec)


@pytest.mark.parametrize(
    ("asked", "here", "theirs", "trained"),
    [
        ("auto", "", "torch", "torch"),
        ("auto", "", "native", "native"),
        ("auto", NO_COMPILER, "native", "torch"),
        ("native", "", "torch", "native"),
    ],
)
def test_a_check_takes_its_baselines_kernel_where_it_can(
    asked: str, here: str, theirs: str, trained: str, has: Any
) -> None:
    has(here)
    row = BaselineRow(variant="rezero", depth=2, optimizer="adam", metrics={})
    kept = BaselineExperiment(command="lr-range", settings="", data="", kernel=theirs, rows=[row])
    facts = dict.fromkeys(("scenario", "environment", "commit", "created", "reason"), "")
    baseline = Baseline(schema_=BASELINE_SCHEMA, **facts, experiments={"a": kept})
    named = ScenarioExperiment(name="a", command="lr-range", where="", given={}, profile=None)
    (plan,) = in_kernels_of(baseline, [named], [planned(kernel=asked)])
    assert plan.spec.kernel == trained
    assert kernel_words(plan) == (" --kernel torch" if trained == "torch" else "")


def test_a_report_names_the_kernel_that_is_not_torchs() -> None:
    facts: dict[str, Any] = {"command": "lr-range", "reproduce": "", "rules": {}, "data": {}}
    facts |= {"cells": [], "summary": [], "findings": [], "environment": {"device_name": "A CPU"}}
    shown = [
        machine_words(Result(schema_=RESULT_SCHEMA, spec={"dtype": "float32", **kernel}, **facts))
        for kernel in ({"kernel": "native"}, {"kernel": "torch"}, {})
    ]
    assert shown == ["A CPU, float32, native kernel", "A CPU, float32", "A CPU, float32"]
