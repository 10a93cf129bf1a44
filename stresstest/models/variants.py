"""The wiring table: where norms, gains and gates sit in a residual block. Start reading here.

Every variant is one equation with other constants, applied to each sublayer f in turn:

    x <- post(skip * x + gate * out(f(pre_gain * pre(x))))

with an optional inner norm inside f, and a norm before the output layer where the variant has
one. A variant is a function from a `Place` to a `Wiring` of plain numbers and bools. To add one,
write that function here: the command line, `stresstest list`, the reports and the conformance
tests read this table. The norm function, QK-norm and the like are other settings, never variants.

In a ResNet a block is one sublayer too, f of two convolutions; out_norm is its BatchNorms, and it has three variants.
In a residual MLP a block is one sublayer, f(x) = ReLU(W x + b), so that inner and out norm are one
place. The networks of ReZero's MLP experiment are `plain`, `residual`, `layernorm` and `rezero`;
the others are analogues that this project defines, with the sublayers that are there counted in
their constants.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from stresstest.registry import OptionValue, Registry

Sublayer = Literal["attention", "cross", "ffn", "mlp", "conv"]
Stack = Literal["alone", "encoder", "decoder"]

STAGES = 3  # of a ResNet, to which its blocks are dealt out


@dataclass(frozen=True)
class SublayerPosition:
    """Where a sublayer sits: `layer` counts from 1 to `depth` blocks of its stack.

    A transformer's block has two sublayers, `attention` and `ffn`, and in a decoder that reads an encoder
    `cross` between them; a residual MLP's has one, `mlp`. `other`: blocks of the other stack, where there is one.
    """

    layer: int
    depth: int
    sublayer: Sublayer
    stack: Stack = "alone"
    other: int = 0

    @property
    def num_sublayers(self) -> int:
        """Residual sublayers of the whole stack: what a constant such as DeepNorm's (2L)^1/4 counts."""
        if self.sublayer in ("mlp", "conv"):
            return self.depth
        return (3 if self.stack == "decoder" else 2) * self.depth


@dataclass(frozen=True)
class Wiring:
    """The constants of the block equation at one place."""

    pre_norm: bool = False
    pre_gain: float = 1.0
    inner_norm: bool = False  # attention: on the joined heads before W_O; ffn: before the last matrix
    out_norm: bool = False
    post_norm: bool = False
    skip: float = 1.0
    learned_skip: bool = False  # a vector of the width, initialised at `skip`
    gate: float = 1.0
    learned_gate: Literal["no", "scalar", "vector"] = "no"  # a scalar is shared by the layer
    head_scale: bool = False  # a learned scalar a head, before W_O
    shared_norm: bool = False  # one gain and bias for all layers
    value_gain: float = 1.0  # the gains multiply the initial std of W_V, W_O, W_1, W_2
    output_gain: float = 1.0
    fc1_gain: float = 1.0
    fc2_gain: float = 1.0  # and of the one matrix of an MLP's block
    scalar_lr: float = 1.0  # share of the learning rate that biases and a ResNet's scalars have


@dataclass(frozen=True)
class Variant:
    """One entry of the wiring table."""

    name: str
    summary: str
    source: str
    wiring: Callable[..., Wiring]
    options: Mapping[str, OptionValue]  # keyword arguments of `wiring`, with their defaults
    final_norm: bool = False
    embedding_norm: bool = False
    profiled: bool = False  # `skip` is measured on a forward pass at initialisation (Admin)
    not_in: tuple[str, ...] = ()  # models that cannot be wired so


_ALL_BUT_RESNETS = ("decoder", "encoder", "encoder-decoder", "mlp")

_entries: list[Variant] = []


def _variant(
    name: str,
    source: str,
    *,
    final_norm: bool = False,
    embedding_norm: bool = False,
    profiled: bool = False,
    not_in: tuple[str, ...] = (),
) -> Callable[[Callable[..., Wiring]], Callable[..., Wiring]]:
    def register(wiring: Callable[..., Wiring]) -> Callable[..., Wiring]:
        parameters = list(inspect.signature(wiring).parameters.values())[1:]
        summary = inspect.cleandoc(wiring.__doc__ or "").splitlines()[0]
        options = {p.name: p.default for p in parameters}
        ends = {"final_norm": final_norm, "embedding_norm": embedding_norm}
        _entries.append(Variant(name, summary, source, wiring, options, **ends, profiled=profiled, not_in=not_in))
        return wiring

    return register


@_variant("plain", "Bachlechner et al. 2020 (arXiv 2003.04887): the vanilla network")
def _plain(place: SublayerPosition) -> Wiring:
    """x <- f(x): no residual connection, no norm."""
    return Wiring(skip=0.0)


