"""The line of Python that gives a result again: run as it stands, it makes the same call."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stresstest
from stresstest.experiments.answers import try_again
from stresstest.experiments.call_line import call_line
from stresstest.results.records import read_result

STORED = Path(__file__).parents[1] / "results" / "stored" / "lr-range.json"


def imported(model: Any) -> Any:
    """A function that a module has."""
    return model


def run(line: str, monkeypatch: pytest.MonkeyPatch, **names: object) -> tuple[object, dict[str, Any]]:
    """What a line calls the function with."""
    called: list[tuple[object, dict[str, Any]]] = []
    monkeypatch.setattr(stresstest, "lr_range", lambda model, **given: called.append((model, given)), raising=False)
    exec(line, {"stresstest": stresstest} | names)
    return called[0]


def test_constants_stand_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "depth": 2,
        "variant": ["pre-ln"],
        "depths": (3,),
        "seeds": range(2),
        "target_loss": None,
        "data": "a'\n b",
    }
    line = call_line("lr-range", "decoder", given)
    assert "\n" not in line
    assert run(line, monkeypatch) == ("decoder", given)


def test_numbers_of_numpy_and_paths_are_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"end_lr": np.float64(0.1), "seeds": np.arange(3), "run_dir": Path("kept"), "args": {"x": float("inf")}}
    _, found = run(call_line("lr-range", "decoder", given), monkeypatch)
    assert found == {"end_lr": 0.1, "seeds": [0, 1, 2], "run_dir": "kept", "args": {"x": float("inf")}}


def test_what_can_be_imported_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sgd = functools.partial(torch.optim.SGD, momentum=0.9)
    given = {"args": {"act": torch.nn.GELU, "dtype": torch.bfloat16}, "optimizer": sgd, "loss_fn": imported}
    model, found = run(call_line("lr-range", imported, given), monkeypatch)
    again = found.pop("optimizer")
    assert (again.func, again.keywords) == (torch.optim.SGD, {"momentum": 0.9})
    assert (model, found) == (imported, {name: value for name, value in given.items() if name != "optimizer"})


def test_what_cannot_be_imported_is_said_and_run_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:
        """A function within another."""

    batches = [torch.zeros(1)] * 3
    line = call_line("lr-range", build, {"args": {"f": lambda: 0}, "optimizer": lambda: 0, "batch": batches})
    where = f"{build.__qualname__} of {__name__}"
    assert f"# define first: build ({where}), args_f (lambda of {__name__})" in line
    assert line.endswith(f"optimizer (lambda of {__name__}), batch (object of builtins.list)")
    found = run(line, monkeypatch, build=1, args_f=2, optimizer=3, batch=4)
    assert found == (1, {"args": {"f": 2}, "optimizer": 3, "batch": 4})


def test_other_settings_of_a_call_keep_what_it_imports_and_says() -> None:
    line = call_line("lr-range", imported, {"seeds": 2, "args": {"f": lambda: 0}})
    result = read_result(STORED).model_copy(update={"reproduce": line})
    step = try_again(result, "to be sure", {"seeds": 5})
    assert step is not None
    assert step.text == (
        f"import stresstest, {__name__}; stresstest.lr_range({__name__}.imported, args={{'f': args_f}}, seeds=5)"
        f"  # define first: args_f (lambda of {__name__})"
    )


def test_a_line_with_a_users_function_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build(width=8): ...\n")
    line = (
        "import mine; from stresstest.experiments.call_line import call_line; print(call_line('race', mine.build, {}))"
    )
    environment = {"PYTHONPATH": f"{Path(stresstest.__file__).parents[1]}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "import mine, stresstest; stresstest.race(mine.build)\n"
