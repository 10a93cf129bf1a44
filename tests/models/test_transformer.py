"""The transformer computes what the equations say, with initial weights as stated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.models.block import profile
from stresstest.models.layout import Layout, Parameters
from stresstest.models.transformer import Transformer
from stresstest.models.variants import NORMS, VARIANTS
from stresstest.registry import OptionValue
from stresstest.specs.base import ModelSpec
from stresstest.specs.parsing import parse_choice

OF_TRANSFORMERS = [name for name, variant in VARIANTS.items() if "decoder" not in variant.not_in]


def assert_exact(actual: Tensor, expected: Tensor) -> None:
    """Equal to the rounding of float64."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def build(spec: ModelSpec, variant: str = "pre-ln", **changes: object) -> Transformer:
    choice = parse_choice(variant, VARIANTS)
    return Transformer(spec.model_copy(update=changes), choice.name, choice.options)


def rows(model: Transformer, num_replicas: int = 2, jitter: float = 0.0) -> Tensor:
    """Initial rows [R, P] in float64; jitter moves biases and gains off zero and one."""
    theta_RP = torch.stack([model.initial_row(seed) for seed in range(num_replicas)])
    noise_RP = torch.randn(theta_RP.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return theta_RP + jitter * noise_RP


def parameters(model: Transformer, theta_RP: Tensor) -> Parameters:
    leaves = model.layout.leaves(theta_RP)
    return model.layout.unbind({kind: leaf.detach() for kind, leaf in leaves.items()})


def tokens(num_replicas: int = 2, length: int = 12) -> Tensor:
    return torch.randint(256, (num_replicas, 3, length), generator=torch.Generator().manual_seed(1))


def embed(weights: Tensor, tokens_BT: Tensor) -> Tensor:
    """Scaled embedding plus the positions of Vaswani et al. 2017, [B, T, D]."""
    width = weights.shape[1]
    position, pair = torch.arange(tokens_BT.shape[1]).double()[:, None], torch.arange(0, width, 2).double()
    angle = position / 10_000 ** (pair / width)
    codes = torch.zeros(tokens_BT.shape[1], width).double()
    codes[:, 0::2], codes[:, 1::2] = angle.sin(), angle.cos()
    return weights[tokens_BT] * math.sqrt(width) + codes.float()


class Reference:
    """A stack of torch's own layers, in float64."""

    def __init__(self, spec: ModelSpec, norm_first: bool, ours: Parameters, replica: int) -> None:
        self.embedding, self.unembedding = (nn.Parameter(torch.empty(256, spec.width)) for _ in range(2))
        self.layers = [
            nn.TransformerEncoderLayer(
                spec.width, spec.heads, 4 * spec.width, 0.0, spec.activation, batch_first=True, norm_first=norm_first
            )
            for _ in range(spec.depth)
        ]
        self.norm = nn.LayerNorm(spec.width) if norm_first else None
        for key, parameter in self.pairs():
            parameter.data = ours[key][replica].detach().reshape(parameter.shape).clone()

    def logits(self, tokens_BT: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens_BT.shape[1], dtype=torch.float64)
        x = embed(self.embedding, tokens_BT)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return (self.norm(x) if self.norm else x) @ self.unembedding.T

    def pairs(self) -> Iterator[tuple[tuple[str, int], Tensor]]:
        """Our (kind, layer) beside torch's parameter."""
        yield ("embedding", 0), self.embedding
        yield ("unembedding", 0), self.unembedding
        place = "pre" if self.norm else "post"
        for number, layer in enumerate(self.layers, start=1):
            attention = layer.self_attn
            yield ("qkv.weight", number), attention.in_proj_weight
            yield ("qkv.bias", number), attention.in_proj_bias
            linears = {"output": attention.out_proj, "fc1": layer.linear1, "fc2": layer.linear2}
            for kind, linear in linears.items():
                yield (f"{kind}.weight", number), linear.weight
                yield (f"{kind}.bias", number), linear.bias
            for kind, norm in {"attention": layer.norm1, "ffn": layer.norm2}.items():
                yield (f"{kind}.{place}.gain", number), norm.weight
                yield (f"{kind}.{place}.bias", number), norm.bias
        if self.norm:
            yield ("final.norm.gain", 0), self.norm.weight
            yield ("final.norm.bias", 0), self.norm.bias


@dataclass(frozen=True)
class Sublayer:
    """One sublayer of one replica, written out head by head; `p` holds its tensors by (kind, layer)."""

    p: dict[tuple[str, int], Tensor]
    kind: str
    layer: int

    def N(self, place: str, x: Tensor) -> Tensor:
        return layer_norm(self.p, f"{self.kind}.{place}", self.layer, x)

    def learned(self, name: str) -> Tensor:
        return self.p[name, self.layer]

    def f(self, x: Tensor) -> Tensor:
        if self.kind == "attention":
            return self.linear("output", self.inner(self.heads(x)))
        return self.linear("fc2", self.inner(F.gelu(self.linear("fc1", x))))

    def heads(self, x: Tensor) -> Tensor:
        future, heads = torch.ones(12, 12, dtype=torch.bool).triu(1), []
        for head in range(2):
            weights, biases = (self.learned(f"qkv.{part}")[:, 8 * head : 8 * head + 8] for part in ("weight", "bias"))
            q, k, v = (x @ weights[i].T + biases[i] for i in range(3))
            if ("query.norm.gain", self.layer) in self.p:
                q, k = (layer_norm(self.p, f"{n}.norm", self.layer, t) for n, t in (("query", q), ("key", k)))
            scores = (q @ k.mT / math.sqrt(8)).masked_fill(future, -math.inf)
            scale = self.p.get(("head_scale", self.layer), torch.ones(2))[head]
            heads.append(scale * (scores.softmax(-1) @ v))
        return torch.cat(heads, -1)

    def inner(self, x: Tensor) -> Tensor:
        return self.N("inner", x) if (f"{self.kind}.inner.gain", self.layer) in self.p else x

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.learned(f"{name}.weight"), self.learned(f"{name}.bias"))


