"""The input-output Jacobian of the blocks: how far each direction of the stream is stretched.

J is the derivative of the stream after the last block (before a final norm) by the stream before
the first, for one input of n numbers; its singular values are what ReZero's figure shows
(Bachlechner et al. 2020). Small n: J itself, by n copies of the input and one backward pass.
Large n: the mean square by Hutchinson's estimate of the trace of J Jᵀ, the spectrum by Lanczos
quadrature (Golub & Meurant 2010) on the bidiagonal form of Golub & Kahan 1965.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresstest.engine.backward_product import backward_product

EXACT_UP_TO = 256  # numbers in the stream of one input
BINS_PER_DECADE = 4
_HUTCHINSON_PROBES = 16
_PROBES_AT_ONCE = 4  # for the sake of memory
_LANCZOS_STARTS = 2
_LANCZOS_STEPS = 16

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a Jacobian of n rows.

    `mean_square` is their mean square; `zero_share` of them are zero to rounding. `largest` and
    `smallest` (above zero) are bounds from inside where the method is `lanczos`. `log10_edges` and
    `shares` are a histogram of log10 of those above zero.
    """

    method: str
    size: int
    mean_square: float
    largest: float
    smallest: float
    zero_share: float
    log10_edges: list[float]
    shares: list[float]

    @property
    def condition(self) -> float:
        """largest / smallest; infinite where some are zero."""
        if self.zero_share or not self.smallest:
            return math.inf
        return self.largest / self.smallest


def spectrum(blocks: Map, walk: Map, stream: Tensor, seed: int) -> Spectrum | None:
    """The spectrum at one input, [1, 1, ..., D], in its dtype; `None` where J is not finite.

    `blocks` and `walk` are one map that treats the inputs of its second dimension one by one; the
    second is differentiable twice.
    """
    size = stream.numel()
    if size <= EXACT_UP_TO:
        jacobian = _jacobian(blocks, stream)
        return _exact(jacobian) if jacobian.isfinite().all() else None
    return _lanczos(blocks, walk, stream, torch.Generator().manual_seed(seed))


def _jacobian(blocks: Map, stream: Tensor) -> Tensor:
    """J, [n outputs, n inputs]: copy i of the input is asked for the gradient of output i."""
    size = stream.numel()
    copies = stream.detach().expand(1, size, *stream.shape[2:]).contiguous().requires_grad_()
    identity = torch.eye(size, dtype=stream.dtype, device=stream.device).view_as(copies)
    rows = backward_product(blocks(copies), copies, identity)
    return rows.view(size, size)


def _exact(jacobian: Tensor) -> Spectrum:
    values = torch.linalg.svdvals(jacobian).cpu().numpy()
    with np.errstate(over="ignore", under="ignore"):
        mean_square = float(np.mean(np.square(values)))
    above = values[values > values[0] * (len(values) * np.finfo(values.dtype).eps)]
    edges, shares = _histogram(above, np.full(len(above), 1.0 / len(values)))
    return Spectrum(
        method="exact",
        size=len(values),
        mean_square=mean_square,
        largest=float(values[0]),
        smallest=float(above[-1]) if len(above) else 0.0,
        zero_share=1.0 - len(above) / len(values),
        log10_edges=edges,
        shares=shares,
    )


def _lanczos(blocks: Map, walk: Map, stream: Tensor, generator: torch.Generator) -> Spectrum | None:
    with sdpa_kernel(SDPBackend.MATH):  # the flash kernel has no second derivative
        mean_square = _hutchinson(blocks, stream, generator)
        if not math.isfinite(mean_square):
            return None
        along, back = _products(walk, stream)
        nodes, weights = zip(
            *(_quadrature(along, back, _unit_vector(stream, generator)) for _ in range(_LANCZOS_STARTS)), strict=True
        )
    values = np.concatenate(nodes)
    above = values > 0.0
    edges, shares = _histogram(values[above], np.concatenate(weights)[above] / len(nodes))
    return Spectrum(
        method="lanczos",
        size=stream.numel(),
        mean_square=mean_square,
        largest=float(values.max()),
        smallest=float(values.min()),
        zero_share=float(not above.any()),
        log10_edges=edges,
        shares=shares,
    )


