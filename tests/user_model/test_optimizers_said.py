"""What the preflight says of the user's own optimizer, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.user_model.bench import resolve_user_model
from stresstest.user_model.factory import Factory, factory_of
from stresstest.user_model.optimizers import UsersOptimizers
from stresstest.user_model.preflight import preflight
from tests.user_model import zoo

ZOO = Path(zoo.__file__)
LIT = """
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim import lr_scheduler as schedule
from transformers import get_linear_schedule_with_warmup


def batch(step, batch_size, generator):
    x = torch.randn(batch_size, 8, generator=generator)
    return x, x[:, :3].argmax(1)


class Lit(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.last(self.first(batch[0]).relu()), batch[1])

    def adamw(self):
        return optim.AdamW(self.parameters(), lr=3e-4)

    def each(self):
        return [optim.AdamW(self.first.parameters(), lr=3e-4), optim.SGD(self.last.parameters(), lr=3e-2)]


class Plain(Lit):
    def configure_optimizers(self):
        return self.adamw()


class Warm(Lit):
    def configure_optimizers(self):
        found = self.adamw()
        scheduler = get_linear_schedule_with_warmup(found, 100, 1000)
        return {"optimizer": found, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Sequential(Lit):
    def configure_optimizers(self):
        found = self.adamw()
        parts = [schedule.LinearLR(found, 1e-8, 1.0, 10), schedule.CosineAnnealingLR(found, 90)]
        return [found], [schedule.SequentialLR(found, parts, [10])]


class OneCycle(Lit):
    def configure_optimizers(self):
        found = self.adamw()
        return [found], [schedule.OneCycleLR(found, max_lr=3e-4, total_steps=1000)]


class Two(Lit):
    def configure_optimizers(self):
        return self.each()


class TwoDicts(Lit):
    def configure_optimizers(self):
        return [{"optimizer": one, "lr_scheduler": schedule.LambdaLR(one, lambda s: s / 9)} for one in self.each()]


class TwoInATuple(Lit):
    def configure_optimizers(self):
        return tuple(self.each()), []


class Some(Lit):
    def configure_optimizers(self):
        return optim.AdamW(self.last.parameters(), lr=3e-4)


class Manual(Plain):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Idx(Plain):
    def training_step(self, batch, batch_idx, optimizer_idx):
        return super().training_step(batch, batch_idx)


class Frequent(Lit):
    def configure_optimizers(self):
        return [{"optimizer": one, "frequency": 5} for one in self.each()]


class Nothing(Lit):
    def configure_optimizers(self):
        return None


class Bare(Lit):
    pass


def by_function():
    return Plain()
"""
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


@pytest.fixture(autouse=True)
def lit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of LightningModules, whose name is its test's own: an import is kept for good."""
    monkeypatch.chdir(tmp_path)
    Path("lit.py").write_text(LIT)


def said(model: str, function: str = "", **settings: object) -> str:
    """All that the preflight prints."""
    beside = {"batch_fn": "lit.py:batch"} if model.startswith("lit") else {}
    spec = LrRangeSpec(model=model, optimizer_fn=function, seeds=(0,), **beside, **settings)  # type: ignore[arg-type]
    return "\n".join(preflight(resolve_user_model(spec, sweeps_depth=False), [1], "cpu").notes)


def of_zoo(name: str) -> str:
    """What is said of an optimizer of the zoo."""
    return said(f"{ZOO}:build", f"{ZOO}:{name}")


@pytest.mark.parametrize("name", ["adamw", "sgd", "nesterov", "muon", "clears", "optimi_adamw", "heavy_adamw"])
def test_of_an_optimizer_that_follows_its_lr_nothing_is_said(name: str) -> None:
    assert "note:" not in of_zoo(name)
    assert "warning:" not in of_zoo(name)


@pytest.mark.parametrize(
    ("name", "follows"),
    [
        ("const_wd", "weight_decay"),
        ("adabound", "base_lrs"),
        ("lion_decoupled", "_init_lr"),
        ("optimi_decoupled", "max_lr"),
        ("ranger21", "starting_lr"),
    ],
)
def test_what_follows_the_lr_beside_it_is_named_and_the_ramp_called_a_bracket(name: str, follows: str) -> None:
    assert f"besides the LR, the optimizer's {follows}" in of_zoo(name)
    assert "a rough bracket" in of_zoo(name)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("sf_adamw", "3.1"), ("sf_sgd", "3.1"), ("heavy_sfadamw", "3.1"), ("asgd", "1.5"), ("optimi_ranger", "1")],
)
def test_an_lr_out_of_proportion_to_the_steps_is_named_with_its_ratio(name: str, ratio: str) -> None:
    assert f"doubling the LR moves the parameters {ratio}" in of_zoo(name)


def test_a_cap_on_the_lr_is_named_where_it_is_reached() -> None:
    assert "at LR 10 the optimizer's step no longer depends on the LR" in of_zoo("adafactor")


def test_a_group_with_an_lr_of_its_own_and_parameters_of_no_optimizer_are_named() -> None:
    assert "parameter group 0 keeps its own LR, 0.01, at every requested LR" in of_zoo("own_lr")
    assert "no optimizer holds 0.weight; add it" in of_zoo("leaves_out")
    assert "no optimizer holds first.weight and 1 more; add them" in said("lit.py:Some")


