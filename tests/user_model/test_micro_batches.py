"""Accumulated gradients of the user's own model are those of a plain loop, and where they can be of the whole batch."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.cli.main import run as run_line
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import Training
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.theory import measure_theory
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import VALIDATION
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.bench import counted_by, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.micro_batches import MicroBatches, Split, no_mean
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation

CPU = torch.device("cpu")
BATCH, STEPS = 8, 6
ROUNDING = 2e-6  # of sums of float32 in another order
Named = namedtuple("Named", "x y")


@dataclass(frozen=True)
class Held:
    x: Tensor
    y: Tensor
    name: str = "held"


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(8, 20)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.embedding(x))
        return self.output(self.dropout(self.norm(h.mT).mT))


def draw(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Targets to be told from the inputs; rows have 1 to 6 of them, the others are ignored."""
    x = torch.randint(0, 20, (batch_size, 6), generator=generator)
    lengths = torch.randint(1, 7, (batch_size, 1), generator=generator)
    return x, ((3 * x) % 20).masked_fill(torch.arange(6) >= lengths, -100)


def made(
    micro_batch: int | None,
    build: Callable[..., nn.Module] = Net,
    optimizer: str | Callable[..., Any] = "sgd",
    loss_fn: Callable[..., Any] | None = None,
    batch: Callable[..., Any] = draw,
    **training: Any,
) -> tuple[UserModel, UserBatches, Training]:
    users = optimizer if callable(optimizer) else None
    factory = Factory("net", build, {}, {}, "", batch=batch, loss_fn=loss_fn, optimizer=users)
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", BATCH, 8), CPU, module, batch_size=BATCH)
    found = contract(factory, module, batches.batch([0], 0)[0].data)
    if micro_batch is not None:
        batches.accumulate(Split(micro_batch, counted_by(found, Constant(""))))
    chosen = USER_OPTIMIZER if users is not None else OPTIMIZERS[str(optimizer)]
    return UserModel(factory, found, "as-built", 1, 1), batches, Training(chosen, {}, CPU, **training)


def trained(setting: tuple[UserModel, UserBatches, Training], lr: float) -> tuple[UserPopulation, Tensor, Tensor]:
    """A population of seed 3, the loss of each step, and the gradient of the first."""
    model, batches, training = setting
    population = UserPopulation(model, [3], training, [lr])
    losses, gradients = [], []
    for step in range(STEPS):
        losses.append(population.step(batches.batch([3], step), torch.tensor([lr])).loss_R[0])
        gradients.append(population.grad_RP[0].clone())
    return population, torch.stack(losses), gradients[0]


def loop(
    batches: UserBatches,
    build: Callable[[], nn.Module],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    size: int,
    by_targets: bool = True,
) -> tuple[nn.Module, Tensor]:
    """As a person writes accumulation: divided by the targets of the batch, or by the number of micro-batches."""
    with seeded(3):
        module = build()
    users, losses = optimizer(module), []
    for step in range(STEPS):
        one = batches.batch([3], step)[0]
        x, y = one.data

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            users.zero_grad()
            total = torch.zeros(())
            parts = list(zip(x.split(size), y.split(size), strict=True))
            for x_part, y_part in parts:
                logits, labels = module(x_part).flatten(0, 1), y_part.flatten()
                if by_targets:
                    loss = F.cross_entropy(logits, labels, reduction="sum") / (y != -100).sum()
                else:
                    loss = F.cross_entropy(logits, labels) / len(parts)
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
                total = total + loss.detach()
            return total

        with seeded(one.seed):
            losses.append(closure() if not isinstance(users, torch.optim.LBFGS) else users.step(closure))
        if not isinstance(users, torch.optim.LBFGS):
            users.step()
    return module, torch.stack([torch.as_tensor(loss).detach() for loss in losses])


