"""`stresstest check` in a repository made for it: what each kind of change comes to, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from junitparser import JUnitXml

from stresstest.cli.main import run
from stresstest.gate.equality import why_incomparable
from stresstest.results.records import RESULT_SCHEMA, Result
from stresstest.user_model import factory as own
from stresstest.user_model import user_file

MODEL = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


def build(depth=4, width=16):
    blocks = [Block(width) for _ in range(depth)]
    return nn.Sequential(nn.Embedding(16, width), *blocks, nn.Linear(width, 16))


def batch(step, batch_size, generator):
    x = torch.randint(0, 16, (batch_size, 8), generator=generator)
    return x, x
"""
NO_NORM = MODEL.replace("self.norm(x)", "30 * x")
LARGE_INIT = MODEL.replace(
    "    return nn.Sequential", "    blocks[0].down.weight.data *= 300\n    return nn.Sequential"
)
# Copied bytes and plain SGD: an LR trains at once or breaks at once, which few batches tell.
GATE = """\
defaults:
  {model: "model.py:build", optimizer: sgd, seeds: 7, num_steps: 30, hold_steps: 30, theory: false, probes: "off"}
experiments:
  boundary: {command: lr-range, depth: 1, hold_resolution: quarter-octave}
thresholds:
  max_stable_lr: [med vs base >= -0.5oct, {expr: med >= 5, level: warn}]
  final_loss: {expr: med vs base <= 50%, level: warn}
"""


def check(*words: str, jobs: int = 1) -> int:
    """The command as a process of its own would run it: with the model as it is now.

    With one job, as each worker process would import torch again.
    """
    for name in [name for name in sys.modules if name.startswith("stresstest_user_")]:
        del sys.modules[name]
    user_file._imported.cache_clear()
    own._load.cache_clear()
    return run(["check", "gate.yaml", "-q", "-j", str(jobs), *words])


def git(*words: str, at: Path | None = None) -> str:
    """In a repository of the tests: in this project's own it would undo what is not committed."""
    at = at or Path.cwd()
    assert not at.resolve().is_relative_to(PROJECT), at
    done = subprocess.run(["git", *words], cwd=at, check=True, capture_output=True, text=True)
    return done.stdout


def commit(branch: str, since: str, **files: str) -> None:
    """A commit on a branch of its own, with the working tree at it."""
    git("checkout", "-q", "-B", branch, since)
    for name, text in files.items():
        Path(name.replace("_py", ".py").replace("_yaml", ".yaml").replace("_toml", ".toml")).write_text(text)
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", branch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository whose main has a pre-norm model and a gate; what one test trained, the next finds cached."""
    before, path = Path.cwd(), tmp_path_factory.mktemp(f"repository-{os.getpid()}")
    os.chdir(path)
    git("init", "-q", "-b", "main", ".")
    git("config", "user.email", "somebody@example.org")
    git("config", "user.name", "Somebody")
    Path("model.py").write_text(MODEL)
    Path("gate.yaml").write_text(GATE)
    git("add", "-A")
    git("commit", "-q", "-m", "main")
    yield path
    os.chdir(before)


