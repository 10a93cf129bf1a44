"""What is read in training is what torch says by another way, and reading it changes no bit of the training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.probes import ActivationSnapshot, Probing, look_at
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches, train
from stresstest.models.layout import sampled
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.transformer import Transformer
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation
from stresstest.user_model.stacked import StackedUserPopulation

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
STEPS = 12


class Mixed(nn.Module):
    """Random, with buffers, and with torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True) for _ in range(2))
        self.norm = nn.BatchNorm1d(16)
        self.output = nn.Linear(16, 256)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        for layer in self.layers:
            h = layer(h)
        return self.output(self.norm(h.mT).mT)


def built_in(kind: str, depth: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Population, Batches]:
    task = load_task("images" if kind == "mlp" else "language", "synthetic", 4, 12)
    training = Training(OPTIMIZERS["adam"], {}, CPU, dtype, 0.5)
    shape = {"model": kind, "width": 16, "depth": depth}
    spec = ModelSpec.model_validate(shape | ({} if kind == "mlp" else {"seq_len": 12}))
    model: Any = Transformer(spec, "pre-ln", {})
    if kind == "mlp":
        model = ResidualMlp(spec, "residual", {}, task.num_inputs, task.num_classes)
    return Population(model, SEEDS, training), Batches(task, CPU)


def own(
    kind: type[UserPopulation] = UserPopulation,
    build: Callable[[], nn.Module] = Mixed,
    optimizer: Callable[..., Any] | None = None,
) -> tuple[Any, UserBatches]:
    factory = Factory("mixed", build, {}, {}, "", optimizer=optimizer)
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", 4, 12), CPU, module, batch_size=4)
    found = contract(factory, module, batches.batch([0], 0)[0].data)
    model = UserModel(factory, found, "as-built", 1, 1)
    chosen = OPTIMIZERS["adam"] if optimizer is None else USER_OPTIMIZER
    return kind(model, SEEDS, Training(chosen, {}, CPU)), batches


def trained(population: Population, batches: Any, level: str) -> tuple[list[Any], Tensor]:
    lr_TR = np.full((STEPS, len(SEEDS)), 1e-2)
    blocks, asked = train(population, batches, SEEDS, lr_TR, 0, Probing(level)), []
    try:
        block = next(blocks)
        while True:
            asked.append(block)
            block = blocks.send(None)
    except StopIteration:
        return asked, population.theta_RP


@pytest.mark.parametrize("kind", ["decoder", "mlp", "decoder in float16", "own"])
def test_reading_everything_changes_no_bit_of_the_training(kind: str) -> None:
    def make() -> tuple[Population, Any]:
        if kind == "own":
            return own()
        return built_in(kind.split()[0], dtype=torch.float16 if "float16" in kind else torch.float32)

    (silent, theta), (read, same) = trained(*make(), "off"), trained(*make(), "full")
    assert torch.equal(theta, same)
    for before, after in zip(silent, read, strict=True):
        assert np.array_equal(before.loss, after.loss)
        assert before.frames is None
        assert not before.looks
        assert after.frames.shape[:3] == (*after.loss.shape, 3)
        assert len(after.looks) == len(after.loss)
        assert after.probe_seconds > 0.0


def test_buffers_of_a_foreign_model_stay_as_they_are_at_a_look() -> None:
    population, batches = own()
    before = [buffer.clone() for module in population.modules for buffer in module.buffers()]
    population.look(batches.batch(SEEDS, 0))
    after = [buffer for module in population.modules for buffer in module.buffers()]
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("kind", "depth"), [("decoder", 3), ("decoder", 40), ("own", 2)])
def test_a_frame_has_the_root_mean_square_of_each_tensor_its_gradient_and_its_update(kind: str, depth: int) -> None:
    population, batches = own() if kind == "own" else built_in("decoder", depth)
    layout = population.model.layout
    before = population.theta_RP.clone()
    frames = train(population, batches, SEEDS, np.full((1, len(SEEDS)), 1e-2), 0, Probing("economy"))
    (found_R3N,) = next(frames).frames
    parts = [layout.parts(m) for m in (population.theta_RP, population.grad_RP, population.theta_RP - before)]
    for size in range(3):
        expected = [part[:, i].double().square().mean(1).sqrt() for part in parts[size] for i in range(part.shape[1])]
        np.testing.assert_allclose(found_R3N[:, size], torch.stack(expected, 1), rtol=1e-4, atol=1e-12)
    names = layout.names()
    assert len(names) == found_R3N.shape[2]
    assert len({name.text for name in names}) == len(names)
    assert not any("bias" in name.text or "norm" in name.text for name in names), "matrices alone"
    if kind == "decoder":
        leaves = layout.unbind(layout.views(population.theta_RP))
        for i, name in enumerate(names):
            rms = leaves[name.kind, name.block or 0].double().flatten(1).square().mean(1).sqrt()
            np.testing.assert_allclose(found_R3N[:, 0, i], rms, rtol=1e-5)


