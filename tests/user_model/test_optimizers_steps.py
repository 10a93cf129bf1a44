"""How a population steps the user's own optimizers: gradients, closures, modes, parameters and checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import heavyball
import pytest
import pytorch_optimizer
import schedulefree
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.engine.replicas import Training
from stresstest.tasks import load_task
from stresstest.tasks.task import VALIDATION
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation
from tests.user_model import zoo

CPU = torch.device("cpu")
LR = 0.05
Optimizer = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


def setting(
    optimizer: Optimizer, build: Callable[[], nn.Module] = zoo.build, batch: Callable[..., Any] = zoo.batch, **more: Any
) -> tuple[UserModel, UserBatches, Training]:
    factory = Factory("zoo", build, {}, {}, "", batch=batch, optimizer=optimizer)
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", 4, 8), CPU, module, batch_size=4)
    found = contract(factory, module, batches.batch([0], 0)[0].data)
    return UserModel(factory, found, "as-built", 1, 1), batches, Training(USER_OPTIMIZER, {}, CPU, **more)


def populated(
    found: tuple[UserModel, UserBatches, Training], steps: int, seeds: tuple[int, ...] = (0,), lr: float = LR
) -> tuple[UserPopulation, list[float]]:
    """A population built at `lr` after so many steps, and its first row's losses."""
    model, batches, training = found
    population = UserPopulation(model, seeds, training, [lr] * len(seeds))
    losses = [further(population, batches, step, seeds, lr) for step in range(steps)]
    return population, losses


def further(
    population: UserPopulation, batches: UserBatches, step: int, seeds: tuple[int, ...] = (0,), lr: float = LR
) -> float:
    readings = population.step(batches.batch(seeds, step), torch.full((len(seeds),), lr))
    return float(readings.loss_R[0])


def by_hand(optimizer: Optimizer, batches: UserBatches, steps: int, clip: float = math.inf) -> list[float]:
    """A plain loop that clips where a person would: after every backward pass."""
    with seeded(0):
        model = zoo.build()
    users = optimizer(model if "model" in optimizer.__code__.co_varnames[:1] else list(model.parameters()), LR)
    losses = []
    for step in range(steps):
        one = batches.batch([0], step)[0]

        def closure(data: Any = one.data) -> Tensor:
            users.zero_grad()
            loss = F.cross_entropy(model(data[0]).flatten(0, 1), data[1].flatten())
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            if math.isfinite(clip):
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return loss

        losses.append(float(closure()))
        users.step(closure) if isinstance(users, torch.optim.LBFGS | pytorch_optimizer.SAM) else users.step()
    return losses


@pytest.mark.parametrize(
    ("name", "steps"), [("lbfgs", 2), ("sam", 8), ("clears", 8), ("replaces", 8), ("heavy_adamw", 8)]
)
def test_clipping_reaches_every_gradient_whatever_the_optimizer_does_with_them(name: str, steps: int) -> None:
    found = setting(getattr(zoo, name), clip_norm=0.05)
    _, losses = populated(found, steps)
    assert losses == pytest.approx(by_hand(getattr(zoo, name), found[1], steps, clip=0.05), rel=1e-5)
    assert losses != pytest.approx(by_hand(getattr(zoo, name), found[1], steps), rel=1e-5)  # it does clip


