"""`step(model, batch, lr)`: a training step that is the user's own, from beginning to end."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stresstest
from stresstest.cli.main import run
from stresstest.errors import ConfigError, ModelError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.journal import Journal, NotKeptError
from stresstest.user_model.bench import UserBench, resolve_user_model, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.factory import register_callable, seeded
from stresstest.user_model.preflight import preflight

LR = 0.02
FEW: dict[str, Any] = {
    "seeds": 1,
    "num_steps": 60,
    "hold_steps": 40,
    "start_lr": 1e-3,
    "theory": False,
    "probes": "off",
}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.rand(16, 4, generator=generator)
    return x, 4.0 * x.norm(dim=1, keepdim=True) - 4.0


def loss_of(model: nn.Module, data: Any) -> Tensor:
    return F.mse_loss(model(data[0]), data[1])


def optimizer_of(model: Any, lr: float, kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Any:
    """As people write it: made at the first step, told the LR at each."""
    if not hasattr(model, "opt"):
        model.opt = kind(model.parameters(), lr=lr, **options)
    for group in model.opt.param_groups:
        group["lr"] = lr
    return model.opt


def adam(model: Any, batch: Any, lr: float) -> float:
    optimizer = optimizer_of(model, lr, torch.optim.Adam)
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def lbfgs(model: Any, batch: Any, lr: float) -> Any:
    optimizer = optimizer_of(model, lr, torch.optim.LBFGS, max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    return optimizer.step(closure)


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation, which wraps another optimizer as published code does."""

    def __init__(self, params: Any, lr: float, rho: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "rho": rho})
        self.base = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def climb(self) -> None:
        norm = torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm() + 1e-12
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["up"] = up = 0.05 * p.grad / norm
                p.add_(up)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p]["up"])
        self.base.step()


def sam(model: Any, batch: Any, lr: float) -> dict[str, Any]:
    optimizer = optimizer_of(model, lr, Sam)
    state = torch.get_rng_state()
    loss = loss_of(model, batch)
    loss.backward()
    optimizer.climb()
    optimizer.zero_grad()
    torch.set_rng_state(state)
    loss_of(model, batch).backward()
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": loss.detach(), "rho": 0.05}


def accumulated(model: Any, batch: Any, lr: float) -> np.floating[Any]:
    optimizer = optimizer_of(model, lr, torch.optim.SGD)
    optimizer.zero_grad()
    losses = []
    for x, y in zip(batch[0].chunk(4), batch[1].chunk(4), strict=True):
        loss = loss_of(model, (x, y)) / 4
        loss.backward()
        losses.append(loss.item())
    optimizer.step()
    return np.float64(sum(losses))


def averaged(model: Any, batch: Any, lr: float) -> float:
    value = adam(model, batch, lr)
    if not hasattr(model, "average"):
        model.average = [p.detach().clone() for p in model.parameters()]
    for mean, p in zip(model.average, model.parameters(), strict=True):
        mean.lerp_(p.detach(), 0.1)
    return value


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(4, 16), nn.Linear(16, 1), nn.Linear(16, 1)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.opts: list[Any] = []


def actor_critic(model: Any, batch: Any, lr: float) -> dict[str, Any]:
    x, y = batch
    if not model.opts:
        model.opts += [
            torch.optim.Adam([*model.body.parameters(), *model.actor.parameters()], lr),
            torch.optim.Adam(model.critic.parameters(), 3 * lr),
        ]
    for optimizer, times in zip(model.opts, (1.0, 3.0), strict=True):
        optimizer.param_groups[0]["lr"] = lr * times
    h = model.body(x).tanh()
    critic = F.mse_loss(model.critic(h.detach()), y)
    actor = F.mse_loss(model.actor(h), y - 0.01 * model.slow(h).detach())
    for optimizer, loss in zip(model.opts, (actor, critic), strict=True):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for slow, fast in zip(model.slow.parameters(), model.critic.parameters(), strict=True):
        slow.lerp_(fast.detach(), 0.05)
    return {"loss": actor + critic, "actor_loss": actor}


LOOPS = [adam, lbfgs, sam, accumulated, averaged, actor_critic]


def model_for(step: Callable[..., Any]) -> Callable[[], nn.Module]:
    return ActorCritic if step is actor_critic else build


@contextmanager
def bench_of(step: Callable[..., Any]) -> Iterator[UserBench]:
    with register_callable(model_for(step), {}, batch=batch, step=step) as name:
        spec = resolve_user_model(LrRangeSpec(model=name, device="cpu"), sweeps_depth=False)
        yield user_bench(spec, "as-built", 1, "own", "cpu", constant=Constant("not looked for"))


def checked(step: Callable[..., Any], **settings: Any) -> None:
    with register_callable(build, {}, batch=batch, step=step) as name:
        spec = resolve_user_model(LrRangeSpec(model=name, device="cpu", **settings), sweeps_depth=False)
        preflight(spec, [1], "cpu")


