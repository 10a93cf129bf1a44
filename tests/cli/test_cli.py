"""The command line: what it prints, where, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import rich_click as click
import torch
from torch import Tensor

from stresstest.cli.commands import cli
from stresstest.cli.main import main, run
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Readings
from stresstest.experiments.table import EXPERIMENTS
from stresstest.models.variants import NORMS, PARAMETRIZATIONS, VARIANTS
from stresstest.registry import Registry
from stresstest.results.metrics import METRICS
from stresstest.scenario.schema import scenario_schema
from stresstest.tasks.task import Batch

SHAPE = "--depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 2 --num-steps 20 --hold-steps 20 --device cpu".split()
TINY = ["lr-range", *SHAPE, "--seeds", "1", "--variant", "pre-ln", "-j", "1"]
SIGNALLED = [
    "lr-range",
    *SHAPE,
    "--seeds",
    "3",
    "--variant",
    "pre-ln,post-ln,rezero,normformer",
    "--end-lr",
    "9.87654321",
]
Capture = pytest.CaptureFixture[str]


def start(args: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    """Run the tool as a process, in an environment that holds what `os.environ` says and no more."""
    command = [sys.executable, "-m", "stresstest", *args]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(os.environ),
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STRESSTEST_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory with one finished run, and what the run printed."""
    path = tmp_path_factory.mktemp("finished")
    with start(TINY, path) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert re.fullmatch(r"\[1/1\] pre-ln depth 1 seed 0: .*\n", err)
    return path, out


def without_seconds(text: str) -> Any:
    result = json.loads(text)
    for cell in result["cells"]:
        del cell["seconds"], cell["probe_seconds"]
    return result


def refuse_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Population, batch_RBT1: Tensor, lr_R: Tensor) -> Readings:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(Population, "step", step)


HEAVY = ("torch", "numpy", "scipy", "pydantic", "optuna", "pebble", "jinja2", "yaml", "multiprocessing")


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("--help", []),
        ("list", []),
        ("show adam", []),
        ("status", []),
        ("check --help", []),
        ("unheard-of", []),
        ("lr-range --help", ["pydantic"]),
        ("run --help", ["pydantic"]),
        ("report", ["pydantic"]),
    ],
)
def test_a_line_imports_only_what_it_needs(
    line: str, needed: list[str], finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished[0])
    program = (
        "import json, shlex, sys; from stresstest.cli.main import run; run(shlex.split(sys.argv[1])); "
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, line], capture_output=True, text=True)
    imported = json.loads(done.stderr.splitlines()[-1])
    assert [name for name in HEAVY if name in imported and name not in needed] == []


