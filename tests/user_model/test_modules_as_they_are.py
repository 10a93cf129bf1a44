"""Modules as people have them, compiled, wrapped or checkpointed: each beside a plain loop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from stresstest.engine.curvature import HessianProduct
from stresstest.errors import ConfigError
from stresstest.user_model.population import UserPopulation, user_objective
from stresstest.user_model.wrapped import num_graphs
from tests.user_model.beside import CPU, FILE, LR, STEPS, Build, by_hand, decayed, in_dtype, populated, said, setting


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Checkpointed(nn.Module):
    """A block whose activations are computed anew in the backward pass, or not."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.reentrant is None:
            return self.last(x + self.block(x))  # type: ignore[no-any-return]
        return self.last(x + checkpoint(self.block, x, use_reentrant=self.reentrant))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # where the loss is only evaluated
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_no_loss(reentrant: bool) -> None:
    checkpointed = populated(setting(lambda: Checkpointed(reentrant), "adam"))[1]
    assert checkpointed == populated(setting(lambda: Checkpointed(None), "adam"))[1]


def gpt2(checkpointing: bool) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=16, vocab_size=16, n_positions=16, num_labels=3, pad_token_id=0
    )
    found: nn.Module = transformers.GPT2ForSequenceClassification(config)
    if checkpointing:
        found.gradient_checkpointing_enable()  # type: ignore[operator]
    return found