def layer_norm(p: dict[tuple[str, int], Tensor], kind: str, layer: int, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{kind}.gain", layer], p[f"{kind}.bias", layer])


# One sublayer of each variant at depth 4; a norm inside f and head scales act where their parameters exist.
EQUATIONS: dict[str, Callable[[Sublayer, Tensor], Tensor]] = {
    "plain": lambda s, x: s.f(x),
    "residual": lambda s, x: x + s.f(x),
    "layernorm": lambda s, x: s.N("out", s.f(x)),
    "post-ln": lambda s, x: s.N("post", x + s.f(x)),
    "pre-ln": lambda s, x: x + s.f(s.N("pre", x)),
    "gpt2-norm": lambda s, x: x + s.N("out", s.f(x)),
    "normformer": lambda s, x: EQUATIONS["sandwich-ln" if s.kind == "attention" else "pre-ln"](s, x),
    "normformer:res_scale=true": lambda s, x: (
        EQUATIONS["normformer"](s, x) + (0.0 if s.kind == "attention" else (s.learned("ffn.skip") - 1) * x)
    ),
    "rezero": lambda s, x: x + s.learned("gate") * s.f(x),
    "deepnorm": lambda s, x: s.N("post", 8**0.25 * x + s.f(x)),
    "admin": lambda s, x: s.N("post", s.learned(f"{s.kind}.skip") * x + s.f(x)),
    "sandwich-ln": lambda s, x: x + s.N("out", s.f(s.N("pre", x))),
    "sub-ln": lambda s, x: x + s.f(s.N("pre", x)),
    "mix-ln": lambda s, x: EQUATIONS["post-ln" if s.layer == 1 else "pre-ln"](s, x),
    "lns": lambda s, x: x + s.f(s.N("pre", x) / math.sqrt(s.layer)),
    "layerscale": lambda s, x: x + s.learned(f"{s.kind}.gate") * s.f(s.N("pre", x)),
    "peri-ln": lambda s, x: EQUATIONS["sandwich-ln"](s, x),
}


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("variant", ["pre-ln", "post-ln"])
def test_logits_and_gradients_equal_those_of_torchs_own_layers(tiny: ModelSpec, variant: str, activation: str) -> None:
    model = build(tiny, variant, activation=activation)
    leaves = model.layout.leaves(rows(model, jitter=0.2))
    ours, inputs, targets = model.layout.unbind(leaves), tokens(), tokens().flip(2)
    logits_RNV = model.logits(ours, inputs)
    total = torch.stack([F.cross_entropy(logits_RNV[r], targets[r].flatten()) for r in range(2)]).sum()
    gradients = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    unbound = model.layout.unbind(gradients)
    for r in range(2):
        reference = Reference(model.spec, variant == "pre-ln", ours, r)
        logits_NV = reference.logits(inputs[r]).flatten(0, 1)
        assert_exact(logits_RNV[r], logits_NV)
        keys, weights = zip(*reference.pairs(), strict=True)
        assert set(keys) == set(ours)
        expected = torch.autograd.grad(F.cross_entropy(logits_NV, targets[r].flatten()), weights)
        for key, gradient in zip(keys, expected, strict=True):
            assert_exact(unbound[key][r].reshape(gradient.shape), gradient)


def test_admins_skips_are_the_root_of_one_plus_the_variances_before_them(tiny: ModelSpec) -> None:
    model = build(tiny, "admin", depth=3)
    theta_RP = rows(model)
    ours, before_RP = parameters(model, theta_RP), theta_RP.clone()
    profile(model, ours, tokens())
    for r in range(2):
        reference, branches = Reference(model.spec, False, ours, r), list[Tensor]()
        for layer in reference.layers:
            layer.self_attn.register_forward_hook(lambda *call, found=branches: found.append(call[-1][0]))
            layer.linear2.register_forward_hook(lambda *call, found=branches: found.append(call[-1]))
        with torch.no_grad():
            reference.logits(tokens()[r])
        variances = torch.stack([torch.zeros(()).double(), *[branch.var() for branch in branches[:-1]]])
        skips = [ours[f"{sub}.skip", layer][r] for layer in (1, 2, 3) for sub in ("attention", "ffn")]
        expected = (1 + variances.cumsum(0)).sqrt()
        assert_exact(torch.stack(skips), expected[:, None].expand(6, 16))
        assert expected[-1] > 1.5
    assert (theta_RP != before_RP).sum() == 2 * 5 * 16  # all skips but the first, and nothing else


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_byte_reaches_the_logits_after_it_and_none_before(tiny: ModelSpec, name: str) -> None:
    model = build(tiny, name)
    ours, inputs = parameters(model, rows(model, jitter=0.2)), tokens()
    changed = inputs.clone()
    changed[:, 1, 5] = (inputs[:, 1, 5] + 1) % 256
    before, after = (model.logits(ours, t).view(2, 3, 12, 256) for t in (inputs, changed))
    assert torch.equal(before[:, 1, :5], after[:, 1, :5])
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1, 5:] != after[:, 1, 5:]).any(-1).all()


