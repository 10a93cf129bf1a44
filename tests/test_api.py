"""The package from Python: what it exports and how it is typed, and that its functions find what the commands do."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import stresstest
from stresstest import ConfigError, Result, StresstestError, api
from stresstest.cli.main import run as command_line
from stresstest.errors import ExitCode, InterruptedRunError
from stresstest.experiments.race.experiment import Race
from stresstest.experiments.table import EXPERIMENTS
from stresstest.scenario import library
from stresstest.scenario.reader import ScenarioExperiment
from stresstest.scenario.request import Request, SettingSources

ROOT = Path(stresstest.__file__).resolve().parents[1]
FUNCTIONS = {command: command.replace("-", "_") for command in EXPERIMENTS}
TINY: dict[str, Any] = {
    "depth": 1,
    "width": 16,
    "heads": 2,
    "seq_len": 16,
    "batch_size": 8,
    "num_steps": 60,
    "hold_steps": 40,
    "variant": ["pre-ln"],
    "device": "cpu",
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scenario(**more: object) -> str:
    """A scenario file of two tiny experiments."""
    experiments = {"one": {"command": "lr-range"}, "other": {"command": "lr-range", "num_steps": 64}}
    settings = TINY | {"seeds": 2}
    Path("tiny.yaml").write_text(json.dumps({"defaults": settings, "experiments": experiments, **more}))
    return "tiny.yaml"


def comparable(result: Result) -> dict[str, Any]:
    """All of a result but the line that gives it again, and the time that it took."""
    stored = result.model_dump(mode="json", exclude={"reproduce"})
    for cell in stored["cells"]:
        del cell["seconds"], cell["probe_seconds"]
    return stored


def comparables(results: dict[str, Result]) -> dict[str, dict[str, Any]]:
    return {name: comparable(result) for name, result in results.items()}


def build(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Embedding(256, width), nn.LayerNorm(width), nn.Linear(width, 256))


def test_the_root_lists_what_it_has_and_has_what_it_lists() -> None:
    assert dir(stresstest) == sorted({*stresstest.__all__, *FUNCTIONS.values()})
    assert {"run", "check", "papers", "compare", "load_result", "Result", "CheckVerdict"} < set(dir(stresstest))
    assert all(getattr(stresstest, name) is not None for name in dir(stresstest))
    assert stresstest.__version__[0].isdigit() or stresstest.__version__ == "unknown"
    assert not hasattr(stresstest, "lr_rnge")


def test_signatures_and_help_import_no_torch() -> None:
    code = (
        "import inspect, pydoc, sys, stresstest\n"
        "for name in dir(stresstest):\n"
        "    found = getattr(stresstest, name)\n"
        "    inspect.isfunction(found) and (inspect.signature(found), pydoc.render_doc(found))\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_naming_the_package_imports_nothing_of_it() -> None:
    code = "import stresstest, sys; print([name for name in sys.modules if name.startswith('stresstest.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", EXPERIMENTS)
def test_a_signature_has_every_setting_with_its_default_and_help_says_what_it_is(command: str) -> None:
    function = getattr(stresstest, FUNCTIONS[command])
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "model"
    assert {"args", "batch", "loss_fn", "baseline_loss", "profile", "run_dir", "quiet"} < parameters.keys()
    words = " ".join((function.__doc__ or "").split())
    for name, field in EXPERIMENTS[command].spec.model_fields.items():
        if name != "model":
            assert parameters[name].default == field.default
            assert parameters[name].annotation is not Any
            assert f"{name}: {field.description}" in words


@pytest.mark.parametrize("name", [*FUNCTIONS.values(), "run"])
def test_a_misspelt_keyword_is_an_error_that_names_the_right_one(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'sedes'; did you mean 'seeds'"):
        getattr(stresstest, name)("decoder", sedes=3)


class ToySweep(Race):
    """A race by another name."""

    name = "toy-sweep"


@pytest.fixture
def _toy() -> Iterator[None]:
    EXPERIMENTS.register(ToySweep())
    yield
    EXPERIMENTS.unregister("toy-sweep")


@pytest.mark.usefixtures("_toy")
def test_an_experiment_that_is_registered_later_is_a_function_too() -> None:
    assert "toy_sweep" in dir(stresstest)
    toy = stresstest.toy_sweep  # type: ignore[attr-defined]
    assert toy.__name__ == "toy_sweep"
    assert inspect.signature(toy).parameters["train_steps"].default == 400
    with pytest.raises(ConfigError, match="did you mean 'seeds'"):
        toy("decoder", sedes=3)


def test_an_experiment_that_does_not_exist_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown experiment 'depth-swep'; did you mean 'depth-sweep'"):
        api.experiment("depth-swep")


def generator() -> ModuleType:
    """The script that writes the types of the settings."""
    spec = importlib.util.spec_from_file_location("settings_types_script", ROOT / "scripts" / "settings_types.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_types_of_the_settings_are_those_of_the_specs() -> None:
    script = generator()
    assert script.FILE.read_text() == script.text(), "run python scripts/settings_types.py"


RIGHT = """\
from pathlib import Path

