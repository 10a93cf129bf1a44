"""The residual MLP computes what the equations say, and its hand-written backward pass is their derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresstest.models.block import profile
from stresstest.models.layout import Leaves, Parameters
from stresstest.models.mlp_backward import MlpStack
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.variants import NORMS, VARIANTS, Sublayer, SublayerPosition, Wiring
from stresstest.specs.base import ModelSpec
from stresstest.specs.parsing import parse_choice

NUM_INPUTS, NUM_CLASSES = 6, 3
NAMES = [name for name, variant in VARIANTS.items() if "mlp" not in variant.not_in]
EVERY = [*NAMES, "normformer:res_scale=true", "rezero:alpha=1", "mix-ln:post_share=0.5"]


def build(variant: str, depth: int = 4, width: int = 5, norm: str = "layer-norm") -> ResidualMlp:
    choice = parse_choice(variant, VARIANTS)
    spec = ModelSpec.model_validate({"model": "mlp", "depth": depth, "width": width, "norm": norm})
    return ResidualMlp(spec, choice.name, choice.options, NUM_INPUTS, NUM_CLASSES)


def leaves_of(model: ResidualMlp, num_replicas: int = 2, jitter: float = 0.3) -> Leaves:
    """Banks of float64; jitter moves biases, gains and gates off zero and one."""
    theta_RP = torch.stack([model.initial_row(seed) for seed in range(num_replicas)])
    generator = torch.Generator().manual_seed(7)
    theta_RP += jitter * torch.randn(theta_RP.shape, generator=generator, dtype=torch.float64)
    return model.layout.leaves(theta_RP)


def examples(num_replicas: int = 2, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(num_replicas, batch, NUM_INPUTS, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(NUM_CLASSES, (num_replicas, batch), generator=generator)


def plain_loss(model: ResidualMlp, leaves: Leaves, inputs: Tensor, targets: Tensor) -> Tensor:
    """The loss by operations that autograd differentiates."""
    parameters = model.layout.unbind(leaves)
    x_RBD = model.walk(parameters, model.embed(parameters, inputs))
    if model.variant.final_norm and model.spec.norm != "none":
        x_RBD = torch.stack([norm(parameters, "final.norm", 0, r, x) for r, x in enumerate(x_RBD)])
    logits = x_RBD @ parameters["output.weight", 0].mT + parameters["output.bias", 0][:, None]
    return torch.stack([F.cross_entropy(logits[r], targets[r]) for r in range(len(targets))])


def norm(p: Parameters, kind: str, layer: int, r: int, x: Tensor) -> Tensor:
    """A norm of one replica, by its formula; which one it is shows in the parameters that it has."""
    gain = p[f"{kind}.gain", layer][r]
    if (f"{kind}.alpha", layer) in p:
        return gain * torch.tanh(p[f"{kind}.alpha", layer][r] * x) + p[f"{kind}.bias", layer][r]
    if (f"{kind}.bias", layer) not in p:
        return gain * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return F.layer_norm(x, x.shape[-1:], gain, p[f"{kind}.bias", layer][r])


@pytest.mark.parametrize("name", EVERY)
def test_the_gradients_of_the_loss_pass_gradcheck(name: str) -> None:
    model = build(name, depth=3, width=4)
    leaves, (inputs, targets) = leaves_of(model), examples()
    kinds = list(leaves)

    def loss(*banks: Tensor) -> Tensor:
        return model.loss(dict(zip(kinds, banks, strict=True)), inputs, targets)

    assert torch.autograd.gradcheck(loss, tuple(leaves.values()))


@pytest.mark.parametrize("norm_name", NORMS)
@pytest.mark.parametrize("name", EVERY)
def test_the_hand_written_gradients_equal_autograds(name: str, norm_name: str) -> None:
    model = build(name, depth=4, norm=norm_name)
    leaves, (inputs, targets) = leaves_of(model), examples()
    loss_R, expected_R = model.loss(leaves, inputs, targets), plain_loss(model, leaves, inputs, targets)
    torch.testing.assert_close(loss_R, expected_R, rtol=1e-12, atol=1e-12)
    banks = list(leaves.values())
    found, expected = torch.autograd.grad(loss_R.sum(), banks), torch.autograd.grad(expected_R.sum(), banks)
    for kind, ours, theirs in zip(leaves, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11, msg=lambda text, kind=kind: f"{kind}: {text}")
        assert theirs.abs().max() > 0


@pytest.mark.parametrize("name", ["rezero", "layernorm", "mix-ln", "admin", "normformer:res_scale=true"])
def test_the_gradients_hold_over_the_seams_of_a_deep_stack(name: str) -> None:
    model = build(name, depth=150)
    leaves, (inputs, targets) = leaves_of(model, jitter=0.05), examples()
    found = torch.autograd.grad(model.loss(leaves, inputs, targets).sum(), list(leaves.values()))
    expected = torch.autograd.grad(plain_loss(model, leaves, inputs, targets).sum(), list(leaves.values()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * float(theirs.abs().max()))


WIRINGS = st.builds(
    Wiring,
    pre_norm=st.booleans(),
    pre_gain=st.sampled_from([1.0, 0.5]),
    inner_norm=st.just(False),
    out_norm=st.booleans(),
    post_norm=st.booleans(),
    skip=st.sampled_from([0.0, 1.0, 1.5]),
    learned_skip=st.booleans(),
    gate=st.sampled_from([0.3, 1.0]),
    learned_gate=st.sampled_from(["no", "scalar", "vector"]),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(WIRINGS, min_size=1, max_size=4))
def test_a_combination_that_nobody_named_has_the_right_gradients_too(wirings: list[Wiring]) -> None:
    model = build("pre-ln", depth=len(wirings))  # its own wiring is replaced
    model.wirings = {(layer, "mlp"): wiring for layer, wiring in enumerate(wirings, start=1)}
    model.layout = type(model.layout)()
    model._declare()
    model.layout.close()
    model._stack = MlpStack("layer-norm", wirings)
    leaves, (inputs, targets) = leaves_of(model), examples()
    loss_R, expected_R = model.loss(leaves, inputs, targets), plain_loss(model, leaves, inputs, targets)
    torch.testing.assert_close(loss_R, expected_R, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(loss_R.sum(), list(leaves.values()))
    expected = torch.autograd.grad(expected_R.sum(), list(leaves.values()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_two_passes_under_way_at_once_do_not_disturb_each_other() -> None:
    model = build("pre-ln")
    leaves, (inputs, targets) = leaves_of(model), examples()
    banks = list(leaves.values())
    [expected, *_] = torch.autograd.grad(model.loss(leaves, inputs, targets).sum(), banks)
    first = model.loss(leaves, inputs, targets).sum()
    second = model.loss(leaves, -inputs, targets).sum()
    model.loss(leaves, inputs[:, :1], targets[:, :1])
    [other, *_] = torch.autograd.grad(second, banks)
    [found, *_] = torch.autograd.grad(first, banks)
    assert torch.equal(found, expected)
    assert not torch.equal(found, other)


def test_gradients_are_put_where_the_caller_wants_them() -> None:
    model = build("layernorm", depth=70)
    leaves, (inputs, targets) = leaves_of(model), examples()
    banks = list(leaves.values())
    expected = torch.autograd.grad(model.loss(leaves, inputs, targets).sum(), banks)
    matrix_RP = torch.full((2, model.layout.num_parameters), torch.nan, dtype=torch.float64)
    views = model.layout.views(matrix_RP)
    model.layout.gather(torch.autograd.grad(model.loss(leaves, inputs, targets, views).sum(), banks), views)
    for (kind, view), gradient in zip(views.items(), expected, strict=True):
        assert torch.equal(view, gradient), kind


# One block of each variant; f is ReLU(W x + b), and N a norm of the block.
Block = Callable[[Callable[[Tensor], Tensor], Callable[[str, Tensor], Tensor], Callable[[str], Tensor], Tensor], Tensor]
EQUATIONS: dict[str, Block] = {
    "plain": lambda f, N, p, x: f(x),
    "residual": lambda f, N, p, x: x + f(x),
    "layernorm": lambda f, N, p, x: N("out", f(x)),
    "post-ln": lambda f, N, p, x: N("post", x + f(x)),
    "pre-ln": lambda f, N, p, x: x + f(N("pre", x)),
    "gpt2-norm": lambda f, N, p, x: x + N("out", f(x)),
    "normformer": lambda f, N, p, x: x + N("inner", f(N("pre", x))),
    "normformer:res_scale=true": lambda f, N, p, x: p("mlp.skip") * x + N("inner", f(N("pre", x))),
    "rezero": lambda f, N, p, x: x + p("gate") * f(x),
    "deepnorm": lambda f, N, p, x: N("post", 4**0.25 * x + f(x)),
    "admin": lambda f, N, p, x: N("post", p("mlp.skip") * x + f(x)),
    "sandwich-ln": lambda f, N, p, x: x + N("out", f(N("pre", x))),
    "layerscale": lambda f, N, p, x: x + p("mlp.gate") * f(N("pre", x)),
    "peri-ln": lambda f, N, p, x: x + N("out", f(N("pre", x))),
}


@pytest.mark.parametrize("name", [*EQUATIONS, "mix-ln", "lns"])
def test_a_variant_computes_its_equation(name: str) -> None:
    model = build(name)
    leaves, (inputs, targets) = leaves_of(model), examples()
    p = model.layout.unbind(leaves)
    for r in range(2):
        x = F.relu(inputs[r] @ p["input.weight", 0][r].T + p["input.bias", 0][r])
        x = norm(p, "embedding.norm", 0, r, x) if name == "peri-ln" else x
        for layer in range(1, 5):
            equation = name if name in EQUATIONS else {"lns": "pre-ln"}.get(name, "post-ln" if layer == 1 else "pre-ln")
            shrink = layer**-0.5 if name == "lns" else 1.0

            def f(x: Tensor, layer: int = layer, r: int = r, shrink: float = shrink) -> Tensor:
                return F.relu(shrink * x @ p["weight", layer][r].T + p["bias", layer][r])

            def N(place: str, x: Tensor, layer: int = layer, r: int = r) -> Tensor:
                return norm(p, f"mlp.{place}", 0 if name == "layernorm" else layer, r, x)

            def learned(kind: str, layer: int = layer, r: int = r) -> Tensor:
                return p[kind, layer][r]

            x = EQUATIONS[equation](f, N, learned, x)
        x = norm(p, "final.norm", 0, r, x) if model.variant.final_norm else x
        logits = x @ p["output.weight", 0][r].T + p["output.bias", 0][r]
        torch.testing.assert_close(model.loss(leaves, inputs, targets)[r], F.cross_entropy(logits, targets[r]))


class Notebook(nn.Module):
    """The four networks of ReZero's experiment, layer by layer, from torch's own modules."""

    def __init__(self, variant: str, ours: Parameters, depth: int) -> None:
        super().__init__()
        self.variant = variant
        self.first, self.last = nn.Linear(NUM_INPUTS, 5), nn.Linear(5, NUM_CLASSES)
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(depth))
        self.norm = nn.LayerNorm(5)
        self.alphas = [ours["gate", layer][0] for layer in range(1, depth + 1)] if variant == "rezero" else []
        pairs = {"input": self.first, "output": self.last}
        for name, linear in [*pairs.items(), *(("", layer) for layer in self.layers)]:
            number = 0 if name else list(self.layers).index(linear) + 1
            for part in ("weight", "bias"):
                key = (f"{name}.{part}" if name else part, number)
                getattr(linear, part).data = ours[key][0].detach().clone()
        if variant == "layernorm":
            self.norm.weight.data, self.norm.bias.data = ours["mlp.out.gain", 0][0], ours["mlp.out.bias", 0][0]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for i, layer in enumerate(self.layers):
            h = F.relu(layer(x))
            x = {
                "plain": lambda x, h: h,
                "residual": lambda x, h: x + h,
                "layernorm": lambda x, h: self.norm(h),
                "rezero": lambda x, h, i=i: x + self.alphas[i] * h,
            }[self.variant](x, h)
        y: Tensor = self.last(x)
        return y


@pytest.mark.parametrize("name", ["plain", "residual", "layernorm", "rezero"])
def test_rezeros_four_networks_are_those_of_torchs_modules(name: str) -> None:
    model = build(name, depth=6)
    leaves, (inputs, targets) = leaves_of(model), examples()
    network = Notebook(name, model.layout.unbind(leaves), 6).double()
    torch.testing.assert_close(
        model.loss(leaves, inputs, targets)[0], F.cross_entropy(network(inputs[0]), targets[0]), rtol=1e-12, atol=0.0
    )


@pytest.mark.parametrize(
    ("name", "variance"),
    [("rezero", 2.0), ("plain", 2.0), ("layernorm", 2.0), ("residual", 0.25), ("deepnorm", 2.0 / 4)],
)
def test_initial_weights_have_the_variance_of_the_experiment(name: str, variance: float) -> None:
    """PAPERS.md B1: 2 / width, but 1 / (4 width) in the residual network; DeepNorm's beta^2 = (4 * 4)^-1/2."""
    width = 64
    spec = ModelSpec(model="mlp", depth=4, width=width)
    model = ResidualMlp(spec, name, {}, 300, 10)
    banks = model.layout.views(model.initial_row(0)[None])
    for kind, expected in (("weight", variance / width), ("input.weight", 2.0 / 300), ("output.weight", 1.0 / width)):
        count = banks[kind].numel()
        assert float(banks[kind].var()) == pytest.approx(expected, rel=4 * math.sqrt(2 / count))
    assert all(not banks[kind].any() for kind in ("bias", "input.bias", "output.bias"))


