"""The best constant predictor of the user's model, as a record: what it loses, and what it loses on a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from stresstest.user_model.constants.fit import Constants
from stresstest.user_model.constants.outlet import Outlet
from stresstest.user_model.constants.targets import Targets


@dataclass(frozen=True)
class Constant:
    """The best constant predictor, as far as one is known; losses are NaN where none is.

    `error` is the standard error of `baseline_loss`, `chance_loss` the loss of a uniform guess, `learnable` how far
    below the baseline any outputs can get (NaN: to 0). Its loss on a batch comes from `log_prior` ([C], over classes)
    or `mean` (of numbers), of `targets`, or from `constants` at the `outlet`; `paired`: that is cheap. `offset` is
    what the user's own baseline has more. `unbounded`: there is none, as the loss of constants has no lower end.
    `lowest`: no outputs lose less than these constants, so that nothing can be learned beyond them. `swappable`:
    where nothing is known, the outputs of other batches may be put in their place, since the loss has targets.
    """

    text: str
    baseline_loss: float = math.nan
    chance_loss: float = math.nan
    error: float = 0.0
    learnable: float = math.nan
    unit: str = ""
    targets: Targets | None = None
    log_prior: Tensor | None = None
    mean: Tensor | None = None
    outlet: Outlet | None = None
    constants: Constants | None = None
    paired: bool = False
    offset: float = 0.0
    unbounded: bool = False
    lowest: bool = False
    swappable: bool = False

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return not math.isnan(self.baseline_loss)

    @property
    def found(self) -> bool:
        """Whether it was looked for and found, and is not the user's word alone."""
        return self.log_prior is not None or self.mean is not None or self.constants is not None

    def said_to_be(self, baseline_loss: float) -> Constant:
        """The same with the number that the user gives."""
        if not self.known:
            return replace(self, text="said by the file", baseline_loss=baseline_loss, chance_loss=baseline_loss)
        offset = baseline_loss - self.baseline_loss
        chance = max(baseline_loss, self.chance_loss)
        text = f"said by the file ({self.text}: {self.baseline_loss:.4g})"
        return replace(self, text=text, baseline_loss=baseline_loss, chance_loss=chance, error=0.0, offset=offset)


def cross_entropy(labels: Tensor, log_prior: Tensor) -> Tensor:
    """Mean over the targets that are classes; NaN where a batch has none, as torch's own."""
    there = labels[(labels >= 0) & (labels < len(log_prior))].long()
    return -log_prior[there].mean()
