"""What can become of a replica, and what that is judged by: the words, the constants of the rules, the evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from stresstest.results.outcome import Outcome as Outcome
from stresstest.results.outcome import Reason as Reason

MEDIAN_OF_FIVE = 0.536  # standard deviation of the median of five numbers from N(0, 1)


@dataclass(frozen=True)
class Rules:
    """The constants of the outcome rules; recorded in every result."""

    level_window: int = 5  # the level is the median of this many losses
    persistence: int = 5  # consecutive steps before an explosion or a relapse counts
    patience: int = 50  # consecutive steps after which neither comes back under a constant LR
    explosion_share: float = 0.1  # of the loss at initialisation, above it
    explosion_sigmas: float = 3.0  # or this many standard deviations of it
    far_above_chance: float = 0.5  # l0 above chance by this share of chance: chance is the reference
    relapse_share: float = 0.5  # of what was learned beyond the constant predictor, given back; or so
    # much that less than half of progress_share is left
    recovery_share: float = 0.25  # back below this share: recovered
    progress_share: float = 0.05  # of what can be learned beyond the constant predictor: less is not learning
    noise_sigmas: float = 5.0  # of the level's noise, if more: the floor below which nothing counts
    noise_window: int = 20  # losses whose scatter tells the noise, where that is not known beforehand
    fresh_sigmas: float = 5.0  # standard errors by which fresh batches must differ to overrule the levels


@dataclass(frozen=True)
class Reference:
    """What a loss curve is judged against; all in the unit of the loss.

    initial_loss, initial_std: mean and spread over a few batches at initialisation (l0, sigma0).
    baseline_loss: of the best constant predictor, known to within `baseline_error`. chance_loss: of a uniform guess.
    noise: standard deviation of the level that sampling alone explains; 0 where each loss is taken
    relative to the constant predictor on its own batch.
    learnable: from the baseline down to the lowest loss that any outputs can have; NaN where that lowest is 0.
    brought: how far the model starts below the baseline, by more than the noise; 0 of one from scratch.
    noisy: the curve's own scatter counts as noise too, as with few examples a batch.
    """

    initial_loss: float
    initial_std: float
    baseline_loss: float
    chance_loss: float
    noise: float = 0.0
    baseline_error: float = 0.0
    learnable: float = math.nan
    brought: float = 0.0
    noisy: bool = False

    def above_lowest(self, loss: float) -> float:
        """How far a loss lies above the lowest that any outputs can have."""
        return abs(loss) if math.isnan(self.learnable) else loss - self.baseline_loss + self.learnable

    def least(self, rules: Rules) -> float:
        """The smallest difference that counts, however surely it is there."""
        within = self.above_lowest(self.baseline_loss)
        if self.brought:
            within = min(self.brought, self.above_lowest(self.initial_loss))
        return max(rules.progress_share * within, 2.0 * self.baseline_error)


@dataclass(frozen=True)
class FreshLosses:
    """What fresh batches say at the end of a run, in the unit of the loss; NaN where it was not or cannot be taken.

    Each is a mean over batches of differences on the same batch, with its standard error: `rise` from the start of
    the run to its end, `gain` of the constant predictor's loss over the model's, `swap` of the loss when each batch
    gets the next one's outputs over the loss with its own. `swapped_loss` is the loss with those outputs.
    """

    rise: float = math.nan
    rise_error: float = math.nan
    gain: float = math.nan
    gain_error: float = math.nan
    swap: float = math.nan
    swap_error: float = math.nan
    swapped_loss: float = math.nan


@dataclass(frozen=True)
class Judgement:
    """What became of one replica. Steps are indices of losses; `None` where it never happened.

    onset_step: first loss at which it had begun to lose what it had learned, for good; `None` too
    where it never learned more than the constant predictor, so that there was nothing to lose.
    explosion_step: first loss that was non-finite, or above where training started for good.
    """

    outcome: Outcome
    reason: Reason | Literal[""]
    onset_step: int | None
    explosion_step: int | None
    best_loss: float
    last_loss: float
    learned: bool