@pytest.fixture
def repository(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, clean; afterwards no worktree is left."""
    monkeypatch.chdir(made)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    git("checkout", "-q", "-f", "main", at=made)
    yield made
    assert len(git("worktree", "list", at=made).splitlines()) == 1
    assert not list(Path(tempfile.gettempdir()).glob(f"stresstest-base-*/{made.name}"))
    git("checkout", "-q", "-f", "main", at=made)


def verdict() -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(".stresstest/checks/gate.verdict.json").read_text())
    return found


def lines() -> dict[str, str]:
    """The verdict of each metric."""
    return {line["metric"]: line["verdict"] for line in verdict()["lines"]}  # type: ignore[attr-defined]  # a list of lines


BASE = ["--base", "main"]
PROJECT = Path(__file__).resolve().parents[2]


def test_a_comment_is_identical_and_nothing_is_trained_twice(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit("comment", "main", model_py="# Only a comment.\n" + MODEL)
    assert check(*BASE, "-o", "junit:found.xml") == 0
    assert set(lines().values()) == {"identical"}
    head, base = verdict()["head"], verdict()["base"]
    assert isinstance(head, dict)
    assert isinstance(base, dict)
    assert (head["cells"], head["trained"], base["trained"]) == (7, 0, 7)
    assert "IDENTICAL" in capsys.readouterr().out
    (suite,) = JUnitXml.fromfile("found.xml")
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 0, 0, 1)  # the limit at level warn
    Path("found.xml").unlink()


def test_code_beside_the_model_is_trained_anew_and_identical(repository: Path) -> None:
    commit("beside", "main", other_py="print('hello')\n")
    assert check(*BASE) == 0
    assert set(lines().values()) == {"identical"}
    head, base = verdict()["head"], verdict()["base"]
    assert isinstance(head, dict)
    assert isinstance(base, dict)
    assert (head["trained"], base["trained"]) == (7, 0)


def test_both_sides_have_the_settings_of_the_head(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the base's pyproject.toml says, and the environment, which each side would read again."""
    commit("clipped", "main", pyproject_toml="[tool.stresstest]\nclip_norm = 0.001\n")
    git("checkout", "-q", "-B", "free", "clipped")
    git("rm", "-q", "pyproject.toml")
    git("commit", "-q", "-m", "free")
    monkeypatch.setenv("STRESSTEST_SEEDS", "8")
    assert check("--base", "clipped") == 0
    assert set(lines().values()) == {"identical"}
    assert verdict()["seeds"] == 8
    monkeypatch.delenv("STRESSTEST_SEEDS")


def test_a_change_that_breaks_it_has_regressed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit("large-init", "main", model_py=LARGE_INIT)
    assert check(*BASE) == 99
    assert lines()["max_stable_lr"] == "regressed"
    assert "regressed, exit 99: a gate was crossed: boundary.max_stable_lr" in capsys.readouterr().out


def test_what_is_not_committed_is_checked_too(repository: Path) -> None:
    Path("model.py").write_text(NO_NORM)
    index = git("status", "--porcelain")
    assert check(*BASE) == 99
    assert lines()["max_stable_lr"] == "regressed"
    head = verdict()["head"]
    assert isinstance(head, dict)
    assert head["commit"].endswith("+")
    assert git("status", "--porcelain") == index


def test_a_base_that_cannot_run_it_is_no_baseline_and_a_warning_if_lenient(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit("before", "main", model_py="def older():\n    pass\n")
    commit("since", "before", model_py=MODEL)
    assert check("--base", "before", "--lenient") == 0
    assert set(lines().values()) == {"no-baseline"}
    said = " ".join(capsys.readouterr().out.split())
    assert "the base cannot run it: " in said
    assert "function 'build' not found" in said
    assert "no-baseline, exit 0" in said


def test_other_data_are_incomparable(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit("other-data", "main", model_py=MODEL.replace("return x, x", "return x, (x + 1) % 16"))
    assert check(*BASE) == 3
    assert set(lines().values()) == {"incomparable"}
    assert "the data differ" in capsys.readouterr().out


def test_results_of_two_machines_or_kernels_are_incomparable() -> None:
    here, there, native, older = (
        Result(
            schema_=RESULT_SCHEMA,
            command="lr-range",
            reproduce="",
            cells=[],
            summary=[],
            findings=[],
            environment={"key": key},
            data={"hash": "abc"},
            spec=spec,
            rules={},
        )
        for key, spec in (
            ("torch2.13/cpu", {"kernel": "torch"}),
            ("torch2.14/cpu", {"kernel": "torch"}),
            ("torch2.13/cpu", {"kernel": "native"}),
            ("torch2.13/cpu", {}),
        )
    )
    assert why_incomparable(here, there) == "the environments differ: torch2.14/cpu and torch2.13/cpu"
    assert why_incomparable(native, here) == "the kernels differ: torch and native; train both with --kernel torch"
    assert why_incomparable(here, here) == ""
    assert why_incomparable(here, older) == ""


def test_a_package_in_src_is_found_on_both_sides_and_a_change_that_mends_it_has_improved(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "src"))  # as an editable installation has it
    monkeypatch.setenv("PYTHONPATH", str(repository / "src"))
    Path("src/pkg").mkdir(parents=True)
    Path("src/pkg/models.py").write_text(LARGE_INIT)
    gate = GATE.replace("model.py:build", "pkg.models:build") + "gate: {max_seeds: 7}\n"
    commit("package", "main", gate_yaml=gate)
    Path("src/pkg/models.py").write_text(MODEL)
    commit("mended-package", "package")
    assert check("--base", "package") == 0
    assert lines()["max_stable_lr"] == "improved"


def test_a_base_that_imports_the_heads_code_gives_no_verdict(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an editable installation would make it."""
    Path("lib").mkdir()
    Path("lib/norms.py").write_text("from torch.nn import LayerNorm\n")
    ours = f"import sys\nsys.path.insert(0, {str(repository / 'lib')!r})\nimport norms\n"
    commit("installed", "main", model_py=ours + MODEL)
    commit("onwards", "installed", model_py=ours + NO_NORM)
    assert check("--base", "installed", jobs=2) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert f"module norms was imported from the other side's tree ({repository / 'lib' / 'norms.py'})" in said


def test_a_model_that_raises_is_no_regression(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit("raises", "main", model_py=MODEL.replace("return x +", "raise ValueError('oh')\n        return x +"))
    assert check(*BASE) == 4
    assert verdict()["verdict"] == "errored"
    assert "raised ValueError: oh (model.py:" in " ".join(capsys.readouterr().out.split())


def test_limits_alone_need_no_base(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_seed = GATE.replace("seeds: 7", "seeds: 1")
    Path("gate.yaml").write_text(one_seed.replace("level: warn", "level: error", 1))
    assert check() == 99
    assert "med >= 5" in capsys.readouterr().out
    Path("gate.yaml").write_text(one_seed.replace("med >= 5", "med >= 0.001"))
    assert check() == 0


@pytest.mark.parametrize(
    ("gate", "words", "said"),
    [
        (GATE, ["--base", "nowhere"], "commit nowhere not found; fetch it"),
        (GATE, ["--base", "main", "--baseline", "auto"], "not both"),
        (GATE, ["--baseline", "no.json"], "baseline no.json not found"),
        (GATE.partition("thresholds")[0], [], "give --base REV"),
        (
            GATE.replace("seeds: 7", "seeds: 2"),
            ["--base", "main"],
            "needs 7 seeds for any verdict, and this one has 2, at most",
        ),
        (GATE.replace("-0.5oct", "-0.2oct"), ["--base", "main"], "gate.yaml:6:19: thresholds.max_stable_lr: "),
        (GATE.replace("final_loss", "recipe_loss"), ["--base", "main"], "no experiment measures recipe_loss"),
    ],
)
def test_what_cannot_be_gated_is_one_line_before_any_training(
    repository: Path, capsys: pytest.CaptureFixture[str], gate: str, words: list[str], said: str
) -> None:
    Path("gate.yaml").write_text(gate)
    assert check(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_models_that_are_not_of_the_repository_gate_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gate.yaml").write_text(GATE.replace('"model.py:build"', "mlp"))
    assert check(*BASE) == 2
    assert "none of this repository's code; name your model: model: FILE.py:FUNCTION" in capsys.readouterr().err


def test_a_baseline_is_of_a_clean_commit_and_compared_by_seed(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    update = ["baseline", "update", "gate.yaml", "--reason", "first", "-q", "-j", "1"]
    assert check("--baseline", "auto") == 3
    assert set(lines().values()) == {"no-baseline"}
    Path("model.py").write_text(NO_NORM)
    assert run(update) == 2
    assert "commit first" in capsys.readouterr().err
    git("checkout", "-q", "-f", "main")
    assert run(update) == 0
    (path,) = Path("stresstest-baselines/gate").glob("*.json")
    assert check("--baseline", "auto") == 0
    Path("model.py").write_text(NO_NORM)
    assert check("--baseline", str(path)) == 99
    git("checkout", "-q", "-f", "main")
    assert check("--baseline", "auto", "--seeds", "3") == 2
    Path("gate.yaml").write_text(GATE.replace("hold_steps: 30", "hold_steps: 31"))
    capsys.readouterr()
    assert check("--baseline", "auto") == 3
    assert "the settings of boundary differ from the baseline's" in " ".join(capsys.readouterr().out.split())
    assert run(["baseline", "status"]) == 0
    assert "0 days old; same environment; 2 lines in 1 experiments" in capsys.readouterr().out
    assert run(["baseline", "show", "gate"]) == 0
    assert "boundary.max_stable_lr{variant=as-built,depth=1}  0:" in capsys.readouterr().out
    path.write_text(before := path.read_text().replace('"first"', '"second"'))
    assert check("--baseline", "auto") == 2
    assert run(update) == 2
    assert "was edited by hand" in capsys.readouterr().err
    assert path.read_text() == before
    path.unlink()


def test_two_results_are_compared_without_a_verdicts_exit_code(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "lr-range --model model.py:build --depth 1 --optimizer sgd --seeds 5 --no-theory --probes off".split()
    words += "--num-steps 30 --hold-steps 30 -q -j 1".split()
    assert run([*words, "--run-dir", ".stresstest/a"]) == 0
    Path("model.py").write_text(NO_NORM)
    assert run([*words, "--run-dir", ".stresstest/b"]) == 0
    capsys.readouterr()
    assert run(["compare", ".stresstest/a", ".stresstest/b"]) == 0
    assert "max_stable_lr{variant=as-built,depth=" in (said := capsys.readouterr().out)
    assert "exit" not in said
    assert run(["compare", ".stresstest/a", ".stresstest/a", "--json"]) == 0
    assert {line["verdict"] for line in json.loads(capsys.readouterr().out)["lines"]} <= {"identical", "no-data"}
    assert run([*words, "--hold-steps", "31", "--run-dir", ".stresstest/c"]) == 0
    capsys.readouterr()
    assert run(["compare", ".stresstest/a", ".stresstest/c"]) == 0
    assert "settings differ: hold_steps" in capsys.readouterr().out


def test_a_check_that_is_stopped_leaves_no_worktree_and_goes_on(repository: Path) -> None:
    words = [sys.executable, "-m", "stresstest", "check", "gate.yaml", "--base", "slow", "-j", "1"]
    commit("slow", "main", gate_yaml=GATE.replace("hold_steps: 30", "hold_steps: 80") + "gate: {max_seeds: 7}\n")
    commit("comment-on-slow", "slow", model_py="# Only a comment.\n" + MODEL)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = []
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("base: [2/7]"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert "to go on: stresstest check gate.yaml --base slow" in said[-1]
    assert len(git("worktree", "list").splitlines()) == 1
    assert check("--base", "slow") == 0
    base = verdict()["base"]
    assert isinstance(base, dict)
    assert 0 < base["trained"] <= 5


def test_a_factory_need_not_take_a_depth_or_a_width(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides are run by a scenario with all settings written out, but for those that the model does not have."""
    Path("plain.py").write_text(MODEL.replace("depth=4, width=16", "blocks=1").replace("range(depth)", "range(blocks)")
                                .replace("    blocks = ", "    width = 16\n    blocks = "))  # fmt: skip
    Path("gate.yaml").write_text(
        'experiments: {b: {command: lr-range, model: "plain.py:build", seeds: 1, num_steps: 20, '
        'hold_steps: 20, theory: false, probes: "off"}}\nthresholds: {max_stable_lr: med >= 0}\n'
    )
    assert check() == 0, capsys.readouterr().err