import stresstest
from stresstest.testing import assert_stable
from torch import nn, optim


def build(width: int = 8) -> nn.Module:
    return nn.Linear(width, width)


result = stresstest.lr_range(build, seeds=3, variant="as-built", optimizer=lambda params, lr: optim.SGD(params, lr=lr))
reveal_type(result)
reveal_type(stresstest.run("smoke", seeds=[0, 1], depth=2)["boundary"].cells[0].metrics["onset_lr"].low)
reveal_type(stresstest.check(Path("gate.yaml"), base="main").exit_code)
reveal_type(stresstest.papers("rezero-mlp")["rezero-mlp"][0].verdict)
stresstest.warmup("decoder", optimizer=["adam", "lion"], warmup_steps=(0, 10), trials=0, profile="full", args={"a": 1})
stresstest.batch_sweep("hf:config.json", tokens="500k", batch_sizes=[32, 64], run_dir=Path("runs"))
stresstest.depth_sweep("mlp", depths="10:1000:x10", measure=["outcome"], target_loss=None)
stresstest.race("decoder", loss_fn="model.py:loss", end_lr=1)
stresstest.compare(result, "other/result.json").lines
stresstest.load_result("runs", partial=True).plot().save("x.svg", dark=True)
reveal_type(result.curve(result.cells[0], "hold", lr=0.1).held_lr)
result.to_pandas("summary"), result.to_polars(), print(result.curves[0].loss.max())
assert_stable(build, lr=1e-3, seeds=range(3), batch_size=4)
"""
WRONG = """\
import stresstest
from stresstest.testing import assert_stable

