"""The wiring table says what the papers say: placements, constants and parameter counts."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from stresstest.errors import ConfigError
from stresstest.models.transformer import Transformer
from stresstest.models.variants import (
    NORMS,
    PARAMETRIZATIONS,
    VARIANTS,
    Norm,
    Sublayer,
    SublayerPosition,
    Variant,
    Wiring,
)
from stresstest.registry import OptionValue, Registry
from stresstest.specs.base import ModelSpec
from stresstest.specs.parsing import parse_choice

SUBLAYERS: tuple[Sublayer, ...] = ("attention", "ffn")
OF_TRANSFORMERS = [name for name, variant in VARIANTS.items() if "decoder" not in variant.not_in]
GAINS = ("value_gain", "output_gain", "fc1_gain", "fc2_gain")

# Norms of an attention sublayer, of a feed-forward sublayer, and outside the blocks.
PLACEMENTS: dict[str, tuple[str, str, str]] = {
    "plain": ("", "", ""),
    "residual": ("", "", ""),
    "layernorm": ("out", "out", ""),
    "post-ln": ("post", "post", ""),
    "pre-ln": ("pre", "pre", "final"),
    "gpt2-norm": ("out", "out", "final"),
    "normformer": ("pre out", "pre inner", "final"),
    "rezero": ("", "", ""),
    "deepnorm": ("post", "post", ""),
    "admin": ("post", "post", ""),
    "sandwich-ln": ("pre out", "pre out", "final"),
    "sub-ln": ("pre inner", "pre inner", "final"),
    "mix-ln": ("pre", "pre", "final"),  # in the last layer
    "lns": ("pre", "pre", "final"),
    "layerscale": ("pre", "pre", "final"),
    "peri-ln": ("pre out", "pre out", "embedding final"),
}

# Parameters beyond the matrices, biases and embeddings: (a layer) in units of (D, H, 1), and D once.
EXTRAS: dict[str, tuple[int, int, int, int]] = {
    "plain": (0, 0, 0, 0),
    "residual": (0, 0, 0, 0),
    "layernorm": (4, 0, 0, 0),
    "post-ln": (4, 0, 0, 0),
    "pre-ln": (4, 0, 0, 2),
    "gpt2-norm": (4, 0, 0, 2),
    "normformer": (14, 1, 0, 2),
    "normformer:res_scale=true": (15, 1, 0, 2),
    "rezero": (0, 0, 1, 0),
    "deepnorm": (4, 0, 0, 0),
    "admin": (6, 0, 0, 0),
    "sandwich-ln": (8, 0, 0, 2),
    "sub-ln": (14, 0, 0, 2),
    "mix-ln": (4, 0, 0, 2),
    "lns": (4, 0, 0, 2),
    "layerscale": (6, 0, 0, 2),
    "peri-ln": (8, 0, 0, 4),
}


def wiring(name: str, layer: int = 1, depth: int = 1, sublayer: Sublayer = "ffn", **options: OptionValue) -> Wiring:
    return VARIANTS[name].wiring(SublayerPosition(layer, depth, sublayer), **options)


def both(name: str, layer: int = 1, depth: int = 1, **options: OptionValue) -> Wiring:
    """The wiring of a variant that treats its two sublayers alike."""
    attention, ffn = (wiring(name, layer, depth, sublayer, **options) for sublayer in SUBLAYERS)
    assert attention == ffn
    return ffn


def has(name: str, flag: str) -> bool:
    """Whether a sublayer of the variant has the flag."""
    return any(getattr(wiring(name, sublayer=sublayer), flag) for sublayer in SUBLAYERS)


def gains(place: Wiring) -> list[float]:
    return [getattr(place, gain) for gain in GAINS]


def num_parameters(spec: ModelSpec, text: str) -> int:
    choice = parse_choice(text, VARIANTS)
    return Transformer(spec, choice.name, choice.options).layout.num_parameters


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_variant_puts_its_norms_where_its_paper_does(name: str) -> None:
    variant = VARIANTS[name]
    places = (wiring(name, 8, 8, sublayer) for sublayer in SUBLAYERS)
    norms = [" ".join(n for n in ("pre", "inner", "out", "post") if getattr(p, f"{n}_norm")) for p in places]
    ends = " ".join(end for end in ("embedding", "final") if getattr(variant, f"{end}_norm"))
    assert (*norms, ends) == PLACEMENTS[name]


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_variant_has_neutral_constants_unless_its_paper_sets_them(name: str) -> None:
    special = {
        "plain": {"skip": 0.0},
        "layernorm": {"skip": 0.0},
        "rezero": {"gate": 0.0},
        "layerscale": {"gate": 1e-4},
        "lns": {"pre_gain": 8**-0.5},
        "deepnorm": {"skip": 2.0, **dict.fromkeys(GAINS, 8**-0.5)},
        "sandwich-ln": {"output_gain": 0.25, "fc2_gain": 0.25},
        "sub-ln": dict.fromkeys(GAINS, math.sqrt(math.log(16))),
    }.get(name, {})
    neutral = {"skip": 1.0, "gate": 1.0, "pre_gain": 1.0, **dict.fromkeys(GAINS, 1.0)}
    for sublayer in SUBLAYERS:
        place = wiring(name, 8, 8, sublayer)
        assert {key: getattr(place, key) for key in neutral} == pytest.approx(neutral | special, rel=1e-12)


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_variant_learns_a_skip_a_gate_or_a_head_scale_only_where_its_paper_does(name: str) -> None:
    assert (name == "admin") == VARIANTS[name].profiled == has(name, "learned_skip")
    assert (name == "normformer") == has(name, "head_scale")
    gate = {"rezero": "scalar", "layerscale": "vector"}.get(name, "no")
    assert {wiring(name, sublayer=sublayer).learned_gate for sublayer in SUBLAYERS} == {gate}


@pytest.mark.parametrize(
    ("depth", "alpha", "beta"),
    [
        (2, math.sqrt(2), 1 / 2),
        (8, 2.0, 1 / math.sqrt(8)),
        (162, math.sqrt(18), 1 / 6),
        (5000, 10.0, 200**-0.5),
    ],
)
def test_deepnorm_has_the_decoder_only_constants(depth: int, alpha: float, beta: float) -> None:
    for layer in (1, depth):
        place = both("deepnorm", layer, depth)
        assert place.skip == pytest.approx(alpha, rel=1e-12)
        assert gains(place) == pytest.approx([beta] * 4, rel=1e-12)


@pytest.mark.parametrize(("depth", "log"), [(1, 0.69314718), (12, 3.17805383), (500, 6.90775528)])
def test_sub_ln_scales_four_matrices_by_the_root_of_ln_2l(depth: int, log: float) -> None:
    squares = [gain**2 for gain in gains(both("sub-ln", depth, depth))]
    assert squares == pytest.approx([log] * 4, rel=1e-8)


@pytest.mark.parametrize(("depth", "gain"), [(2, 1 / 2), (8, 1 / 4), (50, 1 / 10)])
def test_sandwich_ln_scales_the_last_matrix_of_each_sublayer(depth: int, gain: float) -> None:
    assert gains(both("sandwich-ln", 1, depth)) == pytest.approx([1.0, gain, 1.0, gain], rel=1e-12)


@pytest.mark.parametrize(("layer", "gain"), [(1, 1.0), (4, 1 / 2), (9, 1 / 3), (100, 1 / 10)])
def test_lns_divides_the_normed_input_by_the_root_of_the_layer(layer: int, gain: float) -> None:
    for depth in (layer, 2 * layer):
        assert both("lns", layer, depth).pre_gain == pytest.approx(gain, rel=1e-12)


@pytest.mark.parametrize(("depth", "num_post"), [(1, 0), (3, 0), (4, 1), (12, 3), (24, 6), (25, 6)])
def test_mix_ln_has_post_ln_in_the_first_quarter_of_the_layers(depth: int, num_post: int) -> None:
    places = [both("mix-ln", layer, depth) for layer in range(1, depth + 1)]
    assert places == [wiring("post-ln")] * num_post + [wiring("pre-ln")] * (depth - num_post)


@pytest.mark.parametrize(("share", "num_post"), [(0.0, 0), (0.5, 6), (1.0, 12)])
def test_the_post_share_of_mix_ln_can_be_set(share: float, num_post: int) -> None:
    places = [both("mix-ln", layer, 12, post_share=share) for layer in range(1, 13)]
    assert [place.post_norm for place in places] == [True] * num_post + [False] * (12 - num_post)


def test_rezero_and_layerscale_start_where_their_option_says() -> None:
    assert both("rezero", alpha=1.0).gate == 1.0
    assert both("layerscale", init=1e-5).gate == 1e-5


def test_normformer_scales_the_feed_forward_residual_on_demand_only() -> None:
    assert not has("normformer", "learned_skip")
    assert wiring("normformer", res_scale=True).learned_skip
    assert not wiring("normformer", sublayer="attention", res_scale=True).learned_skip


@pytest.mark.parametrize("name", [*OF_TRANSFORMERS, "normformer:res_scale=true"])
@pytest.mark.parametrize(("depth", "width", "heads"), [(1, 8, 1), (2, 16, 2), (5, 24, 6)])
def test_a_variant_has_exactly_its_papers_parameters(name: str, depth: int, width: int, heads: int) -> None:
    spec = ModelSpec(depth=depth, width=width, heads=heads)
    widths, head_counts, ones, once = EXTRAS[name]
    matrices = 2 * 256 * width + depth * (12 * width**2 + 9 * width)  # with their biases
    extras = depth * (widths * width + head_counts * heads + ones) + once * width
    assert num_parameters(spec, name) == matrices + extras


def test_normformer_adds_ten_widths_and_the_heads_to_each_layer_of_pre_ln(tiny: ModelSpec) -> None:
    pre_ln = num_parameters(tiny, "pre-ln")
    assert num_parameters(tiny, "normformer") - pre_ln == 2 * (10 * 16 + 2)
    assert num_parameters(tiny, "normformer:res_scale=true") - pre_ln == 2 * (11 * 16 + 2)


def test_rezero_has_one_scalar_a_layer_and_no_norm_parameters(tiny: ModelSpec) -> None:
    banks = Transformer(tiny, "rezero", {}).layout.banks
    assert banks["gate"].shape == ()
    assert banks["gate"].layers == [1, 2]
    matrices = ("qkv", "output", "fc1", "fc2")
    linear = {f"{name}.{part}" for name in matrices for part in ("weight", "bias")}
    assert set(banks) == {"embedding", "unembedding", "gate", *linear}


@pytest.mark.parametrize(("norm", "a_norm"), [("rms-norm", 16), ("layer-norm", 32), ("dyt", 33), ("none", 0)])
@pytest.mark.parametrize(("name", "num_norms"), [("pre-ln", 5), ("post-ln", 4), ("peri-ln", 10)])
def test_a_norm_function_brings_its_own_parameters(
    tiny: ModelSpec, norm: str, a_norm: int, name: str, num_norms: int
) -> None:
    bare = num_parameters(tiny.model_copy(update={"norm": "none"}), name)
    assert num_parameters(tiny.model_copy(update={"norm": norm}), name) - bare == num_norms * a_norm


def test_tying_saves_an_embedding_and_qk_norm_adds_two_head_norms_a_layer(tiny: ModelSpec) -> None:
    full = num_parameters(tiny, "pre-ln")
    assert full - num_parameters(tiny.model_copy(update={"tied": True}), "pre-ln") == 256 * 16
    assert num_parameters(tiny.model_copy(update={"qk_norm": True}), "pre-ln") - full == 2 * 2 * (2 * 8)


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_variant_says_what_it_is_and_where_it_is_from(name: str) -> None:
    assert VARIANTS[name].summary.strip()
    assert VARIANTS[name].source.strip()


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_says_what_it_is(name: str) -> None:
    assert NORMS[name].summary.strip()


def test_the_norms_and_parametrizations_a_spec_accepts_are_the_tables() -> None:
    assert get_args(ModelSpec.model_fields["norm"].annotation) == tuple(NORMS)
    assert get_args(ModelSpec.model_fields["parametrization"].annotation) == tuple(PARAMETRIZATIONS)


@pytest.mark.parametrize(
    ("table", "typo", "meant"),
    [(VARIANTS, "postln", "post-ln"), (VARIANTS, "re-zero", "rezero"), (NORMS, "rmsnorm", "rms-norm")],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    table: Registry[Variant] | Registry[Norm], typo: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=rf"unknown {table.kind} '{typo}'; did you mean '{meant}'\?"):
        table[typo]


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(ConfigError, match=f"choose from {', '.join(VARIANTS)}"):
        VARIANTS["zzzz"]


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown option 'alfa' of variant rezero; did you mean 'alpha'\\?"):
        parse_choice("rezero:alfa=1", VARIANTS)