@_variant("residual", "Bachlechner et al. 2020 (arXiv 2003.04887); He et al. 2016")
def _residual(place: SublayerPosition) -> Wiring:
    """x <- x + f(x): residual connections, no norm; in an MLP weights of variance 1/(4 width)."""
    return Wiring(fc2_gain=8**-0.5) if place.sublayer == "mlp" else Wiring()


@_variant("layernorm", "Bachlechner et al. 2020 (arXiv 2003.04887): the norm without a residual connection")
def _layernorm(place: SublayerPosition) -> Wiring:
    """x <- N(f(x)): no residual connection; in an MLP one norm is shared by all layers, as in their code."""
    return Wiring(skip=0.0, out_norm=True, shared_norm=place.sublayer == "mlp")


@_variant("vanilla", "He et al. 2016 (ResNet)", not_in=_ALL_BUT_RESNETS)
def _vanilla(place: SublayerPosition) -> Wiring:
    """x <- ReLU(x + f(x)), a ResNet's block with BatchNorm behind each convolution."""
    return Wiring(out_norm=True)


@_variant("fixup", "Zhang et al. 2019 (Fixup, arXiv 1901.09321)", not_in=_ALL_BUT_RESNETS)
def _fixup(place: SublayerPosition, scalar_lr: float = 0.1) -> Wiring:
    """x <- ReLU(x + s f(x) + b), without norms: first convolutions scaled by L^-1/2, last ones 0, scalar biases.

    Biases and scales have a tenth of the learning rate (`scalar_lr`), as in the authors' code.
    """
    gain = place.num_sublayers**-0.5
    return Wiring(gate=1.0, learned_gate="scalar", fc1_gain=gain, fc2_gain=0.0, scalar_lr=scalar_lr)


@_variant("post-ln", "Vaswani et al. 2017; Xiong et al. 2020 (arXiv 2002.04745)")
def _post_ln(place: SublayerPosition) -> Wiring:
    """x <- N(x + f(x)): the original Transformer."""
    return Wiring(post_norm=True)


@_variant("pre-ln", "Xiong et al. 2020 (arXiv 2002.04745)", final_norm=True)
def _pre_ln(place: SublayerPosition) -> Wiring:
    """x <- x + f(N(x)), and a final norm."""
    return Wiring(pre_norm=True)


@_variant("gpt2-norm", "Bachlechner et al. 2020, equation from memory; OLMo 2", final_norm=True)
def _gpt2_norm(place: SublayerPosition) -> Wiring:
    """x <- x + N(f(x)): the norm on the branch's output (not GPT-2's own block)."""
    return Wiring(out_norm=True)


@_variant("normformer", "Shleifer et al. 2021 (arXiv 2110.09456)", final_norm=True)
def _normformer(
    place: SublayerPosition,
    res_scale: bool = False,
    head_scale: bool = True,
    post_norm: bool = True,
    ffn_norm: bool = True,
) -> Wiring:
    """Pre-LN with head scale, a norm after attention and one inside the feed-forward layer.

    `res_scale` adds ResScale: a learned vector on the feed-forward residual, initialised at 1
    (the paper advises it for small models only). The other three take one of the operations away: the head
    scale, the norm after attention, the one in the feed-forward layer.
    """
    if place.sublayer in ("attention", "cross"):  # to cross-attention as to self-attention: the paper has no such layer
        return Wiring(pre_norm=True, out_norm=post_norm, head_scale=head_scale)
    return Wiring(pre_norm=True, inner_norm=ffn_norm, learned_skip=res_scale)


@_variant("rezero", "Bachlechner et al. 2020 (arXiv 2003.04887); one scalar a layer as in their code")
def _rezero(place: SublayerPosition, alpha: float = 0.0) -> Wiring:
    """x <- x + alpha f(x), alpha learned and 0 at first, one a layer (`alpha=1` is the control)."""
    return Wiring(gate=alpha, learned_gate="scalar", out_norm=place.sublayer == "conv")


@_variant("deepnorm", "Wang et al. 2022 (DeepNet, arXiv 2203.00555): constants by stack")
def _deepnorm(place: SublayerPosition) -> Wiring:
    """x <- N(alpha x + f(x)) with alpha = (2L)^1/4 and W_V, W_O, W_1, W_2 scaled by (8L)^-1/4.

    In a decoder of M blocks that reads an encoder (3M)^1/4 and (12M)^-1/4; in that encoder, of N blocks,
    0.81 (N^4 M)^1/16 and 0.87 (N^4 M)^-1/16.
    """
    alpha, beta = place.num_sublayers**0.25, (4 * place.num_sublayers) ** -0.25
    if place.stack == "encoder":
        both = (place.depth**4 * place.other) ** (1 / 16)
        alpha, beta = 0.81 * both, 0.87 / both
    return Wiring(
        post_norm=True,
        skip=alpha,
        value_gain=beta,
        output_gain=beta,
        fc1_gain=beta,
        fc2_gain=beta,
    )