def _hutchinson(blocks: Map, stream: Tensor, generator: torch.Generator) -> float:
    """E |Jᵀ u|² / n over u ~ N(0, 1): the mean squared singular value."""
    total = 0.0
    for _ in range(_HUTCHINSON_PROBES // _PROBES_AT_ONCE):
        copies = stream.detach().expand(1, _PROBES_AT_ONCE, *stream.shape[2:]).contiguous().requires_grad_()
        probes = torch.randn(copies.shape, dtype=torch.float64, generator=generator).to(copies)
        rows = backward_product(blocks(copies), copies, probes)
        total += float(rows.double().square().sum())
    return total / _HUTCHINSON_PROBES / stream.numel()


def _products(walk: Map, stream: Tensor) -> tuple[Map, Map]:
    """v -> J v and u -> Jᵀ u, on flat vectors: Jᵀ u by a backward pass, J v as the derivative of that by u."""
    leaf = stream.detach().clone().requires_grad_()
    output = walk(leaf)
    dual = torch.zeros_like(output).requires_grad_()
    transposed = backward_product(output, leaf, dual, create_graph=True)

    def along(v: Tensor) -> Tensor:
        return backward_product(transposed, dual, v.view_as(leaf), retain_graph=True).flatten()

    def back(u: Tensor) -> Tensor:
        return backward_product(output, leaf, u.view_as(output), retain_graph=True).flatten()

    return along, back


def _quadrature(along: Map, back: Map, start: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(nodes, weights) of the spectral measure of start: singular values of the bidiagonal form of J.

    Fully orthogonalised, since rounding would bring back directions that were found already.
    """
    rights, lefts = [start], list[Tensor]()
    diagonal, above = list[float](), list[float]()
    for _ in range(_LANCZOS_STEPS):
        left = _orthogonal(along(rights[-1]), lefts)
        diagonal.append(float(left.norm()))
        if diagonal[-1] == 0.0:
            break
        lefts.append(left / diagonal[-1])
        right = _orthogonal(back(lefts[-1]), rights)
        above.append(float(right.norm()))
        if above[-1] <= 1e-12 * diagonal[0]:
            break
        rights.append(right / above[-1])
    steps = len(diagonal)
    bidiagonal = np.diag(diagonal) + np.diag(above[: steps - 1], 1)
    _, values, rights_T = np.linalg.svd(bidiagonal)
    return values, np.square(rights_T[:, 0])


def _orthogonal(vector: Tensor, others: list[Tensor]) -> Tensor:
    """Gram-Schmidt, twice, against unit vectors."""
    if others:
        basis = torch.stack(others)
        for _ in range(2):
            vector = vector - basis.T @ (basis @ vector)
    return vector


def _unit_vector(stream: Tensor, generator: torch.Generator) -> Tensor:
    vector: Tensor = torch.randn(stream.numel(), dtype=torch.float64, generator=generator).to(stream)
    return vector.div_(torch.linalg.vector_norm(vector))


def _histogram(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """(edges, shares) over log10 of the values, in bins of a quarter decade, at most 400 of them."""
    if not len(values):
        return [], []
    logs = np.log10(np.maximum(values, np.finfo(np.float64).tiny))
    low = math.floor(BINS_PER_DECADE * logs.min())
    high = math.floor(BINS_PER_DECADE * logs.max()) + 1
    width = math.ceil((high - low) / 400)
    edges = np.arange(low, high + width, width) / BINS_PER_DECADE
    shares, _ = np.histogram(logs, bins=edges, weights=weights)
    return edges.tolist(), shares.tolist()
