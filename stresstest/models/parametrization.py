"""Parametrizations: what changes with width and depth, so that a learning rate keeps its meaning.

`sp` trains as the models are written. `mup` is the maximal update parametrization (Yang & Hu 2021; Yang et al. 2022,
"Tensor Programs V"); `completep` adds what CompleteP with alpha = 1 does in depth, and to eps (Dey et al. 2025). All
three are the same to the bit at `base_width` and `base_depth`.

Of a tensor whose fan-in and fan-out are `n_in` and `n_out` times those of the base model, and that the forward pass
multiplies by `c` times what it does there:

    initial std    n_in^-1/2 min(1, n_out / n_in)^1/2 / c
    lr             Adam and its like 1 / (n_in c); SGD and its like n_out / (n_in c^2); LAMB n_in^-1/2 / min(...)^1/2
    eps            c / n_out, in completep alone

With c = 1 this is Table 3 of Tensor Programs V, and the spectral parametrization of Yang et al. 2023 ("A Spectral
Condition for Feature Learning"). Every c trains the same, up to Adam's eps (the symmetry of abc-parametrizations, Yang
& Hu 2021). The form here is that of Table 9, which is for shared embeddings: the embedding keeps its factor D^1/2, and
the output layer is multiplied by (D / base_width)^-1/2. So the initial weights are those of `sp`, and so is SGD's
learning rate of every matrix between the ends. Attention has 1 / d (Tensor Programs V, Definition 4.1).

LAMB's lr is derived: the trust ratio makes the entries of an update as large as those of the weights at first, where
muP asks for 1 / (n_in c). RAdam's first five steps, plain momentum, have Adam's factors and shrink with the width.

In depth, with L blocks for each of the base model's, CompleteP multiplies residual branches by 1 / L, and eps of
what is in them too (Dey et al. 2025, Table 1; Adam's lr changes by L^(alpha - 1) = 1). The rest is derived here, so
that all blocks together move the stream as far as the base model's do: SGD's lr of what is in a branch times L, since
its gradient has the factor 1 / L; the lr of what is on the stream itself (norms after the sum, learned skips) times
1 / L, since no branch makes it smaller. A learned gate starts at 1 / L of its value instead, c = L.

Decoupled weight decay keeps lr * weight_decay for all (Dey et al. 2025, Table 1; `MuAdamW` of the package mup).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from stresstest.models.layout import Bank, Layout
from stresstest.models.scales import UpdateSize
from stresstest.models.variants import Wiring
from stresstest.specs.base import ModelSpec


@dataclass(frozen=True)
class Growth:
    """How a tensor differs from the base model's; all is 1 at its size."""

    fan_in: float = 1.0
    fan_out: float = 1.0
    forward: float = 1.0  # the module's c
    depth: float = 1.0  # the module's L
    place: Literal["end", "branch", "stream"] = "end"
    scales_eps: bool = False

    @property
    def std(self) -> float:
        """What multiplies the std of the base model's initial values."""
        return self._std / self.forward

    def lr(self, size: UpdateSize) -> float:
        """What multiplies the learning rate of an optimizer whose updates have this size."""
        on_stream = 1.0 / self.depth if self.place == "stream" else 1.0
        if size == "gradient":
            in_branch = self.depth if self.place == "branch" else 1.0
            return self.fan_out / (self.fan_in * self.forward**2) * in_branch * on_stream
        if size == "unit":
            return 1.0 / (self.fan_in * self.forward) * on_stream
        assert size == "weights", f"no rule is known for updates whose size follows the {size}"
        return 1.0 / (self.fan_in * self._std) * on_stream

    @property
    def eps(self) -> float:
        """What multiplies eps of an optimizer that has one: as the gradient grows."""
        if not self.scales_eps:
            return 1.0
        return self.forward / self.fan_out / (self.depth if self.place == "branch" else 1.0)

    @property
    def _std(self) -> float:
        narrows = min(1.0, self.fan_out / self.fan_in)
        return float(self.fan_in**-0.5 * narrows**0.5)


def width_ratio(spec: ModelSpec) -> float:
    """The width for each unit of the base model's, as far as the parametrization knows."""
    return 1.0 if spec.parametrization == "sp" else spec.width / spec.base_width


def depth_ratio(spec: ModelSpec) -> float:
    """The blocks for each of the base model's, as far as the parametrization knows."""
    return spec.depth / spec.base_depth if spec.parametrization == "completep" else 1.0


def output_multiplier(spec: ModelSpec) -> float:
    """What the stream is multiplied by before the output layer."""
    return float(width_ratio(spec) ** -0.5)


def attention_scale(spec: ModelSpec) -> float | None:
    """What the products of queries and keys of d numbers are multiplied by, base_d^1/2 / d; `None`: d^-1/2."""
    ratio = width_ratio(spec)
    return None if ratio == 1.0 else float((spec.width // spec.heads * ratio) ** -0.5)


def scaled(spec: ModelSpec, wiring: Wiring) -> Wiring:
    """A sublayer's constants with the residual multiplier in its gate."""
    return replace(wiring, gate=wiring.gate / depth_ratio(spec))


def base_of(spec: ModelSpec) -> ModelSpec | None:
    """The model whose shapes tell what grows; `None` where nothing depends on it."""
    if spec.parametrization == "sp":
        return None
    return spec.model_copy(update={"parametrization": "sp", "width": spec.base_width})


def parametrize(layout: Layout, base: Layout, spec: ModelSpec) -> None:
    """Scale the initial values of a layout, and note how its tensors grew, against that of the base model."""
    for kind, bank in layout.banks.items():
        known = base.banks[kind]
        layout.growth[kind] = growth = _growth(bank, known, spec)
        bank.inits = [
            replace(init, std=there.std * growth.std) for init, there in zip(bank.inits, known.inits, strict=True)
        ]


def _growth(bank: Bank, base: Bank, spec: ModelSpec) -> Growth:
    out, into = _fans(bank, base)
    return Growth(
        fan_in=into,
        fan_out=out,
        forward=_forward(bank.kind, spec),
        depth=depth_ratio(spec),
        place=_place(bank),
        scales_eps=spec.parametrization == "completep",
    )


def _fans(bank: Bank, base: Bank) -> tuple[float, float]:
    """How much fan-out and fan-in grew."""
    ratios = [size / known for size, known in zip(bank.shape, base.shape, strict=True)]
    if bank.is_matrix:
        return (ratios[-1], ratios[-2]) if bank.kind == "embedding" else (ratios[-2], ratios[-1])
    return (ratios[-1], 1.0) if ratios else (1.0, 1.0)


def _forward(kind: str, spec: ModelSpec) -> float:
    """The factor c of a kind of tensor; both ends of a model with a shared embedding have the one of its input."""
    if kind == "embedding":
        return float(width_ratio(spec) ** 0.5)
    if kind == "unembedding" or (kind == "output.weight" and spec.model == "mlp"):
        return output_multiplier(spec)
    return depth_ratio(spec) if kind.rpartition(".")[2] == "gate" else 1.0


def _place(bank: Bank) -> Literal["end", "branch", "stream"]:
    sublayer, _, part = bank.kind.partition(".")
    if part.startswith("post.") or part == "skip":
        return "stream"
    return "end" if bank.layers[0] == 0 and sublayer != "mlp" else "branch"