@pytest.mark.parametrize("tied", [False, True])
def test_rezero_is_the_identity_at_initialisation(tiny: ModelSpec, tied: bool) -> None:
    model = build(tiny, "rezero", tied=tied)
    ours = parameters(model, rows(model))
    output = ours["embedding" if tied else "unembedding", 0]
    assert (("unembedding", 0) in ours) is not tied
    for r in range(2):
        expected = embed(ours["embedding", 0][r], tokens()[r]).flatten(0, 1) @ output[r].T
        assert_exact(model.logits(ours, tokens())[r], expected)


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_function_is_its_formula(tiny: ModelSpec, norm: str) -> None:
    # LayerScale whose gates are zero leaves the embedding as it is, for the final norm to act on.
    model = build(tiny, "layerscale", norm=norm)
    theta_RP = rows(model, 1, jitter=0.2)
    for kind in ("attention.gate", "ffn.gate"):
        model.layout.banks[kind].view(theta_RP).zero_()
    ours = parameters(model, theta_RP)
    x = embed(ours["embedding", 0][0], tokens()[0]).flatten(0, 1)
    gain, bias, alpha = (ours.get((f"final.norm.{part}", 0), torch.zeros(1)) for part in ("gain", "bias", "alpha"))
    mean, square = x.mean(1, keepdim=True), (x**2).mean(1, keepdim=True)
    expected = {
        "layer-norm": gain * (x - mean) / (square - mean**2 + 1e-5).sqrt() + bias,
        "rms-norm": gain * x / (square + 1e-6).sqrt(),
        "dyt": gain * torch.tanh(alpha * x) + bias,
        "none": x,
    }[norm]
    assert_exact(model.logits(ours, tokens(1))[0], expected @ ours["unembedding", 0][0].T)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("name", [*OF_TRANSFORMERS, "normformer:res_scale=true"])