def test_what_reads_logs_waits_for_no_settings_of_experiments(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n" + "".join(f"{i},{9 - i / 5}\n" for i in range(40)))
    program = (
        "import sys; from stresstest.cli.main import run; code = int(run(['diagnose', sys.argv[1]])); "
        "print(code, [name for name in sys.modules if name.startswith(('stresstest.experiments', 'jinja2', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(log)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_the_help_of_all_commands_makes_the_options_of_none(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stresstest.cli.training.experiment_command", lambda experiment: pytest.fail(experiment))
    assert run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert [name for name in EXPERIMENTS if name not in text] == []
    assert "Ramp the learning rate every step" in text


def test_what_is_listed_of_the_commands_that_train_is_what_they_say_themselves() -> None:
    context = click.Context(cli)
    completed = {item.value: item.help for item in cli.shell_complete(context, "")}
    assert list(completed) == cli.list_commands(context)
    for name in completed:
        command = cli.get_command(context, name)
        assert command is not None
        assert completed[name] == command.get_short_help_str(), name
        assert len(command.params) > 50 or name not in (*EXPERIMENTS, "run")


BAD = [
    (["--variant", "pre-lm"], ["unknown variant 'pre-lm'", "did you mean 'pre-ln'?"]),
    (["--optimizer", "adan"], ["unknown optimizer 'adan'", "did you mean 'adam'?"]),
    (["--optimizer", "adam:beta3=0.9"], ["unknown option 'beta3' of optimizer adam", "did you mean 'beta"]),
    (["--optimizer", "adam:beta1=high"], ["option 'beta1' of optimizer adam is 'high'", "use a number"]),
    (["--variant", "rezero:alfa=1"], ["unknown option 'alfa' of variant rezero", "did you mean 'alpha'?"]),
    (["--variant", "pre-ln:alpha=1"], ["unknown option 'alpha' of variant pre-ln", "it has none"]),
    (["--variant", "normformer:res_scale=2"], ["'res_scale' of variant normformer is '2'", "use true or false"]),
    (["--data", "path:missing.txt"], ["'missing.txt' does not exist", "--data path:FILE"]),
    (["--data", "path:empty.txt"], ["'path:empty.txt' has 0 bytes", "at least 90"]),
    (["--data", "path:short.txt"], ["'path:short.txt' has 80 bytes", "sequences of 8", "at least 90"]),
    (["--data", "path:."], ["'.'", "--data path:FILE"]),
    (["--data", "enwiki"], ["unknown data source 'enwiki'", "did you mean 'enwik8'"]),
    (["--data", "enwik8"], ["'' does not exist", "--data enwik8:FILE"]),
    (["--width", "10", "--heads", "4"], ["width 10 is not divisible by heads 4", "use heads"]),
    (["--width", "999999999989"], ["width 999999999989 is not divisible by", "use heads 1, or width 999999999988"]),
    (["--batch-size", "999999999989", "--accumulate", "3"], ["use 1, or a batch of 999999999990"]),
    (["--num-steps", "999999999989"], ["num_steps 999999999989", "less than or equal to 10000000"]),
    (["--start-lr", "10", "--end-lr", "10"], ["start_lr 10 is not below end_lr 10"]),
    (["--start-lr", "0"], ["an exponential ramp cannot start at 0", "linear"]),
    (["--start-lr", "nan"], ["start_lr nan"]),
    (["--end-lr", "inf"], ["end_lr inf"]),
    (["--seeds", "0"], ["seeds '0'", "at least one seed is needed"]),
    (["--seeds", ","], ["seeds ','", "at least one seed is needed"]),
    (["--seeds", "1,2,1"], ["stresstest: seeds 1,2,1 contain duplicates; give each seed once"]),
    (["--seeds", "7,4294967296"], ["stresstest: seeds 7,4294967296 must lie between 0 and 2^32 - 1"]),
    (["--seeds", "-3"], ["seeds '-3'"]),
    (["--seeds", "0,-3"], ["seeds 0,-3 must lie between 0 and"]),
    (["--seeds", "many"], ["seeds 'many'", "a list such as 0,3,7"]),
    (["--run-dir", "occupied"], ["run directory occupied cannot be written", "--run-dir"]),
    (["--run-dir", "occupied/run"], ["run directory occupied/run cannot be written", "--run-dir"]),
    (["--device", "cuda"], ["device 'cuda' not found", "use --device cpu"]),
    (["--device", "tpu"], ["unknown device 'tpu'", "use auto, cpu, cuda"]),
    (["--dtype", "int8"], ["'int8'", "float32"]),
    (["-o", "docx:report.docx"], ["unknown format of output 'docx:report.docx'", "csv, html, json, md"]),
    (["-o", "csv:tables.csv"], ["csv writes a folder of files; name one: csv:tables"]),
    (["--log", "wandbe"], ["unknown tracker 'wandbe'", "did you mean 'wandb'?"]),
    (["-o", "report"], ["unknown format of output 'report'", "html, json, md"]),
    (["-o", "nowhere/report.html"], ["nowhere/report.html cannot be written"]),
    (["--profile", "slow"], ["'slow'", "quick"]),
    (["--depth", "deep"], ["--depth", "'deep'"]),
    (["--depth", "0"], ["depth 0", "1"]),
    (["--clip-norm", "0"], ["clip_norm 0"]),
    (["-j", "0"], ["--jobs", "0"]),
    (["-j", "9999999999999999999999"], ["--jobs", "1 to 4096"]),
    (["--dept", "3"], ["--dept", "--depth"]),
    (["extra"], ["extra"]),
]


@pytest.mark.parametrize(("args", "named"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input_is_one_line_that_names_the_value_before_any_training(
    args: list[str], named: list[str], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse_training(monkeypatch)
    for name, content in {"empty.txt": "", "short.txt": "0123456789" * 8, "occupied": "mine"}.items():
        (project / name).write_text(content)
    before = sorted(project.rglob("*"))
    assert run([*TINY, *args]) == 2
    refused(capsys, named)
    assert sorted(project.rglob("*")) == before, "no run directory was made"


def refused(capsys: Capture, named: Sequence[str]) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stresstest: ")
    assert len(err.splitlines()) == 1
    for part in named:
        assert part in err


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("[tool.stresstest]\ndept = 3", ["unknown setting 'dept'", "did you mean 'depth'?"]),
        ("[tool.stresstest.lr-range]\ndept = 3", ["unknown setting 'dept'", "did you mean 'depth'?"]),
        ("[tool.stresstest.lr-rang]\ndepth = 3", ["lr-rang", "lr-range"]),
        ("[tool.stresstest]\nclip_norm = 'high'", ["clip-norm", "'high'"]),
        ("[tool.stresstest]\nprofile = 'slow'", ["profile", "'slow'"]),
        ("[tool]\nstresstest = 3", ["pyproject.toml", "stresstest"]),
        ("[tool.stresstest", ["pyproject.toml cannot be read", "Expected ']'"]),
        (f"[tool.stresstest]\nwidth = {'[' * 5000}", ["pyproject.toml cannot be read", "nested too deeply"]),
    ],
)
def test_bad_project_settings_are_one_line(toml: str, named: list[str], project: Path, capsys: Capture) -> None:
    (project / "pyproject.toml").write_text(toml)
    assert run([*TINY, "--dry-run"]) == 2
    refused(capsys, named)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["report"], ["no run under", "stresstest lr-range"]),
        (["status"], ["no run under", "stresstest lr-range"]),
        (["status", "."], [". is not a run directory"]),
        (["merge", "."], [". is not a run directory"]),
        (["report", "missing"], ["no result at missing"]),
        (["report", "."], ["no result at result.json"]),
        (["report", "truncated.json"], ["truncated.json is not a readable result", "the file was not changed"]),
        (["report", "foreign.json"], ["foreign.json has schema 'other/1'", "stresstest.result/1"]),
        (["report", "truncated.json", "-o", "x.docx"], ["unknown format of output 'x.docx'"]),
        (["list", "variant"], ["unknown kind 'variant'", "did you mean 'variants'?"]),
        (["show", "rezerro"], ["unknown name 'rezerro'", "did you mean 'rezero'?"]),
        (["completion", "tcsh"], ["'tcsh'", "bash"]),
        (["lr-rang"], ["'lr-rang'", "lr-range"]),
        (["warmup", "--trials", "999999999989"], ["trials 999999999989", "less than or equal to 10000"]),
        (["race", "--train-steps", "999999999989"], ["train_steps 999999999989", "less than or equal to 10000000"]),
        (["shock", "--shock", "abc"], ["stresstest: unknown shock 'abc'; choose from lr-pulse"]),
        (["shock", "--after", "999999999989"], ["after 999999999989", "less than or equal to 10000000"]),
        (["depth-sweep", "--train-steps", "999999999989"], ["train_steps 999999999989", "less than or equal to"]),
    ],
)
def test_other_commands_refuse_bad_input_in_one_line(
    args: list[str], named: list[str], project: Path, capsys: Capture
) -> None:
    files = {"truncated.json": '{"schema": "stresstest.result/1", "spec": {', "foreign.json": '{"schema": "other/1"}'}
    for name, content in files.items():
        (project / name).write_text(content)
    assert run(args) == 2
    refused(capsys, named)
    assert {path.name: path.read_text() for path in project.iterdir()} == files


