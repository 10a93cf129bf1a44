"""The block equation in plain, differentiable operations, and what every built-in model shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.models.batch_norm import Running
from stresstest.models.dropout import Dropout
from stresstest.models.layout import Init, Layout, Leaves, Parameters, RowLayout
from stresstest.models.norms import apply_norm, declare_norm
from stresstest.models.variants import Sublayer, Variant, Wiring
from stresstest.specs.base import ModelSpec

# Hears of each sublayer: (layer, sublayer, branch as added, sum before the post-norm, new stream).
Watch = Callable[[int, Sublayer, Tensor, Tensor, Tensor], None]


class Trainable(Protocol):
    """What a population trains: a built-in architecture, or the user's own."""

    @property
    def layout(self) -> RowLayout:
        """Where its parameters lie in a row."""
        ...

    def release(self) -> None:
        """Give back what is kept from one step for the next."""
        ...


class Model(Protocol):
    """An architecture with a replica axis: R independent copies in one computation.

    The stream is what the blocks read and write: [R, B, T, D] in a transformer, [R, B, D] in an MLP.
    """

    spec: ModelSpec
    variant: Variant
    layout: Layout
    wirings: dict[tuple[int, Sublayer], Wiring]
    last_matrix: str  # the bank of every block's last matrix, whose gradient is looked at
    last_stack: int  # the first block of the last stack: 1, where there is but one

    def initial_row(self, seed: int) -> Tensor:
        """The initial parameters of the replica `seed`: [P], float64."""
        ...

    def loss(
        self,
        leaves: Leaves,
        inputs: Tensor,
        targets: Tensor,
        into: Leaves | None = None,
        as_trained: bool = False,
        dropout: Dropout | None = None,
        running: Running | None = None,
    ) -> Tensor:
        """Mean cross-entropy of each replica in nats, [R]; `as_trained` with what the spec asks of the training loss.

        The backward pass may write a bank's gradient to `into`, and return that. Without `running`, BatchNorm takes the
        statistics of the batch and keeps nothing.
        """
        ...

    def statistics(self, num_replicas: int) -> Parameters:
        """The running statistics of BatchNorms before training, [R, C] each; none where the model has no such norm."""
        ...

    def plain_loss(
        self, leaves: Leaves, inputs: Tensor, targets: Tensor, watch: Watch | None = None, as_trained: bool = False
    ) -> Tensor:
        """The same by operations that can be differentiated twice."""
        ...

    def logits(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """What the loss is taken of, [R, N, C]."""
        ...

    def embed(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The stream that enters the first block."""
        ...

    def walk(self, parameters: Parameters, stream: Tensor, watch: Watch | None = None) -> Tensor:
        """The stream that leaves the last block (before a final norm), by plain operations."""
        ...

    def blocks(self, leaves: Leaves, stream: Tensor) -> Tensor:
        """The same, as fast as the model can; it need be differentiable once only."""
        ...

    def release(self) -> None:
        """Give back what is kept from one step for the next."""
        ...

    def activation_bytes(self, batch_size: int, autocast: bool = False) -> int:
        """An estimate of what one replica keeps for its backward pass, in float32."""
        ...


def run_blocks(
    norm: str,
    wirings: Mapping[tuple[int, Sublayer], Wiring],
    parameters: Parameters,
    x: Tensor,
    f: Callable[[int, Sublayer, Wiring, Tensor], Tensor],
    watch: Watch | None = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """x <- post(skip * x + gate * drop(out(f(pre_gain * pre(x))))), sublayer by sublayer; x is [R, N, D]."""
    for (layer, sublayer), wiring in wirings.items():
        h = apply_norm(norm, parameters, f"{sublayer}.pre", layer, x) if wiring.pre_norm else x
        if wiring.pre_gain != 1.0:
            h = h * wiring.pre_gain
        h = f(layer, sublayer, wiring, h)
        if wiring.out_norm:
            h = apply_norm(norm, parameters, f"{sublayer}.out", 0 if wiring.shared_norm else layer, h)
        if dropout is not None:
            h = dropout(layer, sublayer, h)
        branch, joined = _join(wiring, parameters, layer, sublayer, x, h)
        x = apply_norm(norm, parameters, f"{sublayer}.post", layer, joined) if wiring.post_norm else joined
        if watch is not None:
            watch(layer, sublayer, branch, joined, x)
    return x


def mean_cross_entropy(logits_RNC: Tensor, targets: Tensor, smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """Of each replica in nats, [R], at least in float32; targets are [R, ...] of N numbers a replica.

    `smoothing` mixes so much of the uniform distribution into each target (Szegedy et al. 2016, Sec. 7); `z_loss` times
    log(Z)^2 is added, Z the sum of exp(logits) (Chowdhery et al. 2022, Sec. 5).
    """
    losses = _cross_entropies(logits_RNC, targets, smoothing, z_loss)
    return losses.view(logits_RNC.shape[0], -1).mean(1)


def asked_cross_entropy(logits_RNC: Tensor, targets: Tensor, smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    """The same over the positions that are asked for, [R]: those whose target is not negative."""
    losses = _cross_entropies(logits_RNC, targets, smoothing, z_loss)
    return losses.view(logits_RNC.shape[0], -1).sum(1) / (targets.flatten(1) >= 0).sum(1)


def declare_wiring(
    layout: Layout,
    norm: str,
    wiring: Wiring,
    layer: int,
    sublayer: Sublayer,
    width: int,
    inner_width: int | None = None,
) -> None:
    """Add a sublayer's norms, learned skip and vector gate."""
    if wiring.pre_norm:
        declare_norm(layout, norm, f"{sublayer}.pre", layer, width)
    if wiring.inner_norm:
        declare_norm(layout, norm, f"{sublayer}.inner", layer, inner_width or width)
    if wiring.out_norm and not (wiring.shared_norm and layer > 1):
        declare_norm(layout, norm, f"{sublayer}.out", 0 if wiring.shared_norm else layer, width)
    if wiring.post_norm:
        declare_norm(layout, norm, f"{sublayer}.post", layer, width)
    if wiring.learned_skip:
        layout.add(f"{sublayer}.skip", layer, (width,), Init(mean=wiring.skip))
    if wiring.learned_gate == "vector":
        layout.add(f"{sublayer}.gate", layer, (width,), Init(mean=wiring.gate))


def declare_scalar_gate(layout: Layout, wiring: Wiring, layer: int) -> None:
    """Add the gate that a layer's sublayers share."""
    if wiring.learned_gate == "scalar":
        layout.add("gate", layer, (), Init(mean=wiring.gate))


def profile(model: Model, parameters: Parameters, inputs: Tensor) -> None:
    """Admin's profiling pass: set every learned skip to sqrt(1 + sum of Var f_j before it).

    Var is over all elements of the branch's output, and each stack counts its own (Liu et al. 2020, and their code).
    """
    skips: list[tuple[str, int]] = []
    variances_R: list[Tensor] = []

    def measure(layer: int, sublayer: Sublayer, branch: Tensor, joined: Tensor, stream: Tensor) -> None:
        skips.append((f"{sublayer}.skip", layer))
        variances_R.append(torch.stack([replica.var() for replica in branch]))

    with torch.no_grad():
        model.walk(parameters, model.embed(parameters, inputs), measure)
        sum_R = torch.zeros_like(variances_R[0])
        for skip, variance_R in zip(skips, variances_R, strict=True):
            if skip[1] == model.last_stack and skip[0].startswith("attention"):
                sum_R = torch.zeros_like(sum_R)
            # Term by term: a reduction over all would depend on the number of replicas.
            parameters[skip].copy_((1.0 + sum_R).sqrt()[:, None].expand_as(parameters[skip]))
            sum_R = sum_R + variance_R


def _join(
    wiring: Wiring, parameters: Parameters, layer: int, sublayer: Sublayer, x: Tensor, branch: Tensor
) -> tuple[Tensor, Tensor]:
    """(gate * branch, skip * x + gate * branch)."""
    if wiring.learned_gate == "scalar":
        branch = branch * parameters["gate", layer][:, None, None]
    elif wiring.learned_gate == "vector":
        branch = branch * parameters[f"{sublayer}.gate", layer][:, None]
    elif wiring.gate != 1.0:
        branch = branch * wiring.gate
    if wiring.learned_skip:
        return branch, torch.addcmul(branch, x, parameters[f"{sublayer}.skip", layer][:, None])
    if wiring.skip == 0.0:
        return branch, branch
    return branch, torch.add(branch, x, alpha=wiring.skip)


def _cross_entropies(logits_RNC: Tensor, targets: Tensor, smoothing: float, z_loss: float) -> Tensor:
    """Of each position of all replicas; 0 where it is not asked for."""
    flat, wanted = logits_RNC.flatten(0, 1), targets.flatten()
    flat = flat if flat.dtype == torch.float64 else flat.float()
    losses = F.cross_entropy(flat, wanted, reduction="none", ignore_index=-1, label_smoothing=smoothing)
    if not z_loss:
        return losses
    return losses + torch.where(wanted >= 0, z_loss * flat.logsumexp(1).square(), 0.0)