@pytest.mark.parametrize("name", ["adamw", "clears", "heavy_adamw", "sam", "lbfgs", "sparse_adam", "replaces"])
def test_norms_and_probes_see_the_gradient_of_the_step_and_parameters_stay_in_the_matrix(name: str) -> None:
    model, batches, training = setting(getattr(zoo, name))
    population, _ = populated((model, batches, training), 3)
    (module,) = population.modules
    with seeded(0):
        reference = zoo.build()
    reference.load_state_dict(module.state_dict())
    one = batches.batch([0], 3)[0]
    F.cross_entropy(reference(one.data[0]).flatten(0, 1), one.data[1].flatten()).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    readings = population.step([one], torch.tensor([LR]))
    torch.testing.assert_close(population.grad_RP[0], expected, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(readings.grad_norm_R[0], expected.norm())
    row = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.equal(population.theta_RP[0], row)
    population.theta_RP.zero_()
    assert all(not p.any() for p in module.parameters())


def test_sparse_gradients_are_clipped_and_stay_sparse_for_the_optimizer_that_needs_them() -> None:
    seen: list[bool] = []

    class Seeing(torch.optim.SparseAdam):
        def step(self, closure: Any = None) -> None:
            (parameter,) = self.param_groups[0]["params"]
            seen.append(parameter.grad.is_sparse)
            norms.append(float(parameter.grad.coalesce().values().norm()))
            super().step(closure)

    norms: list[float] = []

    def optimizer(model: nn.Sequential, lr: float) -> list[torch.optim.Optimizer]:
        model[0].sparse = True  # type: ignore[assignment]
        rest = [p for p in model.parameters() if p is not model[0].weight]
        return [Seeing([model[0].weight], lr=lr), torch.optim.SGD(rest, lr=lr)]  # type: ignore[list-item]

    populated(setting(optimizer, clip_norm=0.01), 4)
    assert seen == [True] * 4
    assert max(norms) <= 0.01


def test_buffers_take_a_batch_in_once_though_a_closure_sees_it_again() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm, self.last = nn.Embedding(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 16)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.norm(self.embedding(x).mT).mT)
            return out

    population, _ = populated(setting(lambda params, lr: torch.optim.LBFGS(params, lr=lr, max_iter=1), Net), 3)
    (module,) = population.modules
    assert int(module.norm.num_batches_tracked) == 3  # type: ignore[union-attr, arg-type]


