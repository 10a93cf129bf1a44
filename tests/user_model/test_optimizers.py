"""The tool beside a plain loop, for forty optimizers of eight libraries: the same losses, and the same edge."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from stresstest.cli.main import run
from tests.user_model import zoo
from tests.user_model.hand_loop import keys

ZOO = Path(zoo.__file__)
STEPS = 30
NOTHING, SOMETHING = 2.7, 2.6  # who knows nothing has ln 16 = 2.77, all that there is to know 1.36
LONGER = {"dadapt": "60", "const_wd": "60"}  # steps of the ramp, where 30 end before it breaks
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(name: str, *more: str) -> int:
    """The tool's exit code for an optimizer of the zoo, with its run in `run`."""
    model = ["--model", f"{ZOO}:build", "--optimizer-fn", f"{ZOO}:{name}"]
    steps = ["--num-steps", str(STEPS), "--hold-steps", str(STEPS)]
    plain = ["--seeds", "1", "-j", "1", "--no-theory", "--probes", "off", "-q", "--run-dir", "run"]
    return run(["lr-range", *model, *steps, *plain, *more])


def holds() -> tuple[dict[str, Any], dict[float, NDArray[np.float64]]]:
    """The cell of the last run, and the losses of each LR that was held."""
    (cell,) = json.loads(Path("run/result.json").read_text())["cells"]
    (file,) = Path("run/curves").glob("*.npz")
    curves = np.load(file)
    return cell, dict(zip(curves["hold_lr"].tolist(), curves["hold_loss"], strict=True))


@cache
def by_hand(optimizer: Callable[..., Any], lr: float, steps: int) -> tuple[NDArray[np.float64], float]:
    """Losses of a plain loop with the optimizer built at `lr`, and the trained model's on fresh batches."""
    torch.manual_seed(0)
    model = zoo.build()
    built = optimizer(model if "model" in optimizer.__code__.co_varnames[:1] else list(model.parameters()), lr)
    optimizers = built if isinstance(built, list) else [built]
    modes = [one for one in optimizers if hasattr(one, "eval")]
    for one in modes:
        one.train()
    losses = []
    for step in range(steps):
        batch_key, step_key = keys(0, step)
        x, y = zoo.batch(step, 8, torch.Generator().manual_seed(batch_key))

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            for one in optimizers:
                one.zero_grad()
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            return loss

        torch.default_generator.manual_seed(step_key)
        losses.append(closure().item())
        torch.default_generator.manual_seed(step_key + 1)
        for one in optimizers:
            one.step(closure) if type(one).__name__ in ("LBFGS", "SAM") else one.step()
    for one in modes:
        one.eval()
    with torch.no_grad():
        x, y = zoo.batch(0, 256, torch.Generator().manual_seed(1))
        return np.array(losses), float(F.cross_entropy(model(x).flatten(0, 1), y.flatten()))


def same_as_by_hand(name: str, *more: str) -> dict[str, Any]:
    """Every loss of every LR that was held is the plain loop's, to the bit; returns the cell."""
    assert ask(name, *more) == 0
    cell, found = holds()
    for lr, losses in found.items():
        taken = losses[~np.isnan(losses)].astype(np.float32)
        assert len(taken) >= 4
        assert np.array_equal(taken, by_hand(getattr(zoo, name), lr, len(taken))[0].astype(np.float32)), lr
    return cell


def edge_is_by_hand(cell: dict[str, Any], optimizer: Callable[..., Any]) -> None:
    """At the last stable LR the plain loop's model knows more than nothing, at the first unstable one it does not."""
    bracket = cell["metrics"]["max_stable_lr"]
    assert by_hand(optimizer, bracket["low"], STEPS)[1] < NOTHING
    if bracket["high"] is not None:
        end = by_hand(optimizer, bracket["high"], STEPS)[1]
        assert not end < SOMETHING  # NaN is no better


TABLE = [
    # torch
    *"adam adamw adamax nadam radam sgd nesterov rmsprop asgd adadelta adagrad adafactor".split(),
    *"lbfgs muon sparse_adam".split(),
    # transformers
    "hf_adafactor",
    # pytorch-optimizer
    *"came po_lion adopt ademamix soap shampoo adan lamb adabound adabelief ranger21 dadapt sam lookahead".split(),
    # heavyball, schedulefree, prodigyopt
    *"heavy_adamw heavy_muon heavy_soap heavy_sfadamw sf_adamw sf_sgd prodigy".split(),
    # lion-pytorch, torch-optimi
    *"lion lion_decoupled optimi_adamw optimi_decoupled optimi_stable optimi_ranger".split(),
    # what users do with them
    *"const_wd clears replaces own_lr leaves_out".split(),
]


@pytest.mark.parametrize("name", TABLE)
def test_a_hold_is_the_plain_loop_at_that_lr_and_ends_where_it_does(name: str) -> None:
    cell = same_as_by_hand(name, "--num-steps", LONGER.get(name, str(STEPS)))
    edge_is_by_hand(cell, getattr(zoo, name))


@pytest.mark.parametrize(
    ("name", "as_if"),
    [("warm_inside", "adamw"), ("one_cycle", "adamw_8_99"), ("cyclic", "adamw_8_99"), ("zero_group", "")],
)
def test_a_scheduler_in_the_function_leaves_the_optimizer_as_before_it(name: str, as_if: str) -> None:
    assert ask(name) == 0
    cell, found = holds()
    optimizer = getattr(zoo, as_if) if as_if else zeroed_by_hand
    for lr, losses in found.items():
        taken = losses[~np.isnan(losses)].astype(np.float32)
        assert np.array_equal(taken, by_hand(optimizer, lr, len(taken))[0].astype(np.float32)), lr
    edge_is_by_hand(cell, optimizer)


def zeroed_by_hand(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW at `lr` but for the embedding, which stays."""
    first, *rest = model.parameters()
    return torch.optim.AdamW([{"params": [first], "lr": 0.0}, {"params": rest, "lr": lr}])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rprop", "the LR does not set the optimizer's step"),
        ("relative_adafactor", "the LR does not set the optimizer's step"),
        ("hf_relative", "optimizer(params, lr) gives a group the LR None"),
        ("ignores_lr", "sets the same LRs for lr 0.001 and 0.002; use its argument lr"),
    ],
)
def test_an_optimizer_that_no_lr_can_be_found_for_is_one_line_before_training(
    name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(name) == 2
    line = capsys.readouterr().err
    assert words in line
    assert line.count("\n") == 1
    assert not Path("run").exists()
