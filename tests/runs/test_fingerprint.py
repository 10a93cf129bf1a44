"""The code's part of a cell's key: it changes with what decides a number, and with nothing else."""

from __future__ import annotations

import ast
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.training import Group
from stresstest.runs.fingerprint import DECIDES, DECIDES_NOTHING, deciding, fingerprint_of
from stresstest.runs.identity import PACKAGE

SMALL = {"variant": ("pre-ln",), "depth": 1, "width": 16, "heads": 2, "seq_len": 16, "seeds": (0,)}
GRID = {"num_lrs": 2, "start_lr": 1e-3, "end_lr": 1e-2}
BOUNDARY = {"num_steps": 20, "hold_steps": 20}
OWN = """
from torch import nn


def build(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Embedding(256, width), nn.Linear(width, 256))
"""
TINY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "lr-range": ("lr-range", SMALL | BOUNDARY),
    "depth-sweep": (
        "depth-sweep",
        {"model": "mlp", "width": 8, "variant": ("rezero",), "depths": (2,), "seeds": (0,)}
        | {"measure": ("outcome", "hold"), "train_steps": 20}
        | BOUNDARY,
    ),
    "warmup": ("warmup", SMALL | GRID | {"warmup_steps": (0, 5), "train_steps": 20, "trials": 1}),
    "race": ("race", SMALL | GRID | {"train_steps": 20}),
    "batch-sweep": ("batch-sweep", SMALL | GRID | {"batch_sizes": (4, 8), "tokens": 4000}),
    "scale": ("scale", SMALL | BOUNDARY | {"width": 4, "widths": (4, 8, 16)}),
    "scale of coordinates": ("scale", SMALL | {"width": 4, "widths": (4, 8, 16), "coords": True}),
    "shock": (
        "shock",
        SMALL | BOUNDARY | {"shock": ("lr-pulse:factor=2",), "after": 25, "train_steps": 60, "peak_lr": 1e-3},
    ),
    "own model": ("lr-range", {"model": "own.py:build", "seeds": (0,)} | BOUNDARY),
}
# Torch is imported once, and of the package nothing before a fork.
WORKERS = """
import os, pickle, sys
from pathlib import Path
import torch

for name in sys.argv[1:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, name
        continue
    train, measure, group = pickle.loads(Path(name).read_bytes())
    done = [measured.cell.status for measured in train(measure, group)]
    print(*done, *(name for name in sys.modules if name.startswith("stresstest.")), flush=True)
    os._exit(0)
"""