def row_of(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


TORCHS: dict[str, tuple[Callable[[nn.Module], torch.optim.Optimizer], float]] = {
    "sgd": (lambda m: torch.optim.SGD(m.parameters(), 0.5), 0.5),
    "momentum": (lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9), 0.1),
    "nesterov": (lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True), 0.1),
    "adagrad": (lambda m: torch.optim.Adagrad(m.parameters(), 0.05), 0.05),
    "rmsprop": (lambda m: torch.optim.RMSprop(m.parameters(), 0.01), 0.01),
    "adam": (lambda m: torch.optim.Adam(m.parameters(), 0.01), 0.01),
    "radam": (lambda m: torch.optim.RAdam(m.parameters(), 0.01), 0.01),
}


@pytest.mark.parametrize("size", [4, 1, 3])
@pytest.mark.parametrize("name", TORCHS)
def test_it_trains_as_a_plain_loop_that_accumulates(name: str, size: int) -> None:
    reference, lr = TORCHS[name]
    setting = made(size, lambda: Net(0.3), name)
    population, losses, _ = trained(setting, lr)
    module, expected = loop(setting[1], lambda: Net(0.3), reference, size)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(population.theta_RP[0], row_of(module), rtol=1e-4, atol=1e-5)
    assert losses[0] - losses[-1] > 0.01 or name == "radam"


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params, lr: torch.optim.AdamW(params, lr=lr),
        lambda params, lr: torch.optim.LBFGS(params, lr=lr, max_iter=3),
    ],
    ids=["adamw", "lbfgs"],
)
def test_so_it_does_with_the_users_optimizer_and_its_closures(optimizer: Callable[..., Any]) -> None:
    setting = made(2, optimizer=optimizer)
    population, losses, _ = trained(setting, 0.05)
    module, expected = loop(setting[1], Net, lambda m: optimizer(m.parameters(), 0.05), 2)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(population.theta_RP[0], row_of(module), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_micro_batches_are_the_whole_batch_whatever_the_optimizer_and_however_many_targets_a_row_has(name: str) -> None:
    lr = TORCHS.get(name, (None, 0.01))[1]
    population, whole, gradient_P = trained(made(None, optimizer=name), lr)
    for size in (1, 4):
        parts, losses, found_P = trained(made(size, optimizer=name), lr)
        assert (found_P - gradient_P).norm() <= ROUNDING * gradient_P.norm()
        torch.testing.assert_close(losses, whole, rtol=1e-4, atol=0.0)
        batch = made(size)[1].batch([3], 0, VALIDATION)
        torch.testing.assert_close(parts.evaluate(batch, False), population.evaluate(batch, False), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision_and_its_loss_scale_are_no_matter(dtype: torch.dtype, share: float) -> None:
    _, whole, gradient_P = trained(made(None, dtype=dtype, clip_norm=0.5), 0.1)
    _, losses, found_P = trained(made(2, dtype=dtype, clip_norm=0.5), 0.1)
    assert (found_P - gradient_P).norm() <= share * gradient_P.norm()
    torch.testing.assert_close(losses, whole, rtol=share, atol=0.0)


def test_of_a_loss_fn_of_ones_own_it_is_the_mean_of_the_micro_batch_losses() -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    setting = made(2, loss_fn=loss_fn)
    population, losses, _ = trained(setting, 0.5)
    module, expected = loop(setting[1], Net, TORCHS["sgd"][0], 2, by_targets=False)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(population.theta_RP[0], row_of(module), rtol=1e-4, atol=1e-5)


def test_buffers_take_in_every_micro_batch() -> None:
    setting = made(4, lambda: Net(norm=True))
    population, _, _ = trained(setting, 0.5)
    module, _ = loop(setting[1], lambda: Net(norm=True), TORCHS["sgd"][0], 4)
    for buffer, expected in zip(population.modules[0].buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-4, atol=1e-5)
    assert int(population.modules[0].norm.num_batches_tracked) == 2 * STEPS  # type: ignore[union-attr]


def test_a_batch_of_any_form_is_cut_and_what_has_no_axis_goes_along() -> None:
    x, y = torch.arange(6), torch.arange(12).view(6, 2)
    names = tuple("abcdef")
    batches: list[Any] = [
        (x, y),
        [x, y],
        {"x": x, "y": y, "names": names, "temperature": torch.tensor(2.0), "flag": True},
        Named(x, y),
        Held(x, y),
        {"inner": {"x": x}, "y": (y, x)},
        x,
    ]
    for batch in batches:
        found = Split(4)(batch)
        assert found.shares == (4 / 6, 2 / 6)
        first, last = found.parts
        assert type(first) is type(last) is type(batch)
    first, last = Split(4)(batches[2]).parts
    assert (first["names"], last["names"]) == (("a", "b", "c", "d"), ("e", "f"))
    assert torch.equal(last["y"], y[4:])
    assert last["temperature"] == 2.0
    assert last["flag"] is True
    assert Split(4)(batches[4]).parts[1].name == "held"
    assert Split(6)(batches[0]).parts == (batches[0],)
    given = MicroBatches((x, y), (0.5, 0.5))
    assert Split(2)(given) is given


class Graph:
    def __init__(self) -> None:
        self.x, self.edge_index = torch.zeros(9, 3), torch.zeros(2, 30)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((torch.zeros(9, 3), torch.zeros(2, 30)), "first axes of 2 and 9"),
        ([torch.zeros(3, 5), torch.zeros(4, 5)], "first axes of 3 and 4"),
        ({"seed": 3}, "no axis"),
        (Graph(), "a Graph cannot be split"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged), "a nested tensor"),
    ],
    ids=["graph", "ragged", "no tensors", "an object", "nested"],
)
def test_what_has_no_common_axis_of_examples_is_one_line(batch: Any, said: str) -> None:
    with pytest.raises(UserCodeError, match=said) as caught:
        Split(1)(batch)
    assert "leave out --accumulate" in caught.value.line
    assert "\n" not in caught.value.line


