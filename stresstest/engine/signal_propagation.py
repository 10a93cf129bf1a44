"""Signal propagation: what the blocks do to a signal on its way in and to a gradient on its way back.

Measured in float64 for one replica at a time, at initialisation or between two steps of training.
Dimension key: L block, B batch, T time, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine.jacobian import Spectrum, spectrum
from stresstest.engine.train import Batches
from stresstest.models.block import Model
from stresstest.models.layout import Parameters
from stresstest.models.variants import Sublayer
from stresstest.results.bracket import Bracket, finite
from stresstest.tasks.task import INITIAL

GRADIENT_BATCHES = 4
_STORED_LAYERS = 48
_FLAT = math.log(1.05)
_LARGEST = float(np.finfo(np.float64).max)

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Signal:
    """The statistics of one replica; curves are over blocks 1 to L, but `stream_rms` and `similarity` from 0.

    grad_norm: Frobenius norm of the gradient of a block's last matrix, averaged over mini-batches
    before the norm is taken (Xiong et al. 2020, Sec. 3.4). grad_mean_abs: mean absolute entry of the
    same (NormFormer's measure). stream_rms: of the stream after the block. In the block's last
    sublayer, activation_rms: of skip * x + branch, before a post-norm; branch_rms: of the branch;
    skip_rms: of skip * x. similarity: mean cosine between two tokens of a sequence (two images of a
    batch, in an MLP): 1 is rank collapse, NaN where a vector is zero or alone. jacobian: `None` where
    it is not finite. last_stack: the first block of the last stack, whose blocks the metrics are about.
    """

    grad_norm: Curve
    grad_mean_abs: Curve
    stream_rms: Curve
    activation_rms: Curve
    branch_rms: Curve
    skip_rms: Curve
    similarity: Curve
    jacobian: Spectrum | None
    last_stack: int = 1

    @property
    def curves(self) -> dict[str, Curve]:
        """All curves by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def metrics(self) -> dict[str, Bracket]:
        """The numbers that reports show; a value beyond float64 is an open bracket."""
        first = self.last_stack - 1
        values = {
            "grad_ratio": _ratio(self.grad_norm[first], self.grad_norm[-1]),
            "grad_mismatch": _ratio(self.grad_mean_abs[first], self.grad_mean_abs[-1]),
            "grad_last": float(self.grad_norm[-1]),
            "stream_growth": _ratio(self.stream_rms[-1], self.stream_rms[0]),
            "activation_rms": float(self.activation_rms[-1]),
            "branch_share": _ratio(self.branch_rms[-1], self.skip_rms[-1]),
            "similarity": float(self.similarity[-1]),
        }
        if self.jacobian is not None:
            values["jacobian_mean_square"] = self.jacobian.mean_square
            values["jacobian_condition"] = self.jacobian.condition
        metrics = {name: _bracket(value) for name, value in values.items() if not math.isnan(value)}
        if self.jacobian is not None and self.jacobian.method == "lanczos":
            metrics["jacobian_condition"] = Bracket(low=min(self.jacobian.condition, _LARGEST), high=None)
        if first:
            metrics["encoder_grad_ratio"] = _bracket(_ratio(self.grad_norm[0], self.grad_norm[first - 1]))
        slope = _slope(np.arange(len(self.grad_norm) - first), self.grad_norm[first:])
        if slope is not None:
            metrics["grad_slope"] = Bracket.exactly(100.0 * slope / math.log(10.0))
        return metrics

    def record(self) -> dict[str, Any]:
        """What the cell stores: numbers, every so many-th block, the growth law, the Jacobian's spectrum."""
        depth = len(self.grad_norm)
        blocks = np.unique(np.linspace(1, depth, min(depth, _STORED_LAYERS)).round().astype(int))
        curves = {
            name: [finite(curve[i if len(curve) > depth else i - 1]) for i in blocks]
            for name, curve in self.curves.items()
        }
        return {
            "blocks": blocks.tolist(),
            **curves,
            "metrics": {name: value.model_dump() for name, value in self.metrics().items()},
            "stream_law": growth_law(self.stream_rms[self.last_stack :]),
            "jacobian": None if self.jacobian is None else asdict(self.jacobian),
        }


def measure_signal(model: Model, theta_P: Tensor, batches: Batches, seed: int, noise_input: bool = False) -> Signal:
    """The signal of the replica `seed` with parameters `theta_P`.

    `noise_input` takes the Jacobian at a stream drawn from N(0, 1), as ReZero's figure does,
    instead of at the first example.
    """
    leaves = {kind: bank.detach() for kind, bank in model.layout.leaves(theta_P.double()[None]).items()}
    parameters = model.layout.unbind(leaves)
    gradient = _mean_gradient(model, leaves, batches, seed)
    inputs = batches.batch([seed], 0, INITIAL).inputs
    with torch.no_grad():
        stream = model.embed(parameters, inputs)
        curves = _watched(model, parameters, stream)
    first = stream[:, :1]
    if noise_input:
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(first.shape, dtype=torch.float64, generator=generator).to(first.device)
    return Signal(
        grad_norm=_array([_norm(matrix) for matrix in gradient]),
        grad_mean_abs=gradient.flatten(1).abs().mean(1).cpu().numpy(),
        **curves,
        jacobian=spectrum(lambda x: model.blocks(leaves, x), lambda x: model.walk(parameters, x), first, seed),
        last_stack=model.last_stack,
    )


def growth_law(values: Curve) -> dict[str, Any] | None:
    """How positive values grow over blocks: `power`, ~ block^rate, or `geometric`, ~ rate^block.

    The law with the smaller squared error in log values; `flat` where all lie within 5 % of each
    other; `None` below three blocks or where they are not finite and positive.
    """
    blocks = np.arange(1, len(values) + 1)
    if len(values) < 3 or not np.all(np.isfinite(values) & (values > 0.0)):
        return None
    logs = np.log(values)
    if logs.max() - logs.min() < _FLAT:
        return {"law": "flat", "rate": 0.0}
    fits = {law: np.polyfit(x, logs, 1) for law, x in (("power", np.log(blocks)), ("geometric", blocks))}
    errors = {
        law: float(np.square(np.polyval(fit, np.log(blocks) if law == "power" else blocks) - logs).sum())
        for law, fit in fits.items()
    }
    law = min(errors, key=lambda name: errors[name])
    rate = float(fits[law][0])
    return {"law": law, "rate": rate if law == "power" else math.exp(rate)}


def _mean_gradient(model: Model, leaves: dict[str, Tensor], batches: Batches, seed: int) -> Tensor:
    """The gradient of each block's last matrix, averaged over mini-batches, [L, out, in]."""
    probed = leaves[model.last_matrix].requires_grad_()
    total = torch.zeros_like(probed)
    for step in range(GRADIENT_BATCHES):
        batch = batches.batch([seed], step, INITIAL)
        loss_R = model.loss(leaves, batch.inputs, batch.targets, as_trained=True)
        total += torch.autograd.grad(loss_R.sum(), probed)[0]
        del loss_R  # it would keep the graph while the next one is made
    probed.requires_grad_(False)
    return total.div_(GRADIENT_BATCHES)[0]


def _watched(model: Model, parameters: Parameters, stream: Tensor) -> dict[str, Curve]:
    """Curves of a forward pass; where a block has several sublayers, of its last."""
    found: dict[int, dict[str, Tensor]] = {0: {"stream_rms": _rms(stream), "similarity": _similarity(stream)}}

    def watch(layer: int, sublayer: Sublayer, branch: Tensor, joined: Tensor, new: Tensor) -> None:
        found[layer] = {
            "stream_rms": _rms(new),
            "similarity": _similarity(new),
            "activation_rms": _rms(joined),
            "branch_rms": _rms(branch),
            "skip_rms": _rms(joined - branch),
        }

    model.walk(parameters, stream, watch)
    return {name: _array([block[name] for block in found.values() if name in block]) for name in found[1]}


def _norm(x: Tensor) -> Tensor:
    """Frobenius norm of all elements; its squares do not overflow, and infinity stays."""
    scale = x.abs().amax()
    return torch.where(scale.isinf() | (scale == 0.0), scale, (x / scale).norm() * scale)


def _rms(x: Tensor) -> Tensor:
    """Root mean square of all elements, as careful."""
    return _norm(x) / math.sqrt(x.numel())


def _similarity(x: Tensor) -> Tensor:
    """Mean cosine between two vectors [..., D] of the last dimension but one; NaN where one is zero or alone."""
    count = x.shape[-2]
    if count == 1:
        return x.new_full((), torch.nan)
    x = x / x.abs().amax(-1, keepdim=True)
    x = x / x.norm(dim=-1, keepdim=True)
    return ((x.sum(-2).square().sum(-1) - count) / (count * (count - 1))).mean()


def _array(values: Sequence[Tensor]) -> Curve:
    return np.asarray(torch.stack(list(values)).cpu().numpy(), np.float64)


def _ratio(a: float, b: float) -> float:
    if b == 0.0:
        return math.nan if a == 0.0 else math.inf
    return float(a) / float(b) if math.isfinite(b) else math.nan


def _bracket(value: float) -> Bracket:
    if value == math.inf:
        return Bracket(low=_LARGEST, high=None)
    return Bracket.exactly(value)


def _slope(x: NDArray[np.int64], values: Curve) -> float | None:
    """Least-squares slope of log values; `None` where they are not finite and positive, or too few."""
    if len(values) < 2 or not np.all(np.isfinite(values) & (values > 0.0)):
        return None
    return float(np.polyfit(x, np.log(values), 1)[0])