def test_the_layernorm_network_has_one_norm_and_rezero_one_scalar_a_layer() -> None:
    assert build("layernorm", depth=9).layout.banks["mlp.out.gain"].layers == [0]
    assert build("rezero", depth=9).layout.banks["gate"].shape == ()
    extra = {name: build(name, depth=9).layout.num_parameters for name in ("plain", "layernorm", "rezero")}
    assert extra["layernorm"] - extra["plain"] == 2 * 5
    assert extra["rezero"] - extra["plain"] == 9


@pytest.mark.parametrize("name", NAMES)
def test_no_constant_of_a_variant_counts_sublayers_that_an_mlp_lacks(name: str) -> None:
    deep, double = (VARIANTS[name].wiring(SublayerPosition(1, depth, sub)) for depth, sub in _same_sublayers())
    constants = ("pre_gain", "skip", "gate")
    assert [getattr(deep, c) for c in constants] == [getattr(double, c) for c in constants]
    if name != "residual":
        assert deep.fc2_gain == double.fc2_gain


def _same_sublayers() -> list[tuple[int, Sublayer]]:
    return [(16, "mlp"), (8, "ffn")]


def test_admins_skips_are_the_root_of_one_plus_the_variances_before_them() -> None:
    model = build("admin", depth=3)
    leaves, (inputs, _) = leaves_of(model, jitter=0.0), examples()
    parameters = model.layout.unbind({kind: bank.detach() for kind, bank in leaves.items()})
    branches: list[Tensor] = []
    x = model.embed(parameters, inputs)
    model.walk(parameters, x, lambda layer, sublayer, branch, *rest: branches.append(branch))
    profile(model, parameters, inputs)
    for r in range(2):
        variances = torch.stack([torch.zeros(()).double(), *(branch[r].var() for branch in branches[:-1])])
        skips = torch.stack([parameters["mlp.skip", layer][r] for layer in (1, 2, 3)])
        torch.testing.assert_close(skips, (1 + variances.cumsum(0)).sqrt()[:, None].expand(3, 5))