@_variant("admin", "Liu et al. 2020 (arXiv 2004.08249): omega_i^2 = 1 + sum of Var f_j, j < i", profiled=True)
def _admin(place: SublayerPosition) -> Wiring:
    """x <- N(omega x + f(x)), omega a learned vector set by a profiling pass at initialisation."""
    return Wiring(post_norm=True, learned_skip=True)


@_variant("sandwich-ln", "Ding et al. 2021 (CogView)", final_norm=True)
def _sandwich_ln(place: SublayerPosition) -> Wiring:
    """x <- x + N(f(N(x))), W_O and W_2 scaled by 1/sqrt(2L)."""
    gain = place.num_sublayers**-0.5
    return Wiring(pre_norm=True, out_norm=True, output_gain=gain, fc2_gain=gain)


@_variant("sub-ln", "Wang et al. 2022 (Magneto): constants by stack", final_norm=True, not_in=("mlp",))
def _sub_ln(place: SublayerPosition) -> Wiring:
    """Pre-LN with a norm before W_O and before W_2; W_V, W_O, W_1, W_2 scaled by sqrt(ln 2L).

    In a decoder of M blocks that reads an encoder sqrt(ln 3M), but 1 in its cross-attention; in that encoder, of
    N blocks, sqrt(ln 3M ln 2N / 3).
    """
    gain = math.log(place.num_sublayers) ** 0.5
    if place.stack == "encoder":
        gain = (math.log(3 * place.other) * math.log(2 * place.depth) / 3) ** 0.5
    if place.sublayer == "cross":
        gain = 1.0
    return Wiring(
        pre_norm=True,
        inner_norm=True,
        value_gain=gain,
        output_gain=gain,
        fc1_gain=gain,
        fc2_gain=gain,
    )


@_variant("mix-ln", "Li et al. 2024 (Mix-LN): a = 0.25", final_norm=True)
def _mix_ln(place: SublayerPosition, post_share: float = 0.25) -> Wiring:
    """Post-LN in the first quarter of the layers (`post_share`), Pre-LN in the rest."""
    if place.layer <= math.floor(post_share * place.depth):
        return Wiring(post_norm=True)
    return Wiring(pre_norm=True)


@_variant("lns", "Sun et al. 2025 (LayerNorm Scaling), Eq. 12", final_norm=True)
def _lns(place: SublayerPosition) -> Wiring:
    """x <- x + f(N(x) / sqrt(l)) in layer l."""
    return Wiring(pre_norm=True, pre_gain=place.layer**-0.5)


@_variant("layerscale", "Touvron et al. 2021 (CaiT); 1e-4 as in DeiT's code", final_norm=True)
def _layerscale(place: SublayerPosition, init: float = 1e-4) -> Wiring:
    """x <- x + gamma * f(N(x)), gamma a learned vector, `init` at first."""
    return Wiring(pre_norm=True, gate=init, learned_gate="vector")


@_variant(
    "peri-ln", "Kim et al. 2025 (Peri-LN); embedding and final norm from memory", final_norm=True, embedding_norm=True
)
def _peri_ln(place: SublayerPosition) -> Wiring:
    """x <- x + N(f(N(x))), and a norm on the embedding and at the end."""
    return Wiring(pre_norm=True, out_norm=True)


VARIANTS: Registry[Variant] = Registry("variant", _entries)


@dataclass(frozen=True)
class Norm:
    """One norm function."""

    name: str
    summary: str
    source: str


NORMS: Registry[Norm] = Registry(
    "norm",
    [
        Norm("layer-norm", "gain * (x - mean) / sqrt(var + 1e-5) + bias", "Ba et al. 2016"),
        Norm("rms-norm", "gain * x / sqrt(mean(x^2) + 1e-6)", "Zhang & Sennrich 2019"),
        Norm("dyt", "gain * tanh(alpha x) + bias, alpha learned, 0.5 at first", "Zhu et al. 2025 (DyT)"),
        Norm("none", "the identity: the variant's wiring without its norms", ""),
    ],
)


@dataclass(frozen=True)
class Parametrization:
    """One way to scale a model with its size; `stresstest/models/parametrization.py` has its rules."""

    name: str
    words: str
    summary: str
    source: str


PARAMETRIZATIONS: Registry[Parametrization] = Registry(
    "parametrization",
    [
        Parametrization("sp", "", "As the models are written: a learning rate belongs to one width and depth.", ""),
        Parametrization(
            "mup",
            "muP of width {base_width}",
            "A learning rate carries over to other widths: init, lr by kind of tensor, output and attention scaled.",
            "Yang & Hu 2021; Yang et al. 2022 (Tensor Programs V, Table 9)",
        ),
        Parametrization(
            "completep",
            "CompleteP of width {base_width} and depth {base_depth}",
            "A learning rate carries over to other depths too: muP, and residual branches and eps scaled.",
            "Dey et al. 2025 (CompleteP, Table 1, alpha = 1)",
        ),
    ],
)
