"""Modules as people have them, in their own dtypes, compiled, wrapped or checkpointed: each beside a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Training
from stresstest.tasks import load_task
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation, user_objective

CPU = torch.device("cpu")
STEPS = 12
LR = 2.0**-6  # exact in every dtype
HALF = (torch.bfloat16, torch.float16)

Build = Callable[[], nn.Module]
Setting = tuple[UserModel, UserBatches, Training]


def in_dtype(dtype: torch.dtype) -> Build:
    return lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3)).to(dtype)


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


def drawn(dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor]]:
    def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(batch_size, 8, generator=generator)
        return x.to(dtype), x[:, :3].argmax(1)

    return batch


def setting(
    build: Build,
    optimizer: str | Callable[..., Any] = "sgd",
    dtype: torch.dtype = torch.float32,
    options: dict[str, Any] | None = None,
    **training: Any,
) -> Setting:
    users = optimizer if callable(optimizer) else None
    factory = Factory("net", build, {}, {}, "", batch=drawn(dtype), optimizer=users)
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", 4, 8), CPU, module, batch_size=16)
    found = contract(factory, module, batches.batch([0], 0)[0].data)
    chosen = USER_OPTIMIZER if users is not None else OPTIMIZERS[str(optimizer)]
    return UserModel(factory, found, "as-built", 1, 1), batches, Training(chosen, options or {}, CPU, **training)


def populated(made: Setting, seeds: tuple[int, ...] = (3,), steps: int = STEPS) -> tuple[UserPopulation, list[float]]:
    model, batches, training = made
    population, losses = UserPopulation(model, seeds, training, [LR] * len(seeds)), []
    for step in range(steps):
        readings = population.step(batches.batch(seeds, step), torch.full((len(seeds),), LR))
        losses.append(float(readings.loss_R[0]))
    return population, losses


def by_hand(
    made: Setting, optimizer: Callable[[nn.Module], torch.optim.Optimizer], steps: int = STEPS
) -> tuple[nn.Module, list[float]]:
    """A plain loop on a module of its own, on the same batches."""
    model, batches, training = made
    with seeded(3):
        module = model.factory.build()
    users, losses = optimizer(module), []
    for step in range(steps):
        one = batches.batch([3], step)[0]
        users.zero_grad()
        with seeded(one.seed):
            logits = module(one.data[0])
            loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), one.data[1])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), training.clip_norm)
        users.step()
        losses.append(float(loss.detach()))
    return module, losses


def assert_same(population: UserPopulation, module: nn.Module) -> None:
    """Every parameter bit for bit, in its dtype."""
    for (name, ours), theirs in zip(population.modules[0].named_parameters(), module.parameters(), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs), f"{name}: {(ours - theirs).abs().max()}"


def decayed(kind: Any, **options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """An optimizer of torch's that decays matrices alone, as the built-in ones do."""
    decay = options.pop("weight_decay", 0.0)

    def made(module: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": [p], "weight_decay": decay if p.ndim > 1 else 0.0}
            for p in module.parameters()
            if p.requires_grad
        ]
        return kind(groups, lr=LR, **options)  # type: ignore[no-any-return]

    return made


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


@pytest.mark.parametrize("name", ["gi-adam", "lamb", "lion"])
def test_optimizers_that_torch_lacks_are_computed_in_float32_and_rounded(name: str) -> None:
    half, _ = populated(setting(in_dtype(torch.bfloat16), name, torch.bfloat16), steps=1)
    whole = setting(in_dtype(torch.bfloat16), name, torch.bfloat16)
    single = UserPopulation(whole[0], [3], whole[2])
    before = single.theta_RP.float()
    single._backward(whole[1].batch([3], 0), None)
    from stresstest.engine.optimizer import Step

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
