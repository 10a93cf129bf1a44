"""What Muon makes of an update: matrices whose singular values are all about as large (Jordan et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from stresstest.models.layout import Segment

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the steepest start: singular values end at 0.7 to 1.2
_ITERATIONS = 5
_EPS = 1e-7


def orthogonal(update_RS: Tensor, of: Segment, bfloat16: bool) -> Tensor:
    """The matrices of a segment, [R, S], with all singular values near 1.

    A replica at a time: products depend in the last bit on where a matrix lies in memory.
    """
    assert of.matrix is not None, "a segment of matrices"
    found_RS = update_RS.new_empty(update_RS.shape)
    for update_S, found_S in zip(update_RS, found_RS, strict=True):
        matrices = update_S.reshape(of.rows, *of.matrix)
        found_S.view_as(matrices).copy_(_newton_schulz(matrices.bfloat16() if bfloat16 else matrices))
    return found_RS


def _newton_schulz(x_NOI: Tensor) -> Tensor:
    """U V^T of each matrix U S V^T, about: five steps of x <- a x + (b x x^T + c (x x^T)^2) x (Jordan et al. 2024)."""
    tall = x_NOI.shape[1] > x_NOI.shape[2]
    x = x_NOI.mT if tall else x_NOI
    x = x / x.flatten(1).norm(dim=1).clamp(min=_EPS)[:, None, None]
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x.bmm(x.mT)
        x = x.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = x.mT if tall else x
    return found