def test_a_finished_run_is_printed_again_and_nothing_is_trained(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path, printed = finished
    monkeypatch.chdir(path)
    refuse_training(monkeypatch)
    [stored] = Path(".stresstest/runs").iterdir()
    assert {"manifest.json", "cells.jsonl", "curves", "result.json", "report.html"} <= {
        p.name for p in stored.iterdir()
    }
    assert len(list((stored / "curves").iterdir())) == 1
    assert run(TINY) == 0
    again = capsys.readouterr()
    assert again.out == printed
    assert "1 of 1 cells were already finished" in again.err
    for args in (["report"], ["report", str(stored)], ["report", str(stored / "result.json")]):
        assert run(args) == 0
        assert capsys.readouterr() == (printed, "")
    assert [*Path(".stresstest/runs").iterdir()] == [stored]


@pytest.mark.parametrize("args", [[*TINY, "-q"], ["report"]], ids=["lr-range", "report"])
def test_json_is_alone_on_stdout_and_outputs_are_written(
    args: list[str], finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(finished[0])
    outputs = [f"md:{tmp_path / 'notes.txt'}", str(tmp_path / "page.html"), str(tmp_path / "copy.json")]
    assert run([*args, "--json", *(word for output in outputs for word in ("-o", output))]) == 0
    out, err = capsys.readouterr()
    assert (err, json.loads(out)["schema"]) == ("", "stresstest.result/1")
    assert (
        (tmp_path / "copy.json").read_text() == out == next(Path(".stresstest/runs").glob("*/result.json")).read_text()
    )
    assert (tmp_path / "notes.txt").read_text().startswith("### Learning-rate range test")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def settings_of(out: str) -> dict[str, tuple[str, str]]:
    """value and origin of each setting that --dry-run prints."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def test_a_complaint_says_where_the_setting_is_that_is_not_on_the_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (project / "pyproject.toml").write_text("[tool.stresstest]\nwidth = 3\nseeds = 2\n")
    monkeypatch.setenv("STRESSTEST_HEADS", "2")
    assert run(["lr-range", "--dry-run"]) == 2
    refused(capsys, ["(heads is set in the environment, width is set in pyproject.toml)"])
    assert run(["lr-range", "--dry-run", "--heads", "5"]) == 2
    refused(capsys, ["(width is set in pyproject.toml)"])
    assert run(["lr-range", "--dry-run", "--width", "5"]) == 2
    refused(capsys, ["(heads is set in the environment)"])
    monkeypatch.delenv("STRESSTEST_HEADS")
    assert run(["lr-range", "--dry-run", "--width", "5"]) == 2
    refused(capsys, ["width 5 is not divisible by heads 4; use heads 5, or width 4\n"])


def test_the_command_line_wins_over_the_environment_over_the_project_over_the_profile(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    toml = (
        '[tool.stresstest]\ndepth = 3\nwidth = 32\nheads = 8\nseq-len = 16\nvariant = "pre-ln,rezero"\nseeds = [0, 4]\n'
    )
    (project / "pyproject.toml").write_text(toml + "[tool.stresstest.lr-range]\nheads = 2\nprofile = 'standard'\n")
    for name, value in {"DEPTH": "4", "WIDTH": "48", "TIED": "true"}.items():
        monkeypatch.setenv(f"STRESSTEST_{name}", value)
    assert run(["lr-range", "--depth", "5", "--dry-run"]) == 0
    out = capsys.readouterr().out
    found = settings_of(out)
    names = ("depth", "width", "tied", "heads", "seq_len", "variant", "seeds")
    assert [found[name][0] for name in names] == ["5", "48", "True", "2", "16", "pre-ln,rezero", "0,4"]
    assert found["depth"][1].startswith("command")
    assert found["width"][1] == found["tied"][1] == "environment"
    assert found["heads"][1] == found["seq_len"][1] == found["variant"][1] != "environment"
    assert found["hold_resolution"] == ("quarter-octave", "profile standard")
    assert found["norm"] == ("layer-norm", "built in")
    assert "4 cells" in out
    assert "nothing was trained" in out
    assert not (project / ".stresstest").exists()


def test_off_undoes_the_number_of_a_place_that_counts_less(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (project / "pyproject.toml").write_text("[tool.stresstest]\nclip-norm = 1.5\nffn-width = 128\nvocab-size = 'off'\n")
    monkeypatch.setenv("STRESSTEST_FFN_WIDTH", "off")
    assert run(["lr-range", "--dry-run"]) == 0
    found = settings_of(capsys.readouterr().out)
    assert [found[name] for name in ("clip_norm", "ffn_width", "vocab_size")] == [
        ("1.5", "pyproject.toml"),
        ("off", "environment"),
        ("off", "pyproject.toml"),
    ]
    (project / "off.yaml").write_text("experiments: {a: {command: lr-range, clip_norm: off}}\n")
    jsonschema.validate({"experiments": {"a": {"command": "lr-range", "clip_norm": "off"}}}, scenario_schema())
    for args in (
        ["run", "off.yaml"],
        ["lr-range", "--clip-norm", "off"],
        ["shock", "--peak-lr", "off", "--clip-norm=off"],
    ):
        assert run([*args, "--dry-run"]) == 0
        assert settings_of(capsys.readouterr().out)["clip_norm"][0] == "off"
    (project / "pyproject.toml").write_text("[tool.stresstest]\nguard = 'beta2'\n")
    assert run(["shock", "--guard", "off", "--cell-timeout", "off", "--max-cells", "off", "--dry-run"]) == 0
    assert "guard" not in settings_of(capsys.readouterr().out), "it is empty"
    for name in ("set", "batch-fn", "loss-fn", "optimizer-fn", "step-fn", "from-weights"):
        assert run(["lr-range", f"--{name}", "off", "--dry-run"]) == 0
        capsys.readouterr()
    for args, message in (
        (["lr-range", "--clip-norm", "of"], "'--clip-norm': 'of' is not a valid float"),
        (["lr-range", "--ffn-width", "1.5"], "'--ffn-width': '1.5' is not a valid integer"),
        (["lr-range", "--depth", "off"], "'--depth': 'off' is not a valid integer"),
    ):
        assert run(args) == 2
        refused(capsys, [message])


def test_the_printed_command_gives_the_same_settings_without_environment_and_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (project / "pyproject.toml").write_text("[tool.stresstest]\nend_lr = 3.14159265\nqk-norm = true\n")
    with monkeypatch.context() as patch:
        patch.setenv("STRESSTEST_OPTIMIZER", "adam:beta2=0.9999999")
        assert run([*TINY, "--json", "-q"]) == 0
    first = json.loads(capsys.readouterr().out)
    (project / "pyproject.toml").unlink()
    assert run([*shlex.split(first["reproduce"])[1:], "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(list(project.glob(".stresstest/runs/*"))) == 1, "the same settings resume the same run"


@pytest.mark.parametrize(("jobs", "number", "code"), [("2", signal.SIGINT, 130), ("1", signal.SIGTERM, 143)])
def test_a_signal_saves_the_finished_cells_and_the_command_it_prints_goes_on(
    jobs: str, number: signal.Signals, code: int, project: Path, capsys: Capture
) -> None:
    args = [*SIGNALLED, "--run-dir", "my run", "-j", jobs]
    with start(args, project) as process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith("[1/"))
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        rest = [line for line in process.stderr if not line.startswith("[")]
    saved = len((project / "my run" / "cells.jsonl").read_text().splitlines())
    assert process.returncode == code
    stopping, interrupted = rest
    assert stopping.startswith("stopping: ")
    assert interrupted.startswith(f"stresstest: interrupted; {saved} of 12 cells are saved in my run; to go on: ")
    assert 1 <= saved < 12
    assert run([*shlex.split(interrupted.partition("to go on: ")[2])[1:], "-j", "1"]) == 0
    assert f"{saved} of 12 cells were already finished; training the rest" in capsys.readouterr().err
    if number == signal.SIGINT:
        assert run([*SIGNALLED, "-j", "1", "--run-dir", "undisturbed"]) == 0
        one, other = ((project / name / "result.json").read_text() for name in ("my run", "undisturbed"))
        assert without_seconds(one) == without_seconds(other)


def test_ctrl_z_stops_the_workers_too_and_fg_lets_them_go_on(project: Path) -> None:
    with start([*SIGNALLED, "--run-dir", "my run", "-j", "2"], project) as process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith("[1/"))
        process.send_signal(signal.SIGTSTP)
        states = wait_for(lambda: states_of(process.pid), lambda seen: len(seen) >= 3 and set(seen) == {"T"})
        assert set(states) == {"T"}
        process.send_signal(signal.SIGCONT)
        process.stderr.read()
    assert process.returncode in (0, 1)
    assert len((project / "my run" / "cells.jsonl").read_text().splitlines()) == 12


def states_of(driver: int) -> list[str]:
    """Of a driver and the processes that it has started, but for multiprocessing's own: R, S, T for stopped, ..."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_text()
        except OSError:
            continue
        if folder.name == str(driver) or (fields[1] == str(driver) and "resource_tracker" not in words):
            found.append(fields[0])
    return found


def wait_for(look: Callable[[], list[str]], until: Callable[[list[str]], bool]) -> list[str]:
    """What is seen once it is as it should be, or after half a minute."""
    for _ in range(300):
        if until(seen := look()):
            break
        time.sleep(0.1)
    return seen


def test_a_cell_that_does_not_fit_ends_with_4_and_the_others_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    step = Population.step

    def too_large(self: Population, batch: Batch, lr_R: Tensor) -> Readings:
        if self.model.variant.name == "post-ln":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, batch, lr_R)

    monkeypatch.setattr(Population, "step", too_large)
    assert run([*TINY, "--variant", "post-ln"]) == 4
    out, err = capsys.readouterr()
    assert "post-ln depth 1 seed 0: oom (CUDA out of memory)" in err
    assert re.search(r"^x oom: post-ln depth 1 seed 0 .*\n?.*stability", out, re.MULTILINE)
    assert re.search(r"^ *pre-ln ", out, re.MULTILINE)
    assert not re.search(r"^  post-ln ", out, re.MULTILINE), "it is no row: it says nothing about stability"


TABLES: dict[str, Registry[Any]] = {
    "variants": VARIANTS,
    "norms": NORMS,
    "parametrizations": PARAMETRIZATIONS,
    "optimizers": OPTIMIZERS,
    "metrics": METRICS,
}


@pytest.mark.parametrize("kind", [None, *TABLES])
def test_list_names_every_entry_and_nothing_else(kind: str | None, capsys: Capture) -> None:
    assert run(["list", *([kind] if kind else [])]) == 0
    first_words = {line.split()[0] for line in capsys.readouterr().out.splitlines() if re.match(r"\S", line)}
    for name, table in TABLES.items():
        assert (set(table) <= first_words) == (kind in (None, name))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rezero", ["variants", "Bachlechner", "option: rezero:alpha=0"]),
        ("adam", ["optimizers", "Kingma", "adam:beta1=0.9", "adam:eps=1e-08"]),
        ("max_stable_lr", ["metrics", "constant LR"]),
        ("path", ["path:book.txt"]),
    ],
)
def test_show_says_what_is_known_of_an_entry(name: str, said: list[str], capsys: Capture) -> None:
    assert run(["show", name]) == 0
    out = capsys.readouterr().out
    assert all(part in out for part in [name, *said])


def test_doctor_finds_this_machine_healthy(capsys: Capture) -> None:
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 5
    assert all(line.startswith("ok ") for line in lines)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str, capsys: Capture) -> None:
    assert run(["completion", shell]) == 0
    assert f"_STRESSTEST_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_no_arguments_show_the_help(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["stresstest"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    out = capsys.readouterr().out
    assert all(name in out for name in cli.commands)


@pytest.mark.parametrize("stays", ["threading.Thread(target=stay)", "multiprocessing.Process(target=stay)"])
def test_what_the_models_code_leaves_running_is_not_waited_for(stays: str) -> None:
    code = f"""
import multiprocessing, threading, time
from stresstest.cli import main

def stay():
    time.sleep(3600)

if __name__ == "__main__":
    main.PATIENCE_SECONDS = 0.1
    multiprocessing.set_start_method("fork")
    {stays}.start()
    main.leave(4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert done.stderr.startswith("stresstest: not waiting for what the model's code left running: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_enough_is_no_error(project: Path) -> None:
    process = start(["show", "smoke"], project)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
