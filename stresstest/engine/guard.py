"""Updates that a trainer leaves out: those of a loss or gradient that is not finite, or far out of the ordinary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST_SEEN = 20  # steps, from which on there is an ordinary, as OLMo-core has it


@dataclass(frozen=True)
class Guard:
    """When an update is left out: loss or gradient norm is not finite, or `sigmas` above the mean of those before.

    `sigmas` of 0: only what is not finite. The last `window` steps make mean and standard deviation, from half of them
    on (OLMo-core's SkipStepOptimizer, at 6 and 128). Theirs leaves out what is as far below too, and after a loss that
    is not finite a whole window.
    """

    sigmas: float = 0.0
    window: int = 128

    @property
    def needs(self) -> int:
        """Steps before the first that can be left out as an outlier."""
        return max(FEWEST_SEEN, self.window // 2) - 1


class Watch:
    """What a guard has seen of each replica: losses and gradient norms, the latest last; NaN of a step not finite."""

    def __init__(self, guard: Guard, seen_RN2: Tensor) -> None:
        self._guard = guard
        self.seen_RN2 = seen_RN2

    def skips(self, loss_R: Tensor, grad_norm_R: Tensor) -> Tensor:
        """Whether each replica's update is left out, [R]; takes its loss and gradient norm note."""
        values_R2 = torch.stack([loss_R, grad_norm_R], dim=1).double()
        finite_R = values_R2.isfinite().all(1)
        if not self._guard.sigmas:
            return ~finite_R
        number_R2 = self.seen_RN2.isfinite().sum(1)
        mean_R12 = self.seen_RN2.nanmean(1, keepdim=True)
        std_R2 = ((self.seen_RN2 - mean_R12).square().nansum(1) / (number_R2 - 1)).sqrt()
        enough_R2 = number_R2 >= self._guard.needs
        outlying_R2 = enough_R2 & (values_R2 > mean_R12[:, 0] + self._guard.sigmas * std_R2)
        seen_R2 = torch.where(finite_R[:, None], values_R2, torch.nan)
        self.seen_RN2 = torch.cat([self.seen_RN2, seen_R2[:, None]], dim=1)[:, -self._guard.window :]
        return ~finite_R | outlying_R2.any(1)

    def keep(self, index: Tensor) -> None:
        """Drop every replica but these."""
        self.seen_RN2 = self.seen_RN2[index]