def refused(step: Callable[..., Any], **settings: Any) -> str:
    """The line of the preflight."""
    with pytest.raises((ConfigError, ModelError)) as error:
        checked(step, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("step", LOOPS)
def test_replicas_take_the_steps_of_the_loop_by_hand_to_the_bit(step: Callable[..., Any]) -> None:
    with bench_of(step) as bench:
        population = bench.populate([0, 1], [LR, 2 * LR])
        modules = []
        for seed in (0, 1):
            with seeded(seed):
                modules.append(model_for(step)())
        for t in range(8):
            batches = bench.batches.batch([0, 1], t)
            readings = population.step(batches, torch.tensor([LR, 2 * LR]))
            for row, (module, one) in enumerate(zip(modules, batches, strict=True)):
                with seeded(one.seed):
                    value = step(module, one.data, LR * (1 + row))
                value = value["loss"] if isinstance(value, dict) else value
                assert float(readings.loss_R[row]) == pytest.approx(float(torch.as_tensor(value).detach()), rel=1e-6)
        for row, module in enumerate(modules):
            expected = torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])
            assert torch.equal(population.theta_RP[row], expected)


@pytest.mark.parametrize("step", LOOPS)
def test_reading_the_number_and_dropping_a_row_change_no_other_row(step: Callable[..., Any]) -> None:
    with bench_of(step) as bench:
        looked, alone = bench.populate([0, 1], [LR, LR]), bench.populate([1], [LR])
        for t in range(6):
            if t == 3:
                looked.keep([1])
            seeds = [0, 1] if t < 3 else [1]
            looked.evaluate(bench.batches.batch(seeds, t + 100))
            looked.step(bench.batches.batch(seeds, t), torch.full((len(seeds),), LR))
            alone.step(bench.batches.batch([1], t), torch.tensor([LR]))
        assert torch.equal(looked.theta_RP[-1], alone.theta_RP[0])


@pytest.mark.parametrize("step", LOOPS)
def test_a_resumed_cell_goes_on_to_the_bit(step: Callable[..., Any], tmp_path: Path) -> None:
    with bench_of(step) as bench:
        one, other = bench.populate([0], [LR]), bench.populate([0], [LR])
        for t in range(4):
            one.step(bench.batches.batch([0], t), torch.tensor([LR]))
        file = tmp_path / "state.pt"
        torch.save(one.state(), file)
        other.restore(torch.load(file, weights_only=False))
        for t in range(4, 8):
            for population in (one, other):
                population.step(bench.batches.batch([0], t), torch.tensor([LR]))
        assert torch.equal(one.theta_RP, other.theta_RP)


def test_a_model_with_what_cannot_be_stored_starts_anew_and_loses_nothing_else(tmp_path: Path) -> None:
    def step(model: Any, batch: Any, lr: float) -> float:
        model.scale = lambda x: 1.0 * x
        return adam(model, batch, lr)

    with bench_of(step) as bench:
        population = bench.populate([0], [LR])
        population.step(bench.batches.batch([0], 0), torch.tensor([LR]))
        with pytest.raises(NotKeptError):
            population.state()
        journal = Journal(tmp_path / "checkpoints" / "a.pt")
        journal.finish("before", [1])
        journal._saved_at = -math.inf  # it is time
        journal.offer("now", population.state)
    again = Journal(tmp_path / "checkpoints" / "a.pt")
    assert again.finished("before") == [1]
    assert again.under_way("now") is None


def test_a_plain_loop_gives_the_verdict_of_the_same_model_through_the_normal_path() -> None:
    def optimizer(params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr)

    ours = stresstest.lr_range(build, batch=batch, step=adam, **FEW)
    theirs = stresstest.lr_range(build, batch=batch, optimizer=optimizer, **FEW)
    for mine, other in zip(ours.cells, theirs.cells, strict=True):
        assert mine.metrics == other.metrics


