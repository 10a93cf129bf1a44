"""One situation of the table: the user's code, how the tool is asked about it, and what is right."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.cli.main import run
from tests.user_model.hand_loop import FOLDER, Judge, Loss, UserCode, file


@dataclass(frozen=True)
class Situation:
    """The user's functions, by name in their file, and what is right.

    `model` is FILE.py:FACTORY; beside it are FACTORY_batch and FACTORY_loss where nothing else is named. `trains`
    judges the hand loop's end; of `never`, no learning rate trains. With `words`, the tool has to end with exit code
    `code` and one line that contains them. `hand` is the loss of the hand loop where the tool has to infer it.
    """

    name: str
    model: str
    trains: Judge | None = None
    hand: Loss | None = None
    batch: str = ""
    loss: str = ""
    optimizer: str = ""
    never: bool = False
    words: Sequence[str] = ()
    code: int = 2
    hold_steps: int = 60
    options: str = ""

    @property
    def kind(self) -> str:
        """What is expected: boundary, never or declined."""
        return "declined" if self.words else "never" if self.never else "boundary"

    @property
    def path(self) -> Path:
        """The user's file."""
        return FOLDER / self.model.partition(":")[0]

    def arguments(self) -> list[str]:
        """The command line that asks the tool."""
        words = ["lr-range", "--model", str(FOLDER / self.model)]
        beside = {"batch-fn": self._named("batch"), "loss-fn": self._named("loss"), "optimizer-fn": self.optimizer}
        for option, name in beside.items():
            words += [f"--{option}", f"{self.path}:{name}"] if name else []
        steps = ["--num-steps", "40", "--hold-steps", str(self.hold_steps), "--seeds", "1", "-j", "1", "-q"]
        theory = [] if "--theory" in self.options else ["--no-theory"]
        return [*words, *steps, *theory, *self.options.split()]

    def uses(self) -> set[str]:
        """The names of the functions in the file that are asked about."""
        return {self._factory, self._named("batch"), self._named("loss")} - {""}

    def by_hand(self) -> UserCode:
        """The same functions for a plain loop."""
        module = file(self.path.name)
        loss = getattr(module, self._named("loss")) if self._named("loss") else self.hand
        assert loss is not None, f"{self.name}: what does the hand loop minimise?"
        batch = getattr(module, self._named("batch")) if self._named("batch") else None
        return UserCode(getattr(module, self._factory), batch, loss, self._optimizer(module), 8, self.hold_steps)

    @property
    def _factory(self) -> str:
        return self.model.partition(":")[2]

    def _named(self, what: str) -> str:
        """The function that is named, or else the one that is called after the factory, if there is one."""
        named: str = getattr(self, what)
        beside = f"{self._factory}_{what}"
        inferred = what == "loss" and self.hand is not None
        return named or (beside if not inferred and hasattr(file(self.path.name), beside) else "")

    def _optimizer(self, module: Any) -> Callable[[nn.Module, float], torch.optim.Optimizer]:
        if self.optimizer:
            theirs = getattr(module, self.optimizer)
            return lambda model, lr: theirs(list(model.parameters()), lr)
        return lambda model, lr: torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)


@dataclass(frozen=True)
class Told:
    """What the tool said: its exit code, the bracket of max_stable_lr, and its one line where it declined."""

    code: int
    low: float | None
    high: float | None
    line: str
    outcomes: dict[float, str]

    def __str__(self) -> str:
        if self.code:
            return self.line
        if self.low is None:
            return "trains at no learning rate"
        return f"{self.low:.2g}..{self.high:.2g}" if self.high is not None else f"> {self.low:.2g}"


def ask(situation: Situation, folder: Path) -> Told:
    """Ask the tool, in an empty folder."""
    out, err = io.StringIO(), io.StringIO()
    with _inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*situation.arguments(), "--run-dir", "run"])
        stored = Path("run/result.json")
        cells = json.loads(stored.read_text())["cells"] if stored.exists() else []
    if code == 2:
        assert err.getvalue().count("\n") == 1, err.getvalue()
        return Told(code, None, None, err.getvalue().strip(), {})
    if code:
        said = " ".join(out.getvalue().split())
        return Told(code, None, None, said[max(0, said.find("crashed: ")) :], {})
    (cell,) = cells
    bracket = cell["metrics"]["max_stable_lr"]
    return Told(code, bracket["low"], bracket["high"], "", {held["lr"]: held["outcome"] for held in cell["hold"]})


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# What a person would minimise where the tool infers the loss.


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Of the first output; classes last, or second where the shapes say so."""
    output = model(batch[0])
    output = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
    if output.shape[:-1] == batch[1].shape:
        return F.cross_entropy(output.flatten(0, -2), batch[1].flatten())
    return F.cross_entropy(output, batch[1], ignore_index=255)


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    """Mean over all numbers."""
    return F.mse_loss(model(batch[0]), batch[1])


def yes_or_no(model: nn.Module, batch: Any) -> Tensor:
    """Binary cross-entropy of each logit."""
    return F.binary_cross_entropy_with_logits(model(batch[0]).flatten(), batch[1].flatten().float())


def returned(model: nn.Module, batch: Any) -> Tensor:
    """What model(x, targets) returns beside its logits."""
    loss: Tensor = model(*batch)[1]
    return loss


def of_dict(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a model that takes its labels by name."""
    loss: Tensor = model(**batch).loss
    return loss


def step_loss(model: nn.Module, batch: Any) -> Tensor:
    """The total that training_step returns, or the sum of what it returns."""
    losses = model.training_step(batch, 0)  # type: ignore[operator]  # a LightningModule's
    loss: Tensor = losses.get("loss", losses.get("total_loss", sum(losses.values())))
    return loss