def test_under_autocast_the_plain_operations_are_taken() -> None:
    model = build("pre-ln", width=8)
    leaves = model.layout.leaves(torch.stack([model.initial_row(seed) for seed in range(2)]).float())
    inputs, targets = examples()
    full_R = model.loss(leaves, inputs.float(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half_R = model.loss(leaves, inputs.float(), targets)
    assert not torch.equal(full_R, half_R)
    torch.testing.assert_close(full_R, half_R, rtol=3e-2, atol=0.0)
    gradients = torch.autograd.grad(half_R.sum(), list(leaves.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_wiring_with_two_norms_in_one_place_is_refused() -> None:
    with pytest.raises(AssertionError, match="one place"):
        MlpStack("layer-norm", [replace(Wiring(), inner_norm=True, out_norm=True)])


def test_a_watch_hears_of_every_block_in_order() -> None:
    model = build("deepnorm", depth=3)
    parameters, (inputs, _) = model.layout.unbind(leaves_of(model)), examples()
    heard: list[tuple[int, str]] = []
    x = model.embed(parameters, inputs)

    def watch(layer: int, sublayer: Sublayer, branch: Tensor, joined: Tensor, stream: Tensor) -> None:
        heard.append((layer, sublayer))
        torch.testing.assert_close(joined - branch, 3**0.25 * (x if layer == 1 else last[0]))
        last[:] = [stream]

    last: list[Tensor] = []
    model.walk(parameters, x, watch)
    assert heard == [(1, "mlp"), (2, "mlp"), (3, "mlp")]