def test_a_variant_computes_its_papers_equation(tiny: ModelSpec, name: str, qk_norm: bool) -> None:
    model = build(tiny, name, depth=4, qk_norm=qk_norm)
    ours = parameters(model, rows(model, 1, jitter=0.2))
    p = {key: tensor[0] for key, tensor in ours.items()}
    x = embed(p["embedding", 0], tokens(1)[0])
    if name == "peri-ln":
        x = layer_norm(p, "embedding.norm", 0, x)
    for layer in range(1, 5):
        for sublayer in ("attention", "ffn"):
            x = EQUATIONS[name](Sublayer(p, sublayer, layer), x)
    if ("final.norm.gain", 0) in p:
        x = layer_norm(p, "final.norm", 0, x)
    assert_exact(model.logits(ours, tokens(1))[0], (x @ p["unembedding", 0].T).flatten(0, 1))


@pytest.mark.parametrize("variant", ["pre-ln", "deepnorm", "sub-ln", "sandwich-ln"])
def test_initial_matrices_are_xavier_normal_times_the_variants_gains(variant: str) -> None:
    model = build(ModelSpec(depth=4, width=64, heads=4), variant)
    wiring, theta_RP = model.wirings[4, "ffn"], rows(model)
    banks = {kind: bank.view(theta_RP) for kind, bank in model.layout.banks.items()}
    query, key, value = banks["qkv.weight"].unbind(2)
    for bank, std in [
        (banks["embedding"], 1 / 8),
        (banks["unembedding"], 1 / 8),
        (query, 1 / 8),
        (key, 1 / 8),
        (value, wiring.value_gain / 8),
        (banks["output.weight"], wiring.output_gain / 8),
        (banks["fc1.weight"], wiring.fc1_gain * math.sqrt(2 / (5 * 64))),
        (banks["fc2.weight"], wiring.fc2_gain * math.sqrt(2 / (5 * 64))),
    ]:
        count = bank.numel()
        assert float(bank.std()) == pytest.approx(std, rel=4 / math.sqrt(2 * count))
        assert abs(float(bank.mean())) < 4 * std / math.sqrt(count)
        kurtosis = float(((bank / std) ** 4).mean())
        assert kurtosis == pytest.approx(3.0, abs=4 * math.sqrt(96 / count))
    for kind, bank in banks.items():
        if kind.endswith(("bias", "gain")):
            assert (bank == (1.0 if kind.endswith("gain") else 0.0)).all()


