"""BatchNorm with running statistics, as torch.nn.BatchNorm2d keeps them (Ioffe & Szegedy 2015, Alg. 2)."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from stresstest.models.layout import Parameters

_MOMENTUM: Final = 0.1  # the new batch's share of a running statistic
_EPS: Final = 1e-5


class Running(NamedTuple):
    """The running means and variances of a model's channels, [R, C] by norm, and what a forward pass does with them.

    A pass that learns takes the statistics of its batch and adds them to these; another takes these. Each tensor is
    contiguous: under vmap, torch would write to a copy of another.
    """

    statistics: Parameters
    learns: bool


def batch_norm(one: dict[tuple[str, int], Tensor], kind: str, block: int, x: Tensor, learns: bool = True) -> Tensor:
    """The norm of x [B, C, H, W], with the statistics of one replica where it has them, and else those of the batch."""
    mean, var = one.get((f"{kind}.mean", block)), one.get((f"{kind}.var", block))
    return F.batch_norm(x, mean, var, one[f"{kind}.gain", block], one[f"{kind}.bias", block], learns, _MOMENTUM, _EPS)