def test_of_many_blocks_some_are_sampled_evenly_with_the_last() -> None:
    for count in (1, 16, 17, 100, 10_000):
        places = range(count)[sampled(count)]
        assert len(places) <= 16
        assert places[-1] == count - 1
        assert len(places) > 8 or len(places) == count


def test_the_attention_of_a_built_in_model_is_looked_at_before_its_softmax() -> None:
    population, batches = built_in("decoder", 2)
    batch = batches.batch(SEEDS, 0)
    values = population.look(batch).values
    model: Any = population.model
    parameters = model.layout.unbind(model.layout.views(population.theta_RP.double()))
    x_RND = model.embed(parameters, batch.inputs).flatten(1, 2)
    mean, spread = x_RND.mean(-1, keepdim=True), x_RND.var(-1, keepdim=True, unbiased=False)
    h_RND = (x_RND - mean) / (spread + 1e-5).sqrt()  # pre-ln at initialisation: gain 1, bias 0
    q, k, _ = (h_RND[:, None] @ parameters["qkv.weight", 1].mT).unbind(1)
    heads, time = population.model.spec.heads, 12
    q, k = (t.view(len(SEEDS), -1, time, heads, 16 // heads).transpose(2, 3) for t in (q, k))
    logits = q @ k.mT / math.sqrt(16 // heads)
    seen = torch.ones(time, time).tril().bool()
    for row in range(len(SEEDS)):
        kept = logits[row][..., seen]
        weights = logits[row].masked_fill(~seen, -torch.inf).softmax(-1)
        entropy = torch.special.entr(weights).sum(-1)[..., 1:] / torch.arange(2, time + 1).log()
        expected = {
            "logit_rms": float(kept.square().mean().sqrt()),
            "logit_max": float(kept.abs().max()),
            "attention_entropy": float(entropy.mean()),
        }
        for signal, value in expected.items():
            assert float(values[signal, "attention of block 1"][row]) == pytest.approx(value, rel=1e-3)


def test_log_z_and_the_streams_are_those_of_the_same_pass() -> None:
    population, batches = built_in("mlp", 2)
    batch = batches.batch(SEEDS, 0)
    model: Any = population.model
    streams: list[Tensor] = []
    parameters = model.layout.unbind(model.layout.views(population.theta_RP))
    last = model.walk(parameters, model.embed(parameters, batch.inputs), lambda *told: streams.append(told[-1]))
    logits = torch.baddbmm(parameters["output.bias", 0][:, None], last, parameters["output.weight", 0].mT)
    values = population.look(batch).values
    torch.testing.assert_close(values["log_z", "output"], logits.logsumexp(-1).mean(1))
    for block, stream in enumerate(streams, 1):
        rms = values["activation_rms", f"stream after the mlp of block {block}"]
        torch.testing.assert_close(rms, stream.square().mean((1, 2)).sqrt())


@pytest.mark.parametrize("users", [False, True])
def test_rms_t_is_the_last_gradient_over_the_root_of_torchs_second_moment(users: bool) -> None:
    eps = 1e-4
    population, batches = own(optimizer=(lambda params, lr: torch.optim.Adam(params, lr, eps=eps)) if users else None)
    assert not [place for place in population.look(batches.batch(SEEDS, 0)).values if place[0] == "rms_t"]
    reference = [copy.deepcopy(module) for module in population.modules]
    theirs = [torch.optim.Adam(module.parameters(), 1e-2, eps=eps if users else 1e-8) for module in reference]
    for step in range(3):
        population.step(batches.batch(SEEDS, step), torch.full((len(SEEDS),), 1e-2))
        for row, (module, optimizer) in enumerate(zip(reference, theirs, strict=True)):
            for mine, place in zip(module.parameters(), population.model.layout.parameters, strict=True):
                mine.grad = population.grad_RP[row, place.start : place.stop].view(place.shape).clone()
            optimizer.step()
    values = population.look(batches.batch(SEEDS, 3)).values
    for row, (module, optimizer) in enumerate(zip(reference, theirs, strict=True)):
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                assert parameter.grad is not None
                root = (optimizer.state[parameter]["exp_avg_sq"] / (1.0 - 0.999**3)).sqrt()
                least = optimizer.param_groups[0]["eps"]
                rms = (parameter.grad / root.clamp(min=least)).square().mean().sqrt()
                assert float(values["rms_t", name][row]) == pytest.approx(float(rms), rel=1e-3)
                assert float(values["eps_share", name][row]) == pytest.approx(float((root < least).float().mean()))


class Attends(nn.Module):
    """One way to write the same attention."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.multihead = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        if self.way == "multihead":
            found: Tensor = self.multihead(x, x, x, attn_mask=mask, need_weights=False)[0]
            return found
        if self.way == "multihead with weights":
            return torch.as_tensor(self.multihead(x, x, x, attn_mask=mask)[0])
        q, k, v = (x @ self.multihead.in_proj_weight.mT).chunk(3, -1)
        q, k, v = (t.view(*t.shape[:2], 2, 4).transpose(1, 2) for t in (q, k, v))
        if self.way == "scaled dot product":
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            logits = (q @ k.mT / 2.0).masked_fill(mask, -math.inf)
            ways: dict[str, Callable[[Tensor], Tensor]] = {
                "softmax": lambda t: F.softmax(t, -1),
                "method": lambda t: t.softmax(-1),
                "torch": lambda t: torch.softmax(t, -1),
            }
            h = ways[self.way](logits) @ v
        return self.multihead.out_proj(h.transpose(1, 2).flatten(2))


OUT = "multihead.out_proj"
WAYS = ("scaled dot product", "softmax", "method", "torch", "multihead", "multihead with weights")


def test_attention_is_heard_however_it_is_written() -> None:
    found = []
    for way in WAYS:
        torch.manual_seed(0)
        module, x = Attends(way), torch.randn(3, 5, 8)
        look = look_at(module, lambda module=module, x=x: module(x))
        signals = ("logit_rms", "logit_max", "attention_entropy")
        found.append({signal: float(value) for (signal, _), value in look.values.items() if signal in signals})
        assert {place for signal, place in look.values if signal == "activation_rms"} <= {"multihead", OUT}
    assert len(found[0]) == 3
    assert found[0]["logit_rms"] > 0.0
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)


def test_what_is_zero_and_what_float16_cannot_hold_is_counted() -> None:
    look = ActivationSnapshot(2)
    look.activation("x", torch.tensor([[0.0, 0.0, 1.0, 65504.0], [70000.0, math.nan, -math.inf, -1.0]]))
    assert look.values["zero_share", "x"].tolist() == [0.5, 0.0]
    assert look.values["overflow_share", "x"].tolist() == [0.0, 0.75]


def test_stacked_replicas_show_what_they_show_one_by_one() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.output = nn.Embedding(256, 8), nn.Linear(8, 256)

        def forward(self, x: Tensor) -> Tensor:
            return self.output(torch.tanh(self.embedding(x)))

    looks = []
    for kind in (UserPopulation, StackedUserPopulation):
        population, batches = own(kind, Plain)
        looks.append(population.look(batches.batch(SEEDS, 0)).values)
    assert looks[0].keys() == looks[1].keys() != set()
    for place, value in looks[0].items():
        torch.testing.assert_close(value, looks[1][place])


def at(steps: Sequence[int], level: str, **more: Any) -> list[int]:
    return [step for step in steps if Probing(level, **more).looks_before(step)]


def test_levels_look_as_often_as_they_say() -> None:
    steps = range(25)
    assert at(steps, "off") == []
    assert at(steps, "economy") == [0]
    assert at(steps, "economy", at_start=False) == []
    assert at(steps, "standard") == [0, 10, 20]
    assert at(steps, "full") == list(steps)