@pytest.mark.parametrize(
    ("text", "norm", "kind", "value"),
    [
        ("pre-ln", "dyt", "final.norm.alpha", 0.5),
        ("normformer", "layer-norm", "head_scale", 1.0),
        ("normformer:res_scale=true", "layer-norm", "ffn.skip", 1.0),
        ("admin", "layer-norm", "attention.skip", 1.0),
        ("rezero", "layer-norm", "gate", 0.0),
        ("rezero:alpha=1", "layer-norm", "gate", 1.0),
        ("layerscale", "layer-norm", "ffn.gate", 1e-4),
        ("layerscale:init=1e-5", "layer-norm", "attention.gate", 1e-5),
    ],
)
def test_learned_scalars_and_vectors_start_as_stated(
    tiny: ModelSpec, text: str, norm: str, kind: str, value: float
) -> None:
    model = build(tiny, text, norm=norm)
    assert (model.layout.banks[kind].view(rows(model)) == value).all()


@pytest.mark.parametrize(("shallow", "deep"), [("pre-ln", "pre-ln"), ("pre-ln", "post-ln"), ("rezero", "peri-ln")])
def test_an_initial_weight_depends_on_the_seed_and_its_name_only(tiny: ModelSpec, shallow: str, deep: str) -> None:
    few, many = (build(tiny, name, depth=depth) for name, depth in ((shallow, 2), (deep, 4)))
    theirs = [parameters(model, rows(model)) for model in (few, many)]
    shared = theirs[0].keys() & theirs[1].keys()
    assert {("embedding", 0), ("unembedding", 0), ("qkv.weight", 1), ("fc2.bias", 2)} <= shared
    assert all(torch.equal(theirs[0][key], theirs[1][key]) for key in shared)
    first = theirs[1]["qkv.weight", 1]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, theirs[1]["qkv.weight", 2])


@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_is_the_mean_cross_entropy_of_the_next_byte(tiny: ModelSpec, tied: bool) -> None:
    model = build(tiny, tied=tied)
    leaves, inputs, targets = model.layout.leaves(rows(model).float()), tokens(), tokens().flip(2)
    logits_RNV = model.logits(model.layout.unbind(leaves), inputs)
    expected = [F.cross_entropy(logits_RNV[r], targets[r].flatten()) for r in range(2)]
    torch.testing.assert_close(model.loss(leaves, inputs, targets), torch.stack(expected))


@pytest.mark.parametrize("changes", [{"tied": True}, {"qk_norm": True}, *[{"norm": norm} for norm in NORMS]], ids=str)
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_every_parameter_of_every_variant_takes_part(
    tiny: ModelSpec, name: str, changes: dict[str, OptionValue]
) -> None:
    model = build(tiny, name, **changes)
    leaves = model.layout.leaves(rows(model, jitter=0.1))
    loss_R = model.loss(leaves, tokens(), tokens().flip(2))
    assert loss_R.isfinite().all()
    for bank in torch.autograd.grad(loss_R.sum(), list(leaves.values())):
        assert bank.isfinite().all()
        assert (bank.reshape(*bank.shape[:2], -1).abs().amax(2) > 0).all()


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_segments_tile_a_row_and_only_matrices_decay(tiny: ModelSpec, name: str) -> None:
    layout: Layout = build(tiny, name, qk_norm=True).layout
    kinds = dict(zip(layout.banks, layout.segments(), strict=True))
    starts, stops = [one.start for one in kinds.values()], [one.stop for one in kinds.values()]
    assert [0, *stops] == [*starts, layout.num_parameters]
    matrices = {"embedding", "unembedding", *(f"{kind}.weight" for kind in ("qkv", "output", "fc1", "fc2"))}
    assert {kind for kind, one in kinds.items() if one.decays} == matrices
    assert kinds["qkv.weight"].rows == 3 * kinds["output.weight"].rows == 6
    expected = [float(kind in matrices) for kind, bank in layout.banks.items() for _ in range(bank.stop - bank.start)]
    assert layout.decay_mask().tolist() == expected