@pytest.mark.parametrize(
    ("model", "optimizers"),
    [
        ("Plain", "AdamW"),
        ("Warm", "AdamW"),
        ("Sequential", "AdamW"),
        ("OneCycle", "AdamW"),
        ("Two", "AdamW and SGD"),
        ("TwoDicts", "AdamW and SGD"),
        ("TwoInATuple", "AdamW and SGD"),
    ],
)
def test_configure_optimizers_is_taken_as_lightning_does_and_said_to_be_scaled(model: str, optimizers: str) -> None:
    assert (
        f"optimizer: {optimizers} from configure_optimizers(), which has no lr argument: all its LRs are scaled"
        in said(f"lit.py:{model}")
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("Manual", "change no parameter of the model"),
        ("Idx", "training_step expects optimizer_idx"),
        ("Frequent", "returned a 'frequency'"),
        ("Nothing", "did not return an optimizer"),
    ],
)
def test_what_only_lightnings_trainer_can_step_is_one_line(model: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")) as error:
        said(f"lit.py:{model}")
    assert "\n" not in str(error.value)


def test_lightnings_empty_configure_optimizers_is_none() -> None:
    assert "optimizer: adam" in said("lit.py:Bare")
    with pytest.raises(ConfigError, match=r"has no optimizer"):
        said("lit.py:Bare", optimizer="own")


def test_the_configure_optimizers_of_what_a_function_builds_is_named_and_can_be_had() -> None:
    assert "give --optimizer own" in said("lit.py:by_function")
    assert "AdamW from configure_optimizers()" in said("lit.py:by_function", optimizer="own")


DTYPES = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(torch.bfloat16)

def batch(step, batch_size, generator):
    x = torch.randn(batch_size, 8, generator=generator)
    return x.to(torch.bfloat16), x[:, :3].argmax(1)

def on_meta():
    with torch.device("meta"):
        return nn.Linear(8, 3)

def double():
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()

def doubles(step, batch_size, generator):
    x = torch.randn(batch_size, 8, generator=generator, dtype=torch.float64)
    return x, x[:, :3].argmax(1)
"""

MIXED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 16).bfloat16(), nn.LayerNorm(16), nn.Linear(16, 3).bfloat16()

    def forward(self, x):
        return self.last(self.norm(self.first(x).float()).bfloat16())

def build():
    return Net()
"""


def test_models_train_in_their_own_dtypes_which_are_said() -> None:
    Path("half.py").write_text(DTYPES)
    Path("mixed.py").write_text(MIXED)
    half = said("half.py:build")
    assert "trains in its own dtype, bfloat16: parameters, gradients and optimizer state; theory" in half
    assert "batch (bfloat16 [8, 8]" in half
    assert "at LR 0.0001, the first update of" in half
    assert "trains in its own dtype, bfloat16 and float32" in said("mixed.py:build", batch_fn="half.py:batch")
    double = said("half.py:double", batch_fn="half.py:doubles")
    assert "trains in its own dtype, float64: parameters, gradients and optimizer state" in double
    assert "batch (float64 [8, 8]" in double
    with pytest.raises(ConfigError, match=r"parameter weight is on the meta device and has no values; build"):
        said("half.py:on_meta")


CHECKPOINTED = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.GELU())

    def forward(self, x):
        x = self.first(x)
        return self.last(x + checkpoint(self.block, x, use_reentrant=True))

def build():
    return Net()

def batch(step, batch_size, generator):
    x = torch.randn(32, 8, generator=generator)
    return x, x[:, :3].argmax(1)
"""


def test_where_theory_fails_ramp_and_hold_stand_and_the_reason_is_said() -> None:
    Path("again.py").write_text(CHECKPOINTED)
    words = "lr-range --model again.py:build --num-steps 30 --hold-steps 30 --seeds 1 -j 1 -v --run-dir run"
    done = subprocess.run([sys.executable, "-m", "stresstest", *words.split()], capture_output=True, text=True)
    assert done.returncode == 0
    assert "No theory: the loss as a function of the parameters raised RuntimeError" in " ".join(done.stdout.split())
    assert "trains, " in done.stdout


def test_another_lr_than_the_one_built_at_is_in_proportion_in_every_group() -> None:

    def optimizer(model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
        first, *rest = model.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 4.0 * lr}, {"params": rest}], lr=lr)

    def lrs(users: UsersOptimizers) -> Sequence[float]:
        return [group["lr"] for group in users.groups]

    module = zoo.build()
    users = UsersOptimizers(Factory("", zoo.build, {}, {}, "", optimizer=optimizer), module, 0.3)
    assert lrs(users) == [4.0 * 0.3, 0.3]
    users.step(0.15)
    assert lrs(users) == pytest.approx([0.6, 0.15])
    users.step(float(torch.tensor(0.3)))
    assert lrs(users) == [4.0 * 0.3, 0.3]


@pytest.mark.parametrize(
    ("model", "ratios"),
    [
        ("Plain", [1.0]),
        ("Warm", [1.0]),
        ("Sequential", [1.0]),
        ("OneCycle", [1.0]),
        ("Two", [1.0, 100.0]),
        ("TwoDicts", [1.0, 100.0]),
        ("TwoInATuple", [1.0, 100.0]),
    ],
)
def test_the_lrs_of_configure_optimizers_are_those_from_before_a_scheduler_in_proportion(
    model: str, ratios: Sequence[float]
) -> None:

    factory = factory_of(LrRangeSpec(model=f"lit.py:{model}", batch_fn="lit.py:batch"))
    users = UsersOptimizers(factory, factory.make(0, "as-built", 1, 1), 0.01)
    assert [group["lr"] for group in users.groups] == pytest.approx([0.01 * ratio for ratio in ratios])
    assert users.groups[0]["lr"] == 0.01
    assert users.groups[0]["betas"] == (0.9, 0.999)  # OneCycleLR moves it to 0.95