def tokens(step: int, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
    ids = torch.randint(1, 16, (batch_size, 8), generator=generator)
    return {"input_ids": ids, "labels": ids[:, -1] % 3}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_gradient_checkpointing_of_hugging_face_changes_no_loss() -> None:
    losses = [
        populated(setting(lambda on=on: gpt2(on), "adam", batch=tokens))[1]  # type: ignore[misc]
        for on in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # it switches its cache off, too


def compiled_inside() -> nn.Module:
    module = in_dtype(torch.float32)()
    module[0] = torch.compile(module[0], backend="aot_eager")  # type: ignore[index,operator]
    return module


class Outer(nn.Module):
    """A forward of its own: compile() in place leaves those of torch's containers as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = in_dtype(torch.float32)()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def compiled_in_place() -> nn.Module:
    module = Outer()
    module.compile(backend="aot_eager", dynamic=True)
    return module


def compiled() -> nn.Module:
    return torch.compile(in_dtype(torch.float32)(), backend="aot_eager")  # type: ignore[return-value]


@pytest.mark.parametrize("build", [compiled, compiled_inside, compiled_in_place])
def test_a_compiled_module_is_compiled_once_and_trains_as_the_plain_one(build: Build) -> None:
    torch.compiler.reset()
    made = setting(build, "adam")
    before = num_graphs()
    population, losses = populated(made, (3, 4))
    once = num_graphs()
    batch = made[1].batch((3, 4), 0)
    population.look(batch)
    for as_trained in (True, False):
        population.evaluate(batch, as_trained)
    theta_P, loss = user_objective(made[0], batch[0], 3, CPU)
    HessianProduct(loss, theta_P)(torch.ones_like(theta_P))
    populated(made, (5,))
    assert (once - before, num_graphs() - once) == (1, 0)
    assert losses == pytest.approx(populated(setting(in_dtype(torch.float32), "adam"))[1], rel=1e-5)
    assert losses == pytest.approx(by_hand(made, decayed(torch.optim.Adam))[1], rel=1e-5)


def test_that_a_training_step_is_compiled_is_said(in_tmp: None) -> None:
    text = said("compiled", FILE + "    return torch.compile(net(), backend='eager')\n")
    assert "its training step runs compiled" in text
    assert "evaluations, probes and theory run uncompiled" in text


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # of torch's own import
def test_a_missing_compiler_is_one_line(in_tmp: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path.cwd() / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/g++"))
    with pytest.raises(ConfigError, match=r"finds no compiler that works .*; install one \(g\+\+, or set CXX\), or"):
        said("uncompiled", FILE + "    return torch.compile(net())\n")
    torch.compiler.reset()


def test_wrappers_for_several_devices_are_taken_off_and_said(in_tmp: None) -> None:
    assert "DataParallel is taken off" in said("parallel", FILE + "    return nn.DataParallel(net())\n")
    with pytest.raises(ConfigError, match="compiles a module that is wrapped for several devices"):
        said("both", FILE + "    return torch.compile(nn.DataParallel(net()), backend='eager')\n")
    wrapped = setting(lambda: nn.DataParallel(in_dtype(torch.float32)()), "adam")
    assert populated(wrapped)[1] == populated(setting(in_dtype(torch.float32), "adam"))[1]


def test_a_distributed_wrapper_of_one_process_is_taken_off() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = setting(lambda: nn.parallel.DistributedDataParallel(in_dtype(torch.float32)()), "adam")
        assert populated(wrapped)[1] == populated(setting(in_dtype(torch.float32), "adam"))[1]
    finally:
        torch.distributed.destroy_process_group()


class Observed(nn.Module):
    """Fake quantisation, whose observers have no size before the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
        self.inner = FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
        self.weights = FakeQuantize(
            MovingAveragePerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(F.linear(x, self.weights(self.first.weight), self.first.bias))
        return self.last(self.inner(x))  # type: ignore[no-any-return]


class Averaged(nn.Module):
    """An exponential moving average of the weights inside, which is what is evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.net = in_dtype(torch.float32)()
        self.average = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.5))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.average.update_parameters(self.net)
        return (self.net if self.training else self.average)(x)  # type: ignore[no-any-return]


class Momentum(nn.Module):
    """A frozen copy that follows the weights by `.data`, which autograd does not see, and a buffer that appears."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.copy = in_dtype(torch.float32)(), in_dtype(torch.float32)().requires_grad_(False)
        self.mean: Tensor | None
        self.register_buffer("mean", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            for old, new in zip(self.copy.parameters(), self.net.parameters(), strict=True):
                old.data.mul_(0.5).add_(new.data, alpha=0.5)
            self.mean = x.detach().mean(0) if self.mean is None else 0.5 * (self.mean + x.detach().mean(0))
        return self.net(x - self.mean) + 0.1 * self.copy(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("build", [Observed, Averaged, Momentum])
@pytest.mark.parametrize("optimizer", ["adam", lambda params, lr: torch.optim.Adam(params, lr=lr)])
def test_what_a_module_carries_is_kept_stored_and_as_by_hand(build: Build, optimizer: Any) -> None:
    made = setting(build, optimizer)
    fresh = UserPopulation(made[0], (3,), made[2], [LR])
    before = fresh.modules[0].state_dict()
    before = {name: value.clone() for name, value in before.items()}
    fresh.evaluate(made[1].batch((3,), 0))
    fresh.look(made[1].batch((3,), 0))
    after = fresh.modules[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    whole, losses = populated(made)
    module, expected = by_hand(made, lambda module: torch.optim.Adam(module.parameters(), lr=LR))
    assert losses == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(whole.modules[0].buffers(), module.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    resumed = UserPopulation(made[0], (3,), made[2], [LR])
    resumed.restore(copy.deepcopy(whole.state()))
    ends = [population.evaluate(made[1].batch((3,), 40), as_trained=False) for population in (whole, resumed)]
    assert torch.equal(*ends)
    steps = [p.step(made[1].batch((3,), STEPS), torch.tensor([LR])).loss_R for p in (whole, resumed)]
    assert torch.equal(*steps)
    assert torch.equal(whole.theta_RP, resumed.theta_RP)


def test_averages_of_weights_are_not_trained() -> None:
    layout = setting(Averaged)[0].layout
    assert {parameter.name.partition(".")[0] for parameter in layout.parameters} == {"net"}


def parametrized(kind: str) -> Build:
    def build() -> nn.Module:
        first = getattr(nn.utils.parametrizations, kind)(nn.Linear(8, 8))
        return nn.Sequential(first, nn.Tanh(), nn.Linear(8, 3))

    return build


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
    module[2].weight = module[0].weight
    return module


def turned() -> nn.Module:
    module = in_dtype(torch.float32)()
    weight = module[0].weight.detach().t().contiguous().t()  # type: ignore[index,union-attr,operator]
    module[0].weight = nn.Parameter(weight)  # type: ignore[index,union-attr]
    return module


def hooked() -> nn.Module:
    module: Any = in_dtype(torch.float32)()
    module[0].register_forward_hook(lambda part, given, output: output * 2)
    module[1].register_full_backward_hook(lambda part, into, out: (into[0] * 0.5,))
    module[3].weight.register_hook(lambda gradient: gradient * 2)
    return module  # type: ignore[no-any-return]


def run_once() -> nn.Module:
    module = nn.Sequential(nn.LazyLinear(16), nn.Tanh(), nn.Linear(16, 3))
    module(torch.zeros(1, 8))
    return module


def scripted() -> nn.Module:
    return torch.jit.script(in_dtype(torch.float32)())  # type: ignore[no-any-return]


def traced() -> nn.Module:
    return torch.jit.trace(in_dtype(torch.float32)(), torch.zeros(2, 8))  # type: ignore[no-any-return]


KINDS = {
    "weight_norm": parametrized("weight_norm"),
    "spectral_norm": parametrized("spectral_norm"),
    "orthogonal": parametrized("orthogonal"),
    "tied": tied,
    "not contiguous": turned,
    "hooks": hooked,
    "lazy, run once": run_once,
    "script": scripted,
    "trace": traced,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_modules_train_as_by_hand(kind: str) -> None:
    made = setting(KINDS[kind], "adam")
    population, losses = populated(made)
    _, expected = by_hand(made, decayed(torch.optim.Adam))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert population.look(made[1].batch((3,), 0)).replicas == 1


CREATES = """
class Creates(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)

    def forward(self, x):
        if not hasattr(self, "last"):
            self.last = nn.Linear(16, 3)
        return self.last(self.first(x))

def build():
    return Creates()
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CREATES, r"the forward pass creates last\.weight, which no optimizer would hold; create all parameters in"),
        ("    return nn.Sequential(nn.LazyLinear(3))\n", r"parameter 0\.weight has no shape yet; run its lazy module"),
        (
            "    module = net()\n    module[0].bias = nn.Parameter(torch.zeros(1).expand(16))\n    return module\n",
            r"parameter 0\.bias is expanded, .* build it with \.clone\(\) after expand\(\)",
        ),
    ],
)
def test_parameters_that_no_optimizer_can_step_are_one_line(in_tmp: None, text: str, line: str) -> None:
    before = FILE.removesuffix("def build():\n") if text is CREATES else FILE
    with pytest.raises(ConfigError, match=line):
        said(f"refused_{abs(hash(text))}", before + text)
