"""The encoder-decoder: held against torch's own layers, its constants, and what its padding may not change."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from stresstest.engine.train import Batches, initial_parameters
from stresstest.models.encoder_decoder import EncoderDecoder
from stresstest.models.layout import Parameters
from stresstest.models.variants import VARIANTS, Sublayer, SublayerPosition
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task
from stresstest.tasks.translation import PADDING

SPEC = ModelSpec(model="encoder-decoder", depth=3, width=16, heads=2, seq_len=12, activation="relu")
DEPTH = SPEC.depth
OF_TRANSFORMERS = [name for name, variant in VARIANTS.items() if "encoder-decoder" not in variant.not_in]


def model_of(variant: str, **changes: object) -> EncoderDecoder:
    return EncoderDecoder(SPEC.model_copy(update=changes), variant, {}, 600)


def parameters_of(model: EncoderDecoder, seed: int = 0, spread: float = 0.3) -> Parameters:
    """Parameters that are nowhere at a special value: no gain is 1, no bias 0."""
    row = model.initial_row(seed)
    row += spread * torch.randn(row.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return model.layout.unbind(model.layout.views(row[None]))


def example(seed: int = 1) -> Tensor:
    """Two sources of another length and targets, [1, 2, S + T]."""
    tokens = torch.randint(4, 600, (1, 2, 2 * SPEC.seq_len), generator=torch.Generator().manual_seed(seed))
    tokens[0, 0, 7 : SPEC.seq_len] = PADDING
    return tokens


def put(layer: nn.Module, name: str, value: Tensor) -> None:
    layer.get_parameter(name).data.copy_(value)


def put_attention(parameters: Parameters, into: nn.Module, block: int, kind: str) -> None:
    prefix = "cross." if kind == "multihead_attn" else ""
    for what, end in (("weight", "in_proj_weight"), ("bias", "in_proj_bias")):
        banks = [f"cross.q.{what}", f"cross.kv.{what}"] if prefix else [f"qkv.{what}"]
        put(into, f"{kind}.{end}", torch.cat([parameters[bank, block][0].flatten(0, 1) for bank in banks]))
        put(into, f"{kind}.out_proj.{what}", parameters[f"{prefix}output.{what}", block][0])


def torchs(model: EncoderDecoder, parameters: Parameters, tokens: Tensor, norm_first: bool) -> Tensor:
    """The decoder's stream by torch.nn's layers with the same weights."""
    shape = (SPEC.width, SPEC.heads, 4 * SPEC.width, 0.0)
    of = {"activation": "relu", "batch_first": True, "norm_first": norm_first, "dtype": torch.float64}
    place = "pre" if norm_first else "post"
    stacks: list[list[nn.Module]] = [[], []]
    for block in range(1, 2 * DEPTH + 1):
        decoder = block > DEPTH
        layer = (nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer)(*shape, **of)
        names = ("attention", "cross", "ffn") if decoder else ("attention", "ffn")
        for number, sublayer in enumerate(names, 1):
            put(layer, f"norm{number}.weight", parameters[f"{sublayer}.{place}.gain", block][0])
            put(layer, f"norm{number}.bias", parameters[f"{sublayer}.{place}.bias", block][0])
        put_attention(parameters, layer, block, "self_attn")
        if decoder:
            put_attention(parameters, layer, block, "multihead_attn")
        for ours, theirs in (("fc1", "linear1"), ("fc2", "linear2")):
            put(layer, f"{theirs}.weight", parameters[f"{ours}.weight", block][0])
            put(layer, f"{theirs}.bias", parameters[f"{ours}.bias", block][0])
        stacks[decoder].append(layer)
    stream = model.embed(parameters, tokens)[0]
    source, target = stream[:, : SPEC.seq_len], stream[:, SPEC.seq_len :]
    padding = tokens[0, :, : SPEC.seq_len] == PADDING
    for layer in stacks[0]:
        source = layer(source, src_key_padding_mask=padding)
    if norm_first:
        gain, bias = parameters["encoder.norm.gain", 0][0], parameters["encoder.norm.bias", 0][0]
        source = nn.functional.layer_norm(source, (SPEC.width,), gain, bias)
    causal = nn.Transformer.generate_square_subsequent_mask(SPEC.seq_len, dtype=torch.float64)
    for layer in stacks[1]:
        target = layer(target, source, tgt_mask=causal, memory_key_padding_mask=padding)
    return target


@pytest.mark.parametrize(("variant", "norm_first"), [("post-ln", False), ("pre-ln", True)])
def test_it_is_torchs_transformer(variant: str, norm_first: bool) -> None:
    model = model_of(variant)
    parameters, tokens = parameters_of(model), example()
    with torch.no_grad():
        ours = model.walk(parameters, model.embed(parameters, tokens))[0, :, SPEC.seq_len :]
        theirs = torchs(model, parameters, tokens, norm_first)
    assert ours.shape == theirs.shape == (2, SPEC.seq_len, SPEC.width)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", OF_TRANSFORMERS)
def test_padding_is_no_key_and_a_target_sees_no_later_one(variant: str) -> None:
    model = model_of(variant)
    parameters, tokens = parameters_of(model), example()
    with torch.no_grad():
        before = model.logits(parameters, tokens).view(2, SPEC.seq_len, -1)
        parameters["embedding", 0][:, PADDING] += 100.0  # what a padded place holds must not matter
        torch.testing.assert_close(model.logits(parameters, tokens).view_as(before), before, rtol=0.0, atol=0.0)
        tokens[0, :, SPEC.seq_len + 8] += 1
        after = model.logits(parameters, tokens).view_as(before)
        assert torch.equal(after[:, :8], before[:, :8])
        assert not torch.equal(after[:, 8], before[:, 8])
        tokens[0, 0, 3] += 1  # and every target sees all of its own source
        last = model.logits(parameters, tokens).view_as(before)
        assert not torch.equal(last[0, 0], after[0, 0])
        assert torch.equal(last[1], after[1])


@pytest.mark.parametrize(
    ("depth", "alpha", "beta"),  # by hand from Wang et al. 2022, Fig. 2, at N = M
    [(1, 0.81, 0.87), (6, 0.81 * 6 ** (5 / 16), 0.87 * 6 ** (-5 / 16)), (16, 0.81 * 2**1.25, 0.87 * 2**-1.25)],
)
def test_deepnorms_constants_are_those_of_its_stacks(depth: int, alpha: float, beta: float) -> None:
    encoder = VARIANTS["deepnorm"].wiring(SublayerPosition(1, depth, "ffn", "encoder", depth))
    decoder = VARIANTS["deepnorm"].wiring(SublayerPosition(1, depth, "cross", "decoder", depth))
    assert (encoder.skip, encoder.fc1_gain) == pytest.approx((alpha, beta))
    assert (decoder.skip, decoder.value_gain) == pytest.approx(((3 * depth) ** 0.25, (12 * depth) ** -0.25))


def test_sub_lns_constants_are_those_of_its_stacks() -> None:
    def gain(sublayer: Sublayer, stack: str) -> float:
        return float(VARIANTS["sub-ln"].wiring(SublayerPosition(1, 6, sublayer, stack, 6)).output_gain)

    assert gain("ffn", "encoder") == pytest.approx(math.sqrt(math.log(18) * math.log(12) / 3))
    assert gain("attention", "decoder") == pytest.approx(math.sqrt(math.log(18)))
    assert gain("cross", "decoder") == 1.0


def test_admin_profiles_each_stack_from_one() -> None:
    task = load_task("translation", "synthetic", 4, SPEC.seq_len)
    model = EncoderDecoder(SPEC, "admin", {}, task.num_classes)
    theta_P = initial_parameters(model, 0, Batches(task, torch.device("cpu")))
    parameters = model.layout.unbind(model.layout.views(theta_P[None]))

    def skip(sublayer: str, block: int) -> float:
        return float(parameters[f"{sublayer}.skip", block][0, 0])

    firsts = [skip("attention", 1), skip("attention", DEPTH + 1)]
    assert firsts == [1.0, 1.0]
    in_order = [skip(s, b) for b in range(DEPTH + 1, 2 * DEPTH + 1) for s in ("attention", "cross", "ffn")]
    assert all(a < b for a, b in pairwise(in_order))


def test_rezero_shares_one_scalar_among_a_blocks_sublayers() -> None:
    banks = model_of("rezero").layout.banks
    assert banks["gate"].layers == list(range(1, 2 * DEPTH + 1))


def test_a_larger_vocabulary_has_more_rows_and_nothing_else() -> None:
    few, many = EncoderDecoder(SPEC, "pre-ln", {}, 600), EncoderDecoder(SPEC, "pre-ln", {}, 1000)
    assert many.layout.num_parameters - few.layout.num_parameters == 2 * 400 * SPEC.width
