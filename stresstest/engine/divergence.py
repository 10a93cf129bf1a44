"""When has training broken? The rules that turn a loss curve into an outcome.

The rules read raw losses, one at a time, and never compare with a ratio to the best loss. They can
be applied again to a stored curve. A loss at step t was caused by the learning rate of step t - 1.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["stable", "spiked", "relapsed", "failed-to-train", "exploded", "nonfinite"]
Reason = Literal["loss", "gradient", "parameter"]


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
    progress_share: float = 0.05  # of the baseline loss, below it: less is not learning
    noise_sigmas: float = 5.0  # of the level's noise, if more: the floor below which nothing counts


@dataclass(frozen=True)
class Reference:
    """What a loss curve is judged against; all in nats.

    initial_loss, initial_std: mean and spread over a few batches at initialisation (l0, sigma0).
    baseline_loss: of the best constant predictor. chance_loss: of a uniform guess.
    noise: standard deviation of the level that sampling alone explains; 0 where each loss is taken
    relative to the constant predictor on its own batch.
    """

    initial_loss: float
    initial_std: float
    baseline_loss: float
    chance_loss: float
    noise: float = 0.0


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


class Detector:
    """Applies the rules to one replica's losses as they come.

    After `patience` consecutive steps an explosion or a relapse is final: the first steps of AdaGrad
    may throw the loss far up and yet be forgotten. `None` is for a ramp, where no later step is
    gentler: an explosion is final as soon as it counts, and a relapse goes on to explode.
    """

    def __init__(self, reference: Reference, rules: Rules = Rules(), patience: float | None = None) -> None:
        self.reference = reference
        self.rules = rules
        self.patience = patience
        self._window: deque[float] = deque(maxlen=rules.level_window)
        self._step = 0
        self._best = float("inf")
        self._level = float("nan")
        self._bad_since: int | None = None  # first bad loss of the relapse under way
        self._bad_length = 0
        self._spiked = False
        self._above_since: int | None = None
        self._above_length = 0
        self._explosion_step: int | None = None
        self._reason: Reason | Literal[""] = ""

    @property
    def over(self) -> bool:
        """Exploded for good or non-finite: nothing that follows is looked at."""
        return self._explosion_step is not None

    @property
    def settled(self) -> bool:
        """Over, or relapsed for good."""
        return self.over or (self.patience is not None and self._bad_length >= self.patience)

    def update(self, loss: float, nonfinite: Reason | Literal[""] = "") -> None:
        """Take the next loss, or the fact that something of this step is not finite."""
        if self.over:
            return
        if nonfinite or not math.isfinite(loss) or not math.isfinite(self.reference.initial_loss):
            self._end(nonfinite or "loss")
            return
        self._window.append(loss)
        self._level = statistics.median(self._window)
        self._best = min(self._best, self._level)
        self._watch_explosion()
        self._watch_relapse()
        self._step += 1

    def judgement(self) -> Judgement:
        """The outcome of the curve so far, taken as the whole curve."""
        relapsed = self._bad_since is not None and self._bad_length >= self.rules.persistence
        learned = self._learned > self.floor
        onset = self._bad_since if relapsed else None
        outcome: Outcome
        explosion = self._explosion_step
        if explosion is None and self._above_length >= self.rules.persistence:
            explosion = self._above_since
        if explosion is not None:
            outcome = "nonfinite" if self._reason else "exploded"
            onset = (explosion if self._bad_since is None else self._bad_since) if learned else None
        elif relapsed:
            outcome = "relapsed"
        elif not learned:
            outcome = "failed-to-train"
        else:
            outcome = "spiked" if self._spiked else "stable"
        return Judgement(outcome, self._reason, onset, explosion, self._best, self._level, learned)

    @property
    def floor(self) -> float:
        """Differences of the level smaller than this mean nothing."""
        progress = self.rules.progress_share * abs(self.reference.baseline_loss)
        return max(progress, self.rules.noise_sigmas * self.reference.noise)

    @property
    def _start(self) -> float:
        return min(self.reference.initial_loss, self.reference.baseline_loss)

    @property
    def _learned(self) -> float:
        return self._start - self._best

    @property
    def _ceiling(self) -> float:
        """The loss above which training is worse than at its start."""
        ref, rules = self.reference, self.rules
        start = ref.initial_loss
        chance_margin = rules.far_above_chance * abs(ref.chance_loss)
        if start > ref.chance_loss + chance_margin and self._learned > self.floor:
            start = ref.chance_loss
        margin = max(rules.explosion_share * abs(start), self.floor)
        if start == ref.initial_loss:
            margin = max(margin, rules.explosion_sigmas * ref.initial_std)
        return start + margin

    def _end(self, reason: Reason) -> None:
        """Something is not finite; a blow-up that led to it began with the losses above the ceiling."""
        self._reason = reason
        # A parameter breaks after its step's loss: the next loss is the first to suffer.
        self._explosion_step = self._step + (reason == "parameter")
        above = self._above_since if self._above_since is not None else self._trailing_above(self._ceiling)
        if above is not None:
            self._explosion_step = above
        if self._learned > self.floor and self._bad_since is None:
            self._bad_since = self._trailing_above(self._relapse_limit)

    def _trailing_above(self, limit: float) -> int | None:
        """The first of the unbroken run of losses above `limit` that ends the window."""
        run = 0
        for loss in reversed(self._window):
            if loss <= limit:
                break
            run += 1
        return self._step - run if run else None

    def _watch_explosion(self) -> None:
        if self._level <= (limit := self._ceiling):
            self._spiked |= self._above_length >= self.rules.persistence
            self._above_since, self._above_length = None, 0
            return
        if self._above_since is None:
            self._above_since = self._first_above(limit)
        self._above_length += 1
        if self._above_length >= (self.rules.persistence if self.patience is None else self.patience):
            self._explosion_step = self._above_since

    def _watch_relapse(self) -> None:
        if self._learned <= self.floor:
            return
        limit = self._relapse_limit
        if self._bad_since is not None and self._level <= min(limit, self._given_back(self.rules.recovery_share)):
            self._spiked |= self._bad_length >= self.rules.persistence
            self._bad_since, self._bad_length = None, 0
        if self._bad_since is not None:
            self._bad_length += 1
        elif self._level > limit:
            self._bad_since, self._bad_length = self._first_above(limit), 1

    @property
    def _relapse_limit(self) -> float:
        return min(self._given_back(self.rules.relapse_share), self._start - self.floor / 2)

    def _given_back(self, share: float) -> float:
        """The level at which `share` of what was learned is gone."""
        return self._best + max(share * self._learned, self.floor)

    def _first_above(self, limit: float) -> int:
        """The first of the window's losses above `limit`: the median lags behind it."""
        first = self._step - len(self._window) + 1
        return next(first + i for i, loss in enumerate(self._window) if loss > limit)


def judge(
    losses: Iterable[float], reference: Reference, rules: Rules = Rules(), patience: float | None = None
) -> Judgement:
    """Apply the rules to a whole curve; a non-finite loss ends it."""
    detector = Detector(reference, rules, patience)
    for loss in losses:
        detector.update(loss)
    return detector.judgement()
