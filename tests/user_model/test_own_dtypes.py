"""Modules in half or double precision, or in several: each is trained in its own, beside a plain loop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.engine.optimizer import Step
from stresstest.errors import ConfigError
from stresstest.user_model.factory import seeded
from stresstest.user_model.population import UserPopulation, user_objective
from tests.user_model.beside import (
    CPU,
    FILE,
    LR,
    STEPS,
    Build,
    assert_same,
    by_hand,
    decayed,
    in_dtype,
    populated,
    said,
    setting,
)

HALF = (torch.bfloat16, torch.float16)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Mixed(nn.Module):
    """Weights in bfloat16, norms in float32, as many train them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16).bfloat16(), nn.Linear(16, 3).bfloat16()
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x.bfloat16()).float()).bfloat16())


class Adapted(nn.Module):
    """An adapter in float32 over a frozen base in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(8, 3).bfloat16().requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x.bfloat16()).float() + self.up(self.down(x.float()))


REFERENCES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "radam": (torch.optim.RAdam, {}),
}


@pytest.mark.parametrize("decay", [0.0, 0.125])
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("dtype", HALF)
def test_optimizers_in_half_precision_are_torchs_bit_for_bit(name: str, dtype: torch.dtype, decay: float) -> None:
    kind, options = REFERENCES[name]
    eps = {"eps": 2.0**-10} if kind is not torch.optim.SGD else {}  # the usual 1e-8 is 0 in float16
    made = setting(in_dtype(dtype), name, dtype, {"weight_decay": decay, **eps})
    population, losses = populated(made)
    module, expected = by_hand(made, decayed(kind, weight_decay=decay, **options, **eps))
    assert population.theta_RP.dtype == dtype
    assert losses == expected
    assert_same(population, module)


@pytest.mark.parametrize("name", REFERENCES)
def test_optimizers_in_float64_are_torchs_to_its_rounding(name: str) -> None:
    kind, options = REFERENCES[name]
    made = setting(in_dtype(torch.float64), name, torch.float64, {"weight_decay": 0.125})
    population, _ = populated(made)
    module, _ = by_hand(made, decayed(kind, weight_decay=0.125, **options))
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(population.theta_RP[0], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("clip_norm", [None, 0.125])
@pytest.mark.parametrize("name", REFERENCES)
def test_parameters_of_two_dtypes_are_each_stepped_in_their_own(name: str, clip_norm: float | None) -> None:
    kind, options = REFERENCES[name]
    made = setting(Mixed, name, options={"weight_decay": 0.125}, clip_norm=clip_norm)
    population, losses = populated(made)
    module, expected = by_hand(made, decayed(kind, weight_decay=0.125, **options))
    assert losses == expected
    assert_same(population, module)


@pytest.mark.parametrize("build", [Mixed, in_dtype(torch.bfloat16)])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adafactor, torch.optim.NAdam])
def test_the_users_optimizer_steps_half_precision_bit_for_bit(kind: Any, build: Build) -> None:
    made = setting(build, lambda params, lr: kind(params, lr=lr), torch.bfloat16, clip_norm=0.5)
    population, losses = populated(made)
    module, expected = by_hand(made, lambda module: kind(module.parameters(), lr=LR))
    assert losses == expected
    assert_same(population, module)


@pytest.mark.parametrize("name", ["gi-adam", "lamb", "muon", "lion"])
def test_optimizers_that_torch_lacks_are_computed_in_float32_and_rounded(name: str) -> None:
    half, _ = populated(setting(in_dtype(torch.bfloat16), name, torch.bfloat16), steps=1)
    whole = setting(in_dtype(torch.bfloat16), name, torch.bfloat16)
    single = UserPopulation(whole[0], [3], whole[2])
    before = single.theta_RP.float()
    single._backward(whole[1].batch([3], 0), None)
    state = {slot: torch.zeros_like(before) for slot in whole[2].optimizer.slots}
    ones = torch.ones(1, 1, dtype=torch.float64)
    decay_P = whole[0].layout.decay_mask()
    step = Step(
        before, single.grad_RP.float(), torch.full((1, 1), LR), state, ones, decay_P, whole[0].layout.segments()
    )
    whole[2].optimizer.update(step)
    assert torch.equal(half.theta_RP, before.bfloat16())


def test_an_adapter_in_float32_over_a_frozen_base_in_bfloat16_trains_in_float32() -> None:
    made = setting(Adapted, "adam")
    population, losses = populated(made)
    module, expected = by_hand(made, decayed(torch.optim.Adam))
    assert population.theta_RP.dtype == torch.float32
    assert losses == pytest.approx(expected, rel=1e-5)
    assert torch.equal(population.modules[0].base.weight, module.base.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("optimizer", ["momentum", lambda params, lr: torch.optim.AdamW(params, lr=lr, eps=1e-4)])
@pytest.mark.parametrize("build", [Mixed, in_dtype(torch.bfloat16), in_dtype(torch.float16)])
def test_half_precision_resumes_and_drops_rows_bit_for_bit(build: Build, optimizer: Any) -> None:
    dtype = next(build().parameters()).dtype
    made = setting(build, optimizer, dtype)
    whole, _ = populated(made, (3, 4))
    stored = copy.deepcopy(whole.state())
    resumed = UserPopulation(made[0], (3, 4), made[2], [LR] * 2)
    resumed.restore(stored)
    whole.keep([1])
    resumed.keep([1])
    for population in (whole, resumed):
        population.evaluate(made[1].batch([4], 0))
        population.step(made[1].batch([4], STEPS), torch.full((1,), LR))
    assert torch.equal(whole.theta_RP, resumed.theta_RP)
    alone, _ = populated(made, (4,), STEPS)
    alone.step(made[1].batch([4], STEPS), torch.full((1,), LR))
    assert torch.equal(whole.theta_RP, alone.theta_RP)


def test_curvature_of_a_half_precision_model_is_that_of_its_copy_in_float32() -> None:
    made = setting(in_dtype(torch.bfloat16), dtype=torch.bfloat16)
    one = made[1].batch([0], 0)[0]
    theta_P, loss = user_objective(made[0], one, 0, CPU)
    with seeded(0):
        module = in_dtype(torch.bfloat16)().float()
    assert theta_P.dtype == torch.float32
    with torch.no_grad():
        assert float(loss(theta_P)) == float(F.cross_entropy(module(one.data[0].float()), one.data[1]))


def test_a_batch_of_another_dtype_is_one_line_with_the_remedy(in_tmp: None) -> None:
    with pytest.raises(ConfigError, match=r"let batch\(\) return its numbers in bfloat16"):
        said("clash", FILE + "    return net().bfloat16()\n")


def test_float16_weights_take_no_loss_scale(in_tmp: None) -> None:
    text = FILE.replace("return x, ", "return x.half(), ") + "    return net().half()\n"
    assert "the optimizer's eps, 1e-08, is 0 in float16" in said("scaled", text)
    with pytest.raises(ConfigError, match="leave --dtype float16 out"):
        said("scaled", text, dtype="float16")


def test_built_in_images_are_given_in_the_models_dtype(in_tmp: None) -> None:
    text = "from torch import nn\n\ndef build():\n    return nn.Linear(3072, 10).bfloat16()\n"
    assert "batch (bfloat16 [8, 3072], int64 [8])" in said("pixels", text, task="images", data="synthetic")