def test_a_micro_batch_without_targets_counts_nothing_and_a_batch_without_any_is_as_without_micro_batches() -> None:
    y = torch.tensor([[1, 2], [-100, -100], [3, -100]])
    weight = lambda data: float((data[1] >= 0).sum())  # noqa: E731
    found = Split(1, weight)((y, y))
    assert found.shares == (2 / 3, 1 / 3)
    assert torch.equal(found.parts[1][0], y[2:])
    none = Split(1, weight)((y, torch.full_like(y, -100)))
    assert none.shares == (1 / 3, 1 / 3, 1 / 3)


def test_theory_is_that_of_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(
        "from torch import nn\n\ndef build(width=8):\n"
        "    return nn.Sequential(nn.Embedding(256, width), nn.Tanh(), nn.Linear(width, 256))\n"
    )
    found = []
    for accumulate in (1, 4):
        settings = {"model": "model.py:build", "accumulate": accumulate, "seq_len": 8}
        spec = make_spec(LrRangeSpec, "quick", settings)
        bench = user_bench(spec, "as-built", 1, "adam", "cpu")
        found.append(measure_theory(bench, [2])[0].metrics)
    for name, bracket in found[0].items():
        assert found[1][name].low == pytest.approx(bracket.low, rel=1e-2), name


@pytest.mark.parametrize(
    ("build", "loss_fn", "told"),
    [
        (Net, None, False),
        (lambda: Net(0.5), None, False),  # other masks
        (lambda: Net(norm=True), None, True),
        (Net, lambda m, b: F.cross_entropy(m(b[0]).flatten(0, 1), b[1].flatten(), reduction="sum"), True),
        (Net, lambda m, b: (m(b[0]).mean((1, 2)) - torch.randn(len(b[0]))).square().mean(), False),
        (Net, lambda m, b: -F.log_softmax(m(b[0]).mean(1) @ m(b[0]).mean(1).T, 0).diagonal().mean(), True),
    ],
    ids=["mean", "dropout", "batchnorm", "sum", "noise", "contrast"],
)
def test_a_loss_that_is_no_mean_over_examples_is_told(build: Any, loss_fn: Any, told: bool) -> None:
    model, batches, _ = made(2, build, loss_fn=loss_fn)
    one = batches.batch([0], 0)[0]
    said = no_mean(model.contract.loss, model.make(0), one.data, one.parts, seeded)
    assert bool(said) is told
    assert said.startswith("the loss of 4 micro-batches is ") or not told


