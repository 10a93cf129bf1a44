"""Every example is listed, begins with its command, and that command runs as it is written."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stresstest.cli.main import run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = sorted(
    path.relative_to(EXAMPLES).as_posix() for suffix in ("py", "yaml") for path in EXAMPLES.rglob(f"*.{suffix}")
)
SMALLER = "--seeds 1 --num-steps 20 --hold-steps 20 --start-lr 0.01 --no-theory -q -j 1".split()
SMALLER_RACE = "--seeds 1 --train-steps 20 -q -j 1".split()


@pytest.fixture(autouse=True)
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, to run in: nothing is left in the repository."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns(".stresstest", "__pycache__", "my-run"))
    monkeypatch.chdir(folder)
    return folder


def commands(file: Path) -> list[list[str]]:
    """The indented lines of what a file begins with: a docstring, or comments."""
    text = file.read_text(encoding="utf-8")
    head = text.split('"""')[1] if file.suffix == ".py" else text.partition("\n\n")[0].replace("#", "")
    joined = re.sub(r" *\\\n *", " ", head)
    return [shlex.split(line) for line in re.findall(r"^ {4,5}(\S.*)$", joined, re.MULTILINE)]


def call(words: list[str]) -> None:
    """Run a command line; experiments on one seed and few steps."""
    program, *args = words
    if program == "stresstest":
        smaller = SMALLER if args[0] in ("lr-range", "scale", "run") else SMALLER_RACE if args[0] == "race" else []
        assert run([*args, *smaller]) == 0, shlex.join(words)
        return
    module = {"pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"], "torchrun": ["-m", "torch.distributed.run"]}
    more = SMALLER if program == "torchrun" else []
    subprocess.run([sys.executable, *module.get(program, []), *args, *more], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("name", FILES)
def test_its_commands_run(name: str, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir((examples / name).parent)
    found = commands(examples / name)
    assert found, f"{name} begins with no command"
    assert any(Path(name).name in word for words in found for word in words), f"no command of {name} is about it"
    for words in found:
        call(words)


def test_reading_a_result_prints_each_seed_of_each_variant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, read = commands(Path("read_result.py"))
    call(train)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", read[1:])
    runpy.run_path("read_result.py", run_name="__main__")
    out = capsys.readouterr().out
    rows = re.findall(r"^(.+), adam: max_stable_lr .+, median of 1 seeds$", out, re.MULTILINE)
    assert sorted(rows) == ["plain", "pre-norm"]
    assert out.count("\n  seed 0: ") == 2


def test_the_gate_is_red_at_a_learning_rate_that_breaks_the_model() -> None:
    gate = Path("test_gate.py")
    short = gate.read_text().replace("steps=100", "steps=20").replace("[1, 4]", "[1]")
    gate.write_text(short.replace("lr=3e-3", "lr=30"))
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_gate.py"], check=False)
    assert done.returncode == 1


def test_every_example_is_in_the_list_of_examples() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert [name for name in FILES if f"({name.partition('/')[0]})" not in listed] == []
