"""A replica of the user's own model trains as if it were alone, with torch's own optimizers as the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import FIRST_LR, Training
from stresstest.tasks import load_task
from stresstest.tasks.task import VALIDATION
from stresstest.user_model.batches import UserBatch, UserBatches
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation
from stresstest.user_model.stacked import StackedUserPopulation, stacks

CPU = torch.device("cpu")


class Net(nn.Module):
    """Tied, frozen, normalised and, if asked, random."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 8)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(8, 256)
        self.output.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.frozen(self.embedding(x)).mT).mT
        return self.output(self.dropout(h))


def made(
    build: Callable[..., nn.Module] = Net, optimizer: str | Callable[..., Any] = "sgd", **training: Any
) -> tuple[UserModel, UserBatches, Training]:
    users = optimizer if callable(optimizer) else None
    factory = Factory("net", build, {}, {}, "", optimizer=users)
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", 4, 8), CPU, module, batch_size=4)
    found = contract(factory, module, batches.batch([0], 0)[0].data)
    chosen = USER_OPTIMIZER if users is not None else OPTIMIZERS[str(optimizer)]
    return UserModel(factory, found, "as-built", 1, 1), batches, Training(chosen, {}, CPU, **training)


def trained(
    kind: type[UserPopulation], setting: tuple[UserModel, UserBatches, Training], seeds: list[int], lrs: list[float]
) -> tuple[UserPopulation, Tensor]:
    model, batches, training = setting
    population = kind(model, seeds, training)
    losses = [population.step(batches.batch(seeds, step), torch.tensor(lrs)).loss_R for step in range(6)]
    return population, torch.stack(losses)


def by_hand(batches: UserBatches, seed: int, optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> list[float]:
    """A plain loop on a module of its own."""
    with seeded(seed):
        module = Net(0.5)
    users, losses = optimizer(module), []
    for step in range(6):
        one = batches.batch([seed], step)[0]
        users.zero_grad()
        with seeded(one.seed):
            loss = nn.functional.cross_entropy(module(one.data[0]).flatten(0, 1), one.data[1].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        users.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sgd", lambda m: torch.optim.SGD(m.parameters(), 0.1)),
        ("momentum", lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9)),
        ("adam", lambda m: torch.optim.Adam(m.parameters(), 0.1)),
    ],
)
def test_built_in_optimizers_train_the_users_model_as_torchs_do(name: str, reference: Any) -> None:
    setting = made(lambda: Net(0.5), name)
    _, losses = trained(UserPopulation, setting, [3, 5], [0.1, 0.1])
    for row, seed in enumerate((3, 5)):
        expected = torch.tensor(by_hand(setting[1], seed, reference))
        torch.testing.assert_close(losses[:, row], expected, rtol=1e-4, atol=1e-5)
    assert (losses[0] - losses[-1]).min() > 0.01


def test_the_users_optimizer_trains_as_in_a_plain_loop_and_keeps_the_ratio_of_its_groups() -> None:
    def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        assert isinstance(model, Net)
        groups = [{"params": model.embedding.parameters(), "lr": 4.0 * lr}, {"params": model.norm.parameters()}]
        return torch.optim.AdamW(groups, lr=lr)

    setting = made(lambda: Net(0.5), optimizer)
    population, losses = trained(UserPopulation, setting, [3, 5], [0.1, 0.02])
    expected = by_hand(setting[1], 3, lambda module: optimizer(module, 0.1))
    assert losses[:, 0].tolist() == expected  # bit for bit
    for row, lr in enumerate((0.1, 0.02)):
        assert [group["lr"] for group in population.users[row].groups] == pytest.approx([4.0 * lr, lr])


@pytest.mark.parametrize("optimizer", ["adam", lambda params, lr: torch.optim.SGD(params, lr, momentum=0.9)])
def test_a_replica_alone_and_in_a_population_is_the_same_bit_for_bit(optimizer: Any) -> None:
    setting = made(lambda: Net(0.5), optimizer)
    batches = setting[1]
    together, losses = trained(UserPopulation, setting, [1, 2, 7], [0.01, 3.0, 0.1])
    gradients = together.grad_RP[[0, 2]].clone()
    together.keep([0, 2])
    assert torch.equal(together.grad_RP, gradients)
    alone, own = trained(UserPopulation, setting, [7], [0.1])
    assert torch.equal(losses[:, 2], own[:, 0])
    lrs = torch.tensor([0.01, 0.1])
    after = together.step(batches.batch([1, 7], 6), lrs).loss_R
    assert torch.equal(after[1:], alone.step(batches.batch([7], 6), lrs[1:]).loss_R)
    assert torch.equal(together.theta_RP[1], alone.theta_RP[0])
    for a, b in zip(together.modules[1].buffers(), alone.modules[0].buffers(), strict=True):
        assert torch.equal(a, b)