def modules_of_workers(folder: Path) -> dict[str, set[str]]:
    """The files of the package that a fresh process has imported once it has trained one cell of each experiment."""
    from stresstest.experiments.kept_task import do_kept_task

    for name, (command, settings) in TINY.items():
        experiment = EXPERIMENTS[command]
        plan = experiment.plan(experiment.spec.model_validate(settings))
        cell = plan.cells[0]
        group = Group(
            plan.spec_of(cell), plan.device, (cell,), 1.0, plan.environment["key"], "", plan.constant_of(cell)
        )
        (folder / name).write_bytes(pickle.dumps((do_kept_task, plan.measure, group)))
    done = subprocess.run([sys.executable, "-c", WORKERS, *TINY], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {name: files_of(*line.split()) for name, line in zip(TINY, done.stdout.splitlines(), strict=True)}


def files_of(status: str, *names: str) -> set[str]:
    """Of the package, those of these modules."""
    assert status == "done"
    paths = {name.removeprefix("stresstest.").replace(".", "/") + ".py" for name in names}
    return {path for path in paths if (PACKAGE / path).exists()}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "own.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        return modules_of_workers(folder)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    copy = tmp_path / "stresstest"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def before() -> str:
    """The fingerprint of the package, and of a copy of it."""
    return fingerprint_of(PACKAGE)


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, f"{path} has no {pattern}"
    path.write_text(text)


@pytest.mark.parametrize("name", TINY)
def test_every_module_that_a_worker_imports_is_in_one_of_the_lists(name: str, imported: dict[str, set[str]]) -> None:
    listed = {path.relative_to(PACKAGE).as_posix() for path in deciding()}
    assert imported[name] - listed - DECIDES_NOTHING.keys() == set()
    assert {"engine/train.py", "experiments/training.py", "models/variants.py"} <= imported[name] & listed


def test_every_exception_is_imported_by_a_worker_or_found_by_a_pattern(imported: dict[str, set[str]]) -> None:
    found = {path.relative_to(PACKAGE).as_posix() for pattern in DECIDES for path in PACKAGE.glob(pattern)}
    assert DECIDES_NOTHING.keys() - found - set().union(*imported.values()) == set()
    assert all(DECIDES_NOTHING.values()), "each has a reason"


@pytest.mark.parametrize("module", ["errors.py", "results/outcome.py", "experiments/batch_sweep/spec.py"])
def test_a_listed_module_that_is_not_there_is_an_error(package: Path, module: str) -> None:
    (package / module).unlink()
    with pytest.raises(FileNotFoundError, match=module):
        fingerprint_of(package)


@pytest.mark.parametrize(
    ("module", "pattern", "replacement"),
    [
        ("measurements/hold.py", "^OCTAVE = 4", "OCTAVE = 8"),
        ("measurements/hold.py", "^_FARTHEST = 8", "_FARTHEST = 9"),
        ("engine/outcomes.py", "persistence: int = 5", "persistence: int = 6"),
        ("engine/divergence.py", " > ", " >= "),
        ("engine/native/norms.h", "RMS_NORM_EPS = 1e-6f", "RMS_NORM_EPS = 1e-5f"),
        ("results/outcome.py", '"stable", "spiked"}', '"stable"}'),
        ("experiments/batch_sweep/spec.py", '"sqrt": 0.5', '"sqrt": 0.6'),
        ("experiments/training.py", r"spec\.clip_norm", "None"),
        ("models/variants.py", r"\Z", "EXTRA = 1\n"),
        ("user_model/contract.py", r"\Z", "EXTRA = 1\n"),
        ("user_model/hugging_face/shape.py", r"\Z", "EXTRA = 1\n"),
    ],
)
def test_another_number_is_another_fingerprint(
    package: Path, before: str, module: str, pattern: str, replacement: str
) -> None:
    edit(package / module, pattern, replacement)
    assert fingerprint_of(package) != before


@pytest.mark.parametrize("path", ["experiments/*/findings.py", "experiments/estimate.py", "reports/*.py", "c*/*.py"])
def test_findings_estimates_reports_and_commands_are_not_in_it(package: Path, before: str, path: str) -> None:
    for module in package.glob(path):
        module.write_text(module.read_text() + "\nEXTRA = 1\n")
    assert fingerprint_of(package) == before


def test_comments_layout_and_docstrings_are_not_in_it(package: Path, before: str) -> None:
    for path in [path for path in deciding(package) if path.suffix == ".py"]:
        text = path.read_text()
        docstring = ast.get_docstring(ast.parse(text), clean=False)
        assert docstring is not None, path
        path.write_text(text.replace(docstring, "Other words.", 1).replace("\n\n\n", "\n\n\n# A comment.\n\n\n"))
    edit(package / "measurements/hold.py", r'"""The learning rate at .*"""', '"""Says it\n    in other words."""')
    assert fingerprint_of(package) == before


@pytest.mark.parametrize(
    ("module", "pattern", "replacement"),
    [
        ("specs/parsing.py", r'raise ConfigError\(f"unknown option', 'raise ConfigError(f"no option {key} unknown'),
        ("experiments/batch_sweep/spec.py", r'description="Optimizers', 'description="Names of optimizers'),
    ],
)
def test_words_for_readers_are_not_in_it(
    package: Path, before: str, module: str, pattern: str, replacement: str
) -> None:
    edit(package / module, pattern, replacement)
    assert fingerprint_of(package) == before


def test_what_an_error_computes_is_in_it(package: Path) -> None:
    module = package / "results" / "outcome.py"
    module.write_text(module.read_text() + "\ndef fail(x: int) -> None:\n    raise ValueError(abs(x))\n")
    before = fingerprint_of(package)
    edit(module, r"abs\(x\)", "-x")
    assert fingerprint_of(package) != before


def test_it_is_taken_in_a_moment() -> None:
    fastest = []
    for _ in range(3):
        started = time.process_time()
        fingerprint_of(PACKAGE)
        fastest.append(time.process_time() - started)
    assert min(fastest) < 1.0, "some 0.3 seconds; every command that trains waits for it"