FILE = """
import torch
from torch import nn

def build(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

def batch(step, batch_size, generator):
    x = torch.randn({rows}, 4, generator=generator)
    return {batch}

def loss_fn(model, batch):
    return (model(batch["x"])[:, 0] - batch["x"].sum(1)).square().{reduction}()
"""
SHORT = "--seeds 1 --num-steps 20 --hold-steps 20 --no-theory --device cpu --batch-size 8 --accumulate 4".split()


@pytest.mark.parametrize(
    ("rows", "batch", "said"),
    [
        ("batch_size", '{"x": x, "edges": torch.zeros(2, 30)}', "first axes of 2 and 8"),
        ("32", '{"x": x}', "has 32 along the first axis of its tensors, and batch_size is 8; give --batch-size 32"),
    ],
    ids=["edges", "32 rows"],
)
def test_on_the_command_line_it_is_refused_before_training(
    rows: str,
    batch: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(FILE.format(rows=rows, batch=batch, reduction="mean"))
    assert run_line(["lr-range", "--model", "model.py:build", *SHORT]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error.replace("\n", " ")


def test_on_the_command_line_a_mean_runs_batchnorm_is_told_and_a_sum_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = FILE.format(rows="batch_size", batch='{"x": x}', reduction="mean")
    Path("plain.py").write_text(text)
    assert run_line(["lr-range", "--model", "plain.py:build", *SHORT]) == 0
    assert "micro-batches is" not in capsys.readouterr().err
    Path("normed.py").write_text(text.replace("nn.Tanh()", "nn.BatchNorm1d(width), nn.Tanh()"))
    assert run_line(["lr-range", "--model", "normed.py:build", *SHORT]) == 0
    assert "the statistics of BatchNorm are those of each micro-batch" in capsys.readouterr().err.replace("\n", " ")
    Path("summed.py").write_text(text.replace("mean()", "sum()"))
    assert run_line(["lr-range", "--model", "summed.py:build", *SHORT]) == 2
    assert "it is no mean over examples" in capsys.readouterr().err.replace("\n", " ")


def test_a_batch_sweep_of_ones_own_model_trains_every_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(FILE.format(rows="batch_size", batch='{"x": x}', reduction="mean"))
    line = "batch-sweep --model model.py:build --optimizer adam --seeds 1 --num-lrs 2 --batch-sizes 8,32 --tokens 2k"
    assert run_line([*line.split(), "--seq-len", "1", "--accumulate", "4", "--device", "cpu", "-j", "1"]) == 0
    assert "crashed" not in capsys.readouterr().err


@pytest.mark.parametrize("rows", ["16", "min(batch_size, 16)"])
def test_a_batch_sweep_whose_batches_do_not_grow_is_refused(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(FILE.format(rows=rows, batch='{"x": x}', reduction="mean"))
    line = "batch-sweep --model model.py:build --optimizer adam --seeds 1 --num-lrs 2 --tokens 10k"
    assert run_line([*line.split(), "--batch-sizes", "8,16,32", "--seq-len", "1", "--device", "cpu"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "batch_sizes: batch() of model.py:build gives" in said
    assert "examples for batch_size 8 and 16 for batch_size" in said


def test_who_takes_the_gradient_accumulates_there() -> None:
    from stresstest.user_model.bench import _check_accumulation

    spec = make_spec(LrRangeSpec, "quick", {"model": "model.py:build", "accumulate": 4})
    model, batches, _ = made(None)
    data = batches.batch([0], 0)[0].data
    _check_accumulation(spec, model.factory, data)
    for own in ({"backward": lambda module, batch, scale: None}, {"step": lambda module, batch, lr: 0.0}):
        with pytest.raises(UserCodeError, match="it takes its gradient itself; accumulate there"):
            _check_accumulation(spec, replace(model.factory, **own), data)