def test_tied_parameters_are_one_and_frozen_ones_never_change() -> None:
    setting = made()
    population, _ = trained(UserPopulation, setting, [0], [0.5])
    (module,) = population.modules
    assert isinstance(module, Net)
    assert module.output.weight is module.embedding.weight
    names = [place.name for place in population.model.layout.parameters]
    assert "output.weight" not in names
    with seeded(0):
        fresh = Net()
    assert torch.equal(module.frozen.weight, fresh.frozen.weight)
    assert not torch.equal(module.embedding.weight, fresh.embedding.weight)


def test_evaluation_changes_nothing_and_validation_is_that_of_the_trained_model() -> None:
    setting = made(lambda: Net(0.5))
    population, _ = trained(UserPopulation, setting, [0], [0.1])
    batch = setting[1].batch([0], 0, VALIDATION)
    before = copy.deepcopy(population.modules[0].state_dict())
    random = torch.get_rng_state()
    as_trained, as_used = population.evaluate(batch), population.evaluate(batch, as_trained=False)
    assert all(torch.equal(value, before[key]) for key, value in population.modules[0].state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert population.modules[0].training
    module = copy.deepcopy(population.modules[0]).eval()
    x, y = batch[0].data
    expected = nn.functional.cross_entropy(module(x).flatten(0, 1), y.flatten())
    torch.testing.assert_close(as_used[0], expected.detach())
    assert as_trained != as_used


@pytest.mark.parametrize("optimizer", ["adam", lambda params, lr: torch.optim.AdamW(params, lr)])
def test_training_goes_on_from_a_state_bit_for_bit(optimizer: Any) -> None:
    setting = made(lambda: Net(0.5), optimizer)
    model, batches, training = setting
    whole, _ = trained(UserPopulation, setting, [1, 2], [0.1, 0.1])
    stored = copy.deepcopy(whole.state())
    resumed = UserPopulation(model, [1, 2], training)
    resumed.restore(stored)
    for population in (whole, resumed):
        population.step(batches.batch([1, 2], 6), torch.tensor([0.1, 0.1]))
    assert torch.equal(whole.theta_RP, resumed.theta_RP)
    for a, b in zip(whole.modules[1].buffers(), resumed.modules[1].buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optimizer", ["adam", lambda params, lr: torch.optim.SGD(params, lr)])
def test_half_precision_trains(dtype: torch.dtype, optimizer: Any) -> None:
    _, losses = trained(UserPopulation, made(Net, optimizer, dtype=dtype), [0, 1], [0.1, 0.1])
    assert losses.isfinite().all()
    assert (losses[0] > losses[-1]).all()


def test_replicas_stacked_in_one_computation_train_as_one_after_the_other() -> None:
    setting = made(Net, "momentum")
    assert stacks(*setting)
    stacked, together = trained(StackedUserPopulation, setting, [1, 2, 1], [0.1, 0.1, 1.0])
    _, one_by_one = trained(UserPopulation, setting, [1, 2, 1], [0.1, 0.1, 1.0])
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    batch = setting[1].batch([1, 1], 0, VALIDATION)
    stacked.keep([0, 2])
    assert stacked.evaluate(batch, as_trained=False).isfinite().all()
    stored = copy.deepcopy(stacked.state())
    resumed = StackedUserPopulation(setting[0], [1, 1], setting[2])
    resumed.restore(stored)
    losses = [p.step(setting[1].batch([1, 1], 9), torch.tensor([0.1, 1.0])).loss_R for p in (stacked, resumed)]
    assert torch.equal(*losses)


class Branches(Net):
    """Its Python looks at numbers, which one computation for several replicas cannot."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if float(self.norm.weight.sum()) > 0.0 else 1.0)


@pytest.mark.parametrize("build", [lambda: Net(0.5), Branches])
def test_what_draws_numbers_or_branches_on_them_is_not_stacked(build: Callable[[], nn.Module]) -> None:
    assert not stacks(*made(build))
    assert not stacks(*made(Net, lambda params, lr: torch.optim.SGD(params, lr)))


def test_an_optimizer_without_an_lr_is_scaled_by_its_first_group() -> None:
    def optimizer(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": params[:1], "lr": 0.2}, {"params": params[1:], "lr": 0.02}])

    model, batches, training = made(Net, optimizer)
    population = UserPopulation(model, [0], training)
    assert [group["lr"] for group in population.users[0].groups] == pytest.approx([FIRST_LR, FIRST_LR / 10.0])
    population.step(batches.batch([0], 0), torch.tensor([0.5]))
    assert [group["lr"] for group in population.users[0].groups] == pytest.approx([0.5, 0.05])


def test_a_batch_is_a_function_of_seed_step_and_stream() -> None:
    _, batches, _ = made()
    first, again, other, held = (
        batches.batch([4], 2)[0],
        batches.batch([9, 4], 2)[1],
        batches.batch([4], 3)[0],
        batches.batch([4], 2, VALIDATION)[0],
    )
    assert isinstance(first, UserBatch)
    assert torch.equal(first.data[0], again.data[0])
    assert first.seed == again.seed
    assert not torch.equal(first.data[0], other.data[0])
    assert not torch.equal(first.data[0], held.data[0])
