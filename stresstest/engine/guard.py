"""Updates that a trainer leaves out: those of a loss or gradient that is not finite, or far out of the ordinary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guard:
    """When an update is left out: loss or gradient norm is not finite, or `sigmas` above the mean of those before.

    `sigmas` of 0: only what is not finite. The last `window` steps make the mean, from half of them on (OLMo-core's
    SkipStepOptimizer, at 6 and 128).
    """

    sigmas: float = 0.0
    window: int = 128


class Watch:
    """What a guard has seen of each replica: losses and gradient norms, the latest last."""

    def __init__(self, guard: Guard, seen_RN2: Tensor) -> None:
        self._guard = guard
        self.seen_RN2 = seen_RN2

    def skips(self, loss_R: Tensor, grad_norm_R: Tensor) -> Tensor:
        """Whether each replica's update is left out, [R]; takes its loss and gradient norm note."""
        values_R2 = torch.stack([loss_R, grad_norm_R], dim=1).double()
        skips_R = ~values_R2.isfinite().all(1)
        if self._guard.sigmas and self.seen_RN2.shape[1] >= max(2, self._guard.window // 2):
            std_R2, mean_R2 = torch.std_mean(self.seen_RN2, dim=1)
            skips_R = skips_R | (values_R2 > mean_R2 + self._guard.sigmas * std_R2).any(1)
        if self._guard.sigmas and bool(values_R2.isfinite().all()):
            self.seen_RN2 = torch.cat([self.seen_RN2, values_R2[:, None]], dim=1)[:, -self._guard.window :]
        return skips_R

    def keep(self, index: Tensor) -> None:
        """Drop every replica but these."""
        self.seen_RN2 = self.seen_RN2[index]