stresstest.lr_range("decoder", sedes=3)
stresstest.lr_range("decoder", seeds=0.5)
stresstest.lr_range("decoder", norm="layernorm")
stresstest.warmup(3)
stresstest.run("smoke", widht=8)
stresstest.lr_rnge("decoder")
assert_stable("decoder", lr="high")
assert_stable("decoder", lr=0.1, num_lrs=3)
stresstest.race("decoder").celsl
stresstest.load_result("runs").to_pandas("sumary")
"""


# What torch has that no type here is made of; mypy would read it for twenty seconds.
UNREAD = """\
_decomp _dynamo _export _functorch _higher_order_ops _inductor _library _prims _prims_common _refs _subclasses ao
distributed export fx masked nested onnx package profiler quantization sparse testing utils
""".split()


def test_a_users_file_is_typed_strictly_and_what_is_wrong_in_it_is_found(tmp_path: Path) -> None:
    settings = f"[mypy]\n[mypy-{','.join(f'torch.{name}.*' for name in UNREAD)},sympy.*]\nfollow_imports = skip\n"
    for name, text in {"right.py": RIGHT, "wrong.py": WRONG, "mypy.ini": settings}.items():
        (tmp_path / name).write_text(text)
    line = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "right.py", "wrong.py"]
    environment = {"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
    lines = done.stdout.splitlines()
    revealed = [text.partition("Revealed type is ")[2].strip('"') for text in lines if "note: Revealed" in text]
    assert revealed == [
        "stresstest.results.records.Result",
        "float | None",
        "stresstest.errors.ExitCode",
        "Literal['seen'] | Literal['not seen'] | Literal['undecided']",
        "float | None",
    ]
    assert not [text for text in lines if text.startswith("right.py") and "error:" in text]
    wrong = {int(text.split(":")[1]) for text in lines if text.startswith("wrong.py") and "error:" in text}
    assert wrong == set(range(4, len(WRONG.splitlines()) + 1)), "each line of it"


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "stresstest" / "py.typed").is_file()


def test_a_function_finds_what_the_command_does_and_prints_nothing(capsys: Capture) -> None:
    found = stresstest.lr_range("decoder", seeds=range(2), quiet=True, **TINY)
    assert capsys.readouterr() == ("", "")
    words = [f"--{name.replace('_', '-')}={value[0] if name == 'variant' else value}" for name, value in TINY.items()]
    assert command_line(["lr-range", *words, "--seeds", "2", "--fresh", "-q", "--run-dir", "kept", "-j", "1"]) == 0
    assert comparable(found) == comparable(stresstest.load_result("kept"))


def test_a_scenario_runs_with_settings_on_top_and_is_kept_where_it_is_to_be(capsys: Capture) -> None:
    found = stresstest.run(scenario(), seeds=1, quiet=True, run_dir="kept")
    assert capsys.readouterr() == ("", "")
    assert list(found) == ["one", "other"]
    assert [len(result.cells) for result in found.values()] == [1, 1]
    assert found["other"].spec["num_steps"] == 64
    assert comparables(stresstest.load_results("kept")) == comparables(found)
    assert command_line(["run", "tiny.yaml", "--seeds", "1", "-q", "--fresh", "--run-dir", "again", "-j", "1"]) == 0
    assert comparables(stresstest.load_results("again")) == comparables(found)


def test_a_scenario_takes_no_setting_that_none_of_its_experiments_has() -> None:
    with pytest.raises(ConfigError, match=r"no experiment of tiny\.yaml has the setting --train-steps"):
        stresstest.run(scenario(), train_steps=100)
    with pytest.raises(ConfigError, match="smok"):
        stresstest.run("smok")


def test_a_check_returns_its_verdict() -> None:
    file = scenario(thresholds={"one.max_stable_lr": "med >= 1e-9", "other.max_stable_lr": "med >= 1e9"})
    verdict = stresstest.check(file, seeds=[0, 1], jobs=1, quiet=True)
    assert [limit.passed for limit in verdict.limits] == [True, False]
    assert (verdict.verdict, verdict.exit_code, verdict.mode) == ("regressed", 99, "limits")
    assert verdict.reproduce == "stresstest check tiny.yaml --seeds 0,1"
    with pytest.raises(ConfigError, match="give one"):
        stresstest.check(file, base="main", baseline="auto")


def test_the_papers_claims_are_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    says = {"says": "It trains.", "holds": "one.max_stable_lr{variant=pre-ln} > 0", "published": "yes"}
    profiles = {"cpu": {"defaults": {"seeds": 6}}, "full": {}}
    scenario(paper="Nobody 2020", claims=[says], profiles=profiles, experiments={"one": {"command": "lr-range"}})
    Path("tiny.yaml").rename(tmp_path / "papers" / "tiny.yaml")
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    found = stresstest.papers(device="cpu", quiet=True)
    assert [(name, one.verdict, one.seeds) for name, judged in found.items() for one in judged] == [("tiny", "seen", 6)]
    assert stresstest.papers("tiny", device="cpu", quiet=True) == found


def test_results_are_compared_whether_they_are_kept_or_not() -> None:
    kept = stresstest.lr_range("decoder", seeds=3, quiet=True, run_dir="kept", **TINY)
    other = stresstest.lr_range("decoder", seeds=3, quiet=True, **(TINY | {"num_steps": 50}))
    for base, head in ((kept, kept), ("kept", "kept/result.json")):
        verdicts = {line.metric: line.verdict for line in stresstest.compare(base, head).lines}
        assert verdicts["max_stable_lr"] == "identical"
    differ = stresstest.compare("kept", other)
    assert {line.verdict for line in differ.lines} == {"incomparable"}
    assert "num_steps" in differ.lines[0].reason


def test_a_result_is_read_from_its_run_and_a_scenarios_folder_says_what_it_holds() -> None:
    found = stresstest.run(scenario(), seeds=1, quiet=True, run_dir="kept")
    one = stresstest.load_result("kept/one")
    assert comparable(one) == comparable(found["one"])
    assert stresstest.load_result(Path("kept/one/result.json")) == one
    assert stresstest.load_results("kept/one") == stresstest.load_results("kept/one/result.json") == {"one": one}
    with pytest.raises(ConfigError, match="kept holds the runs of a scenario, one, other; name one of them"):
        stresstest.load_result("kept")
    with pytest.raises(ConfigError, match="no result at"):
        stresstest.load_result("kept/none")
    Path("kept/one/result.json").unlink()
    with pytest.raises(ConfigError, match="is incomplete and has no result yet; to go on: "):
        stresstest.load_result("kept/one")
    assert stresstest.load_result("kept/one", partial=True) == one
    assert "1 of 1 cells; not final" in str(stresstest.load_result("kept/one", partial=True))


def test_what_goes_with_an_object_is_no_setting_of_a_name_and_the_other_way_round() -> None:
    with pytest.raises(ConfigError, match="batch goes with a factory"):
        stresstest.lr_range("decoder", batch=lambda step, batch_size, generator: None)
    with pytest.raises(ConfigError, match="beside a factory give args"):
        stresstest.lr_range(build, set="width=8")
    with pytest.raises(ConfigError, match="model is int"):
        stresstest.lr_range(3)  # type: ignore[arg-type]


def test_a_cell_without_a_result_is_an_error_that_says_which() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = build(), 0

        def forward(self, x: object) -> object:
            self.calls += 1
            if self.calls > 120:
                raise ValueError("late")
            return self.inner(x)

    with pytest.raises(StresstestError, match=r"(?s)as-built seed 0 crashed: .*late"):
        stresstest.lr_range(Late, variant="as-built", seeds=1, seq_len=8, num_steps=200, quiet=True)


def test_the_line_goes_before_the_environment_the_file_and_the_project() -> None:
    given = SettingSources(
        line={"width": 8},
        environment={"width": 12, "depth": 3},
        project={"lr-range": {"width": 16, "depth": 4, "heads": 1, "seeds": [3], "profile": "full"}},
    )
    experiment = ScenarioExperiment("one", "lr-range", "standard", {"width": 20, "depth": 5, "heads": 2}, "x.yaml:1:1")
    assert given.of(experiment, "x.yaml") == {
        "width": (8, "command line"),
        "depth": (3, "environment"),
        "heads": (2, "x.yaml"),
        "profile": ("standard", "x.yaml"),
        "seeds": ("3,", "pyproject.toml"),
    }


def test_a_request_is_made_of_plain_data() -> None:
    given = {"width": (32, "environment"), "seeds": (2, "command line"), "profile": ("standard", "pyproject.toml")}
    request = Request.of("lr-range", given, {"quiet": True, "max_cells": 3, "shard": (1, 2)})
    assert (request.spec.width, request.spec.seeds, request.sources["width"]) == (32, (0, 1), "environment")
    assert (request.sources["lr_window"], request.sources["depth"]) == ("profile standard", "built in")
    assert (request.quiet, request.fresh, request.settings.max_cells) == (True, False, 3)
    assert request.reproduce == "stresstest lr-range --profile standard --width 32 --seeds 2"
    assert request.again == f"{request.reproduce} --shard 1/2"


def test_a_result_says_the_call_that_gives_it_again() -> None:
    result = stresstest.lr_range("decoder", seeds=1, **TINY)
    again = eval(result.reproduce, {"stresstest": stresstest})  # our own line
    assert comparable(again) == comparable(result)


def sgd(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def test_a_result_of_a_function_says_every_setting_of_its_call() -> None:
    tiny = {"variant": "as-built", "seq_len": 8, "batch_size": 4, "num_steps": 50, "hold_steps": 20, "device": "cpu"}
    result = stresstest.lr_range(build, args={"width": 4}, optimizer=sgd, seeds=1, quiet=True, run_dir="kept", **tiny)
    head, _, call = result.reproduce.partition("; ")
    assert head.startswith("import ")
    assert "args={'width': 4}, optimizer=" in call
    assert "run_dir" not in call
    found: dict[str, Any] = {}
    exec(f"{head}; again = {call}", found)  # our own line
    assert comparable(found["again"]) == comparable(result)
    manifest = json.loads(Path("kept/manifest.json").read_text())
    assert manifest["again"] == result.reproduce.removesuffix(")") + ", run_dir='kept')"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: stresstest.papers(3), r"a paper's name is int; give names, such as papers\('rezero-mlp'\)"),
        (lambda: stresstest.load_result(None), "path is NoneType; give a run directory or a result.json"),
        (lambda: stresstest.load_results(3), "path is int; give a run directory"),
        (lambda: stresstest.compare(3, "x"), "base is int; give a result, a run directory or a result.json"),
        (
            lambda: stresstest.lr_range(Path("m.py")),
            r"model is the path m\.py; write it as text .* 'FILE\.py:FUNCTION'",
        ),
        (lambda: stresstest.lr_range("decoder", run_dir=3), "run_dir is int; give a folder"),
        (lambda: stresstest.lr_range(build, args=3), "args is int; give the factory's arguments by name"),
        (lambda: stresstest.run(None), "scenario is NoneType; give a file, or the name of one"),
        (lambda: stresstest.run("smoke", jobs="x"), "jobs is str; give a number of processes"),
        (lambda: stresstest.run("smoke", jobs=-1, quiet=True), "jobs -1 is not a number of processes; give 1 to 4096"),
        (lambda: stresstest.check(3), "scenario is int; give a file, or the name of one"),
        (lambda: stresstest.experiment(3), "unknown experiment '3'; choose from lr-range"),
        (lambda: stresstest.diagnose(3), "a log is int; give a file, a folder or a pattern, or a list of them"),
    ],
)
def test_what_is_of_another_type_is_one_line_that_says_what_to_give(call: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_call_that_is_interrupted_says_how_to_keep_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise InterruptedRunError("interrupted; 1 of 2 cells are saved", ExitCode.INTERRUPTED)

    monkeypatch.setattr(api, "train_experiment", interrupted)
    with pytest.raises(InterruptedRunError, match="no cell is kept: give run_dir=FOLDER"):
        stresstest.lr_range("decoder", quiet=True, **TINY)
    with pytest.raises(InterruptedRunError, match="1 of 2 cells are saved"):
        stresstest.lr_range("decoder", quiet=True, run_dir="kept", **TINY)