def test_a_parameter_without_a_gradient_is_left_alone_as_in_a_plain_loop() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.unused = zoo.build(), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            return out

    population, _ = populated(setting(lambda params, lr: torch.optim.AdamW(params, lr, weight_decay=0.5), Net), 3)
    assert torch.equal(population.modules[0].unused, torch.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sf_adamw", "sf_sgd", "heavy_sfadamw"])
@pytest.mark.parametrize("as_trained", [True, False])
def test_a_schedule_free_model_is_evaluated_at_its_average_and_goes_on_unchanged(name: str, as_trained: bool) -> None:
    found = setting(getattr(zoo, name))
    looked, plain = populated(found, 12)[0], populated(found, 12)[0]
    batch = found[1].batch([0], 0, VALIDATION)
    trained = looked.evaluate(batch, as_trained)
    assert torch.equal(looked.theta_RP, plain.theta_RP)
    plain.users[0].each[0].eval()
    x, y = batch[0].data
    with torch.no_grad():
        expected = F.cross_entropy(plain.modules[0](x).flatten(0, 1), y.flatten())
    assert torch.equal(trained[0], expected)
    plain.users[0].each[0].train()
    with torch.no_grad():
        at_the_training_point = F.cross_entropy(looked.modules[0](x).flatten(0, 1), y.flatten())
    assert abs(float(at_the_training_point - expected)) > 1e-4
    straight = populated(found, 13)[0]
    further(looked, found[1], 12)
    assert torch.equal(looked.theta_RP, straight.theta_RP)


@pytest.mark.parametrize(
    "name", ["muon", "sparse_adam", "sam", "lookahead", "sf_adamw", "heavy_sfadamw", "lbfgs", "soap"]
)
def test_training_goes_on_from_a_checkpoint_and_after_a_neighbour_is_dropped_bit_for_bit(name: str) -> None:
    model, batches, training = found = setting(getattr(zoo, name))
    whole, _ = populated(found, 5, (1, 2))
    resumed = UserPopulation(model, [1, 2], training, [LR, LR])
    resumed.restore(copy.deepcopy(whole.state()))
    for population in (whole, resumed):
        further(population, batches, 5, (1, 2))
    assert torch.equal(whole.theta_RP, resumed.theta_RP)
    whole.keep([1])
    alone, _ = populated(found, 6, (2,))
    batch = batches.batch([2], 0, VALIDATION)
    assert torch.equal(whole.evaluate(batch), alone.evaluate(batch))  # at once: before another step
    further(whole, batches, 6, (2,))
    further(alone, batches, 6, (2,))
    assert torch.equal(whole.theta_RP, alone.theta_RP)


def test_each_row_is_built_at_its_own_lr() -> None:
    model, _, training = setting(zoo.const_wd)
    population = UserPopulation(model, [0, 0], training, [0.5, 0.25])
    decays = [users.groups[0]["weight_decay"] for users in population.users]
    assert decays == [0.001 / 0.5, 0.001 / 0.25]


def test_an_optimizer_that_draws_numbers_is_a_function_of_seed_and_step() -> None:
    class Noisy(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.add_(torch.randn_like(parameter), alpha=1e-3)

    found = setting(lambda params, lr: Noisy(params, lr=lr))
    first, again = populated(found, 3, (4, 5))[0], populated(found, 3, (5,))[0]
    assert torch.equal(first.theta_RP[1], again.theta_RP[0])
    assert not torch.equal(first.theta_RP[0], first.theta_RP[1])


def test_what_is_no_longer_the_models_parameter_is_one_line() -> None:
    class Halves(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                parameter.data = parameter.data.half()

    with pytest.raises(
        UserCodeError, match=r"the optimizer changed 0\.weight to float16 \[16, 16\]; it must stay float32"
    ):
        populated(setting(lambda params, lr: Halves(params, lr=lr)), 1)

    def freezes(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        model[0].requires_grad_(False)  # type: ignore[index]
        return torch.optim.SGD(model.parameters(), lr=lr)

    def others(params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=lr)

    with pytest.raises(UserCodeError, match="change or freeze them in the factory"):
        populated(setting(freezes), 1)
    with pytest.raises(UserCodeError, match="holds none of the model's parameters"):
        populated(setting(others), 1)
    with pytest.raises(UserCodeError, match=r"returned Linear; return a torch\.optim\.Optimizer"):
        populated(setting(lambda params, lr: nn.Linear(1, 1)), 1)


def doubled(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch_size, 3, generator=generator, dtype=torch.float64)
    return x, x.prod(1, keepdim=True)


@pytest.mark.parametrize("optimizer", [None, lambda params, lr: torch.optim.Adam(params, lr=lr)])
def test_a_float64_model_trains_in_float64(optimizer: Optimizer | None) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    model, batches, training = setting(optimizer or zoo.adam, build, doubled)
    if optimizer is None:
        from stresstest.engine.optimizers import OPTIMIZERS

        training = Training(OPTIMIZERS["adamw"], {"weight_decay": 0.0}, CPU)
    population, _ = populated((model, batches, training), 5)
    with seeded(0):
        module = build()
    users = torch.optim.Adam(module.parameters(), lr=float(torch.tensor(LR)) if optimizer is None else LR)
    for step in range(5):
        x, y = batches.batch([0], step)[0].data
        users.zero_grad()
        F.mse_loss(module(x), y).backward()
        users.step()
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert population.theta_RP.dtype == torch.float64
    torch.testing.assert_close(population.theta_RP[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["adamw", "clears", "sam", "heavy_adamw", "sparse_adam", "adafactor"])
def test_half_precision_hands_the_optimizer_unscaled_gradients(name: str, dtype: torch.dtype) -> None:
    found = setting(getattr(zoo, name), dtype=dtype)
    single = setting(getattr(zoo, name))
    _, losses = populated(found, 10)
    _, expected = populated(single, 10)
    assert losses == pytest.approx(expected, rel=0.1)
    assert losses[-1] < losses[0] - 0.1


def test_libraries_have_the_modes_that_this_relies_on() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    for one in (schedulefree.SGDScheduleFree(parameters), heavyball.SFAdamW(parameters)):
        assert callable(one.train)
        assert callable(one.eval)
