"""When has training broken? The rules that turn a loss curve into an outcome.

The rules read raw losses, one at a time, and never compare with a ratio to the best loss. They can
be applied again to a stored curve. A loss at step t was caused by the learning rate of step t - 1.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Literal

from stresstest.engine.outcomes import MEDIAN_OF_FIVE, FreshLosses, Judgement, Reference, Rules
from stresstest.results.outcome import Outcome, Reason


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
        self._scatter: deque[float] = deque(maxlen=rules.noise_window)  # from each loss to the next
        self._recent: deque[float] = deque(maxlen=rules.noise_window)
        self._best_mean = float("inf")  # of so many losses in a row
        self._has_learned = False
        self._step = 0
        self._best = float("inf")
        self._sure_at_best = 0.0
        self._level = float("nan")
        self._bad_since: int | None = None  # first bad loss of the relapse under way
        self._bad_length = 0
        self._spiked = False
        self._above_since: int | None = None
        self._above_length = 0
        self._explosion_step: int | None = None
        self._reason: Reason | Literal[""] = ""
        self._fresh: FreshLosses | None = None

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
        self._note_scatter(loss)
        self._level = statistics.median(self._window)
        if not self._tells or self._level < self._best:
            self._best, self._sure_at_best = self._level, self._sure
        self._has_learned |= self._tells and self._learned > max(self.floor, self._sure)
        self._watch_explosion()
        self._watch_relapse()
        self._step += 1

    def conclude(self, fresh: FreshLosses) -> None:
        """Take what fresh batches say of the trained model; where they are surer than the levels, they decide."""
        self._fresh = fresh

    @property
    def final_level(self) -> float:
        """The level at the end: of fresh batches, where they say more."""
        if self._fresh is None or math.isnan(self._fresh.gain):
            return self._level
        return self.reference.baseline_loss - self._fresh.gain

    def judgement(self) -> Judgement:
        """The outcome of the curve so far, taken as the whole curve."""
        relapsed = self._bad_since is not None and self._bad_length >= self.rules.persistence
        learned = self._has_learned
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
            outcome = "flat" if self.reference.brought else "failed-to-train"
        else:
            outcome = self._trained
        if explosion is None and self._fresh is not None and not self.settled:
            outcome = self._on_fresh(outcome, self._fresh)
            learned = outcome in ("stable", "spiked") or (learned and outcome != "failed-to-train")
            onset = onset if outcome == "relapsed" else None
        return Judgement(outcome, self._reason, onset, explosion, self._best, self._level, learned)

    @property
    def floor(self) -> float:
        """Differences of the level smaller than this mean nothing."""
        return max(self._least, self.rules.noise_sigmas * self.reference.noise)

    @property
    def _least(self) -> float:
        return self.reference.least(self.rules)

    @property
    def _trained(self) -> Outcome:
        return "spiked" if self._spiked else "stable"

    def _on_fresh(self, by_level: Outcome, fresh: FreshLosses) -> Outcome:
        """The outcome of a run that neither exploded nor settled, where fresh batches say more than its levels."""
        if self.reference.brought:
            return self._beside_start(fresh)
        outcome = by_level
        if not math.isnan(fresh.gain):
            outcome = self._beside_constant(by_level, fresh)
        if outcome in ("stable", "spiked") and not math.isnan(fresh.swap):
            if self._ignores_inputs(fresh):
                return "relapsed" if fresh.swapped_loss - self._best > self.floor else "failed-to-train"
            start = min(self._start, fresh.swapped_loss)  # at or above the constant predictor
            fell_back = self._fell_back(start, fresh.swapped_loss - fresh.swap, fresh.swap_error)
            return "relapsed" if fell_back else outcome
        return outcome

    def _beside_start(self, fresh: FreshLosses) -> Outcome:
        """Of a model that brought something: the same fresh batches before and after."""
        ref, margin = self.reference, self.rules.fresh_sigmas * fresh.rise_error
        within = self.rules.progress_share * min(ref.brought, ref.above_lowest(ref.initial_loss))
        if fresh.rise > max(margin, within):
            return "relapsed"
        if self._fell_back(ref.initial_loss, ref.initial_loss + fresh.rise, ref.noise):
            return "relapsed"
        return self._trained if fresh.rise < -margin else "flat"

    def _beside_constant(self, by_level: Outcome, fresh: FreshLosses) -> Outcome:
        """Of a model from scratch: the constant predictor on the same fresh batches."""
        least, sure = self._least, self.rules.fresh_sigmas * fresh.gain_error
        end = self.reference.baseline_loss - fresh.gain
        if by_level == "relapsed":
            best = self._best + 3.0 * self._noise  # the luckiest of many levels
            there = fresh.gain > max(least, sure) and end < self._limit_from(best, self._start)
            return "spiked" if there else by_level
        if by_level == "failed-to-train" and fresh.gain <= max(least, 0.6 * sure):
            return by_level
        if fresh.gain <= max(least / 2.0, 0.6 * sure):
            return "failed-to-train"
        return "relapsed" if self._fell_back(self._start, end, fresh.gain_error) else self._trained

    def _fell_back(self, start: float, end: float, error: float) -> bool:
        """Whether too much was given back of what the means of many losses, which know less noise, say was learned.

        `start` and `end` are of fresh batches, with their standard error; the last losses have to be nearer to the end
        than to the best: what is only better at batches that it has seen gave nothing back.
        """
        noise = self._noise / (MEDIAN_OF_FIVE * math.sqrt(self.rules.noise_window))
        best = self._best_mean + 3.0 * noise + self.rules.fresh_sigmas * error
        if not end > self._limit_from(best, start):
            return False
        return statistics.fmean(self._window) - self._best_mean > 0.5 * (end - self._best_mean)

    def _limit_from(self, best: float, start: float) -> float:
        """The loss above which too much is given back."""
        return best + max(self.rules.relapse_share * (start - best), self._least)

    def _ignores_inputs(self, fresh: FreshLosses) -> bool:
        """Whether other inputs would do as well: the rise on swapped batches bounds what was learned from above."""
        if math.isnan(fresh.swap):
            return False
        most = min(abs(fresh.swapped_loss), self.reference.above_lowest(self.reference.baseline_loss))
        return fresh.swap <= max(self.rules.progress_share * most, 3.0 * fresh.swap_error)

    @property
    def _tells(self) -> bool:
        """Whether its noise is known yet: before that, a low level may be luck."""
        return not self.reference.noisy or len(self._scatter) >= self.rules.level_window

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
        if start > ref.chance_loss + chance_margin and self._has_learned:
            start = ref.chance_loss
        margin = max(rules.explosion_share * ref.above_lowest(start), self.floor)
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
        if self._has_learned and self._bad_since is None:
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
        if not self._has_learned:
            return
        limit = self._relapse_limit
        recovered = min(limit, self._given_back(self.rules.recovery_share))
        if self._bad_since is not None and self._level <= max(recovered, self._best + self._left_open):
            self._spiked |= self._bad_length >= self.rules.persistence
            self._bad_since, self._bad_length = None, 0
        if self._bad_since is not None:
            self._bad_length += 1
        elif self._level > limit:
            self._bad_since, self._bad_length = self._first_above(limit), 1

    @property
    def _relapse_limit(self) -> float:
        limit = min(self._given_back(self.rules.relapse_share), self._start - self.floor / 2)
        return max(limit, self._best + self._left_open)

    @property
    def _left_open(self) -> float:
        """What noise leaves open of a relapse; a ramp's is that of its best level, since its collapse scatters too."""
        return self._sure_at_best if self.patience is None else self._sure

    def _note_scatter(self, loss: float) -> None:
        if not self.reference.noisy:
            return
        if self._recent:
            self._scatter.append(abs(loss - self._recent[-1]))
        self._recent.append(loss)
        if len(self._recent) == self.rules.noise_window:
            self._best_mean = min(self._best_mean, statistics.fmean(self._recent))

    @property
    def _noise(self) -> float:
        """Standard deviation of the level, from the differences of neighbours: 2/sqrt(pi) of theirs, if normal."""
        return MEDIAN_OF_FIVE * statistics.fmean(self._scatter) / 1.128 if self._scatter else 0.0

    @property
    def _sure(self) -> float:
        """What the noise of the curve itself leaves open."""
        return self.rules.noise_sigmas * self._noise

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