class Gan(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        self.d = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        self.g_opt = torch.optim.Adam(self.g.parameters(), betas=(0.5, 0.9))
        self.d_opt = torch.optim.Adam(self.d.parameters(), betas=(0.5, 0.9))


def blob(step: int, batch_size: int, generator: torch.Generator) -> Tensor:
    return 0.3 * torch.randn(64, 2, generator=generator) + torch.tensor([3.0, -2.0])


def distance(fake: Tensor, real: Tensor) -> Tensor:
    """Of the means and spreads."""
    return (fake.mean(0) - real.mean(0)).norm() + (fake.std(0) - real.std(0)).norm()


def wgan(model: Gan, batch: Tensor, lr: float) -> float:
    for optimizer, times in ((model.g_opt, 1.0), (model.d_opt, 2.0)):
        optimizer.param_groups[0]["lr"] = lr * times
    noise = torch.randn(len(batch), 2)
    for _ in range(2):
        fake = model.g(noise).detach()
        mixed = (0.5 * fake + 0.5 * batch).requires_grad_()
        (slope,) = torch.autograd.grad(model.d(mixed).sum(), mixed, create_graph=True)
        loss = model.d(fake).mean() - model.d(batch).mean() + 10.0 * (slope.norm(dim=1) - 1.0).square().mean()
        model.d_opt.zero_grad()
        loss.backward()
        model.d_opt.step()
    with torch.no_grad():
        judged = float(distance(model.g(noise), batch))
    model.g_opt.zero_grad()
    (-model.d(model.g(noise)).mean()).backward()
    model.g_opt.step()
    return judged


def test_a_gan_is_judged_by_the_distance_that_it_computes() -> None:
    few = {**FEW, "num_steps": 200, "hold_steps": 150, "end_lr": 30.0}
    result = stresstest.lr_range(Gan, batch=blob, step=wgan, **few)
    (cell,) = result.cells
    boundary = cell.metrics["max_stable_lr"]
    assert 1e-3 < boundary.low < boundary.high

    for lr, learns in ((0.5 * boundary.low, True), (32.0 * boundary.high, False)):
        generator = torch.Generator().manual_seed(1)
        with seeded(0):
            model = Gan()
            judged = [wgan(model, blob(t, 64, generator), lr) for t in range(150)]
        assert (np.mean(judged[-30:]) < 0.8 * judged[0]) == learns


def test_a_step_that_raises_costs_its_cell_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    return nn.Linear(4, 1)\n"
        "def batch(step, batch_size, generator):\n    return torch.rand(8, 4, generator=generator)\n"
        "def step(model, batch, lr):\n"
        "    if not hasattr(model, 'opt'): model.opt = torch.optim.SGD(model.parameters(), lr)\n"
        "    model.opt.param_groups[0]['lr'] = lr\n"
        "    model.opt.zero_grad()\n"
        "    loss = (model(batch) - 3.0).square().mean()\n"
        "    loss.backward()\n"
        "    model.opt.step()\n"
        "    if loss > 1e3: raise ValueError('the loss is too large')\n"
        "    return loss\n"
    )
    monkeypatch.chdir(tmp_path)
    few = "--seeds 1 --num-steps 60 --hold-steps 20 --no-theory -q -j 1".split()
    assert run(["lr-range", "--model", "m.py:build", *few]) == 4


def test_a_step_that_turns_into_nan_breaks_and_does_not_crash() -> None:
    def sgd(model: Any, batch: Any, lr: float) -> Tensor:
        optimizer = optimizer_of(model, lr, torch.optim.SGD)
        optimizer.zero_grad()
        loss = loss_of(model, batch) ** 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    with bench_of(sgd) as bench:
        population = bench.populate([0], [1e4])
        health = [int(population.step(bench.batches.batch([0], t), torch.tensor([1e4])).health_R) for t in range(12)]
    assert health[0] == 0
    assert health[-1] != 0


def shared(module_of: list[Any]) -> Callable[..., float]:
    def step(model: Any, batch: Any, lr: float) -> float:
        if not module_of:
            module_of.append(torch.optim.SGD(model.parameters(), lr))
        module_of[0].param_groups[0]["lr"] = lr
        module_of[0].zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        module_of[0].step()
        return loss.item()

    return step


def by_identity(found: dict[int, Any]) -> Callable[..., float]:
    def step(model: Any, batch: Any, lr: float) -> float:
        optimizer = found.setdefault(id(model), torch.optim.Adam(model.parameters(), lr))
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def never_told(model: Any, batch: Any, lr: float) -> float:
    if not hasattr(model, "opt"):
        model.opt = torch.optim.Adam(model.parameters(), lr)
    model.opt.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    model.opt.step()
    return loss.item()


def only_looks(model: Any, batch: Any, lr: float) -> float:
    return loss_of(model, batch).item()


def says_nothing(model: Any, batch: Any, lr: float) -> None:
    adam(model, batch, lr)


def counts(calls: list[int]) -> Callable[..., float]:
    def step(model: Any, batch: Any, lr: float) -> float:
        calls.append(1)
        return adam(model, batch, lr) + len(calls)

    return step


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (shared([]), "with an optimizer of each model's own (model.opt = ...)"),
        (by_identity({}), "keep all that a step leaves for the next on the model"),
        (counts([]), "the same step from the same start returns"),
        (never_told, "its lr"),
        (only_looks, "change no parameter of the model"),
        (says_nothing, "returned NoneType, not a loss"),
    ],
)
def test_a_step_whose_number_would_mean_nothing_is_one_line(step: Callable[..., Any], words: str) -> None:
    assert words in refused(step)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "adam"}, "optimizer adam: step(model, batch, lr)"),
        ({"clip_norm": 1.0}, "clip in the step"),
        ({"dtype": "float16"}, "use bfloat16"),
    ],
)
def test_settings_that_a_whole_step_leaves_no_room_for_are_one_line(settings: dict[str, Any], words: str) -> None:
    assert words in refused(adam, **settings)
