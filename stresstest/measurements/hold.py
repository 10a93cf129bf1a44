"""The search for the largest constant learning rate that trains or does no harm, on one global grid.

The grid is 2^(k/4), the same for every seed, variant and machine. The search walks from the ramp's
answer by octaves, up while nothing breaks, else down; bisection follows only between a stable and an
unstable neighbour, since stability need not be monotone. One question at a time, which depends on one
seed's answers alone: what is answered ahead of it saves time and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from stresstest.results.bracket import Bracket
from stresstest.results.outcome import HARMLESS, TRAINED, Outcome

OCTAVE = 4
STRIDES: Mapping[str, int] = {"octave": 4, "half-octave": 2, "quarter-octave": 1}
LOWEST = -20 * OCTAVE
_SLOW = frozenset({"failed-to-train", "flat"})  # below an LR that trains: it makes too little progress
_FARTHEST = 8  # octaves to walk below the first guess
_FARTHEST_BROKEN = 3  # octaves to walk above it where something broke: an LR may throw the loss up and train
_FARTHEST_UNTRAINED = 4  # octaves to walk where nothing has trained at all
_STRIDE_FAR = 2 * OCTAVE  # of the walk on from there


def grid_lr(k: int) -> float:
    """The learning rate at place k of the global grid."""
    return float(2.0 ** (k / OCTAVE))


def octave_below(lr: float) -> int:
    """The largest whole octave of the grid that is not above `lr`."""
    return math.floor(math.log2(lr)) * OCTAVE


@dataclass(frozen=True)
class HoldAnswer:
    """What became of one held learning rate."""

    outcome: Outcome
    final_loss: float
    validation_loss: float = math.inf  # inf where it broke

    @property
    def trained(self) -> bool:
        """Whether it made progress and kept it."""
        return self.outcome in TRAINED

    @property
    def harmless(self) -> bool:
        """Whether nothing broke, and what was there at the start is still there: it trained, or is flat."""
        return self.outcome in HARMLESS


_SUPPOSED = (HoldAnswer("stable", 0.0), HoldAnswer("exploded", math.inf))  # of a question that is not answered yet


@dataclass
class HoldSearch:
    """One seed's search: `ask` for places of the grid, `tell` the answers, until `ask` is empty."""

    guess: int
    highest: int
    stride: int = OCTAVE
    lower_end: bool = False
    both_ways: bool = False  # walk down and up before nothing is said to train
    best: bool = False  # walk down until the lowest loss is found
    lowest: int = LOWEST  # down to which nothing is said to train: the ramp's first LR
    noise_floor: float = 0.0  # in the loss's own unit; smaller differences of final losses mean nothing
    answers: dict[int, HoldAnswer] = field(default_factory=dict)

    def tell(self, k: int, answer: HoldAnswer) -> None:
        """Record what became of the learning rate at place k."""
        self.answers[k] = answer

    def ask(self) -> int | None:
        """The place to try next; `None` when the search is over."""
        boundary = self._coarse() or self._finer()
        wanted = boundary or self._below_what_is_flat() or self._window() or self._below_the_best()
        return next((k for k in wanted if k not in self.answers), None)

    def ahead(self, number: int) -> list[int]:
        """The question, and those that may follow it, nearest first: for where so many are answered at once."""
        found: list[int] = []
        futures = [self]
        while futures and len(found) < number:
            asked = [(future, k) for future in futures if (k := future.ask()) is not None]
            found += dict.fromkeys(k for _, k in asked if k not in found)
            futures = [future._supposing(k, answer) for future, k in asked for answer in _SUPPOSED]
        return found[:number]

    def _supposing(self, k: int, answer: HoldAnswer) -> HoldSearch:
        return replace(self, answers={**self.answers, k: answer})

    @property
    def max_stable(self) -> tuple[int | None, int | None]:
        """(last stable, first unstable) going up from the smallest harmless LR."""
        harmless = self._where(lambda answer: answer.harmless)
        if not harmless:
            return None, None
        broken = [k for k in sorted(self.answers) if k > harmless[0] and k not in harmless]
        first = min(broken, default=None)
        return max(k for k in harmless if first is None or k < first), first

    @property
    def max_stable_lr(self) -> Bracket:
        """The bracket of the result; open where the search met the end of its range."""
        low, high = self.max_stable
        return Bracket(low=None if low is None else grid_lr(low), high=None if high is None else grid_lr(high))

    @property
    def min_useful_lr(self) -> Bracket:
        """The smallest LR that makes real progress, between the last too slow and the first that trained."""
        trained = self._where(lambda answer: answer.trained)
        if not trained:
            return Bracket(low=None, high=None)
        slower = [k for k in self._where(lambda answer: answer.outcome in _SLOW) if k < trained[0]]
        return Bracket(low=grid_lr(slower[-1]) if slower else None, high=grid_lr(trained[0]))

    @property
    def max_useful_lr(self) -> Bracket:
        """The largest LR that trains, going up from the smallest that does until one breaks, and the next above it.

        That is max_stable_lr, unless LRs that are merely flat lie below the break.
        """
        trained = self._where(lambda answer: answer.trained)
        if not trained:
            return Bracket(low=None, high=None)
        broken = [k for k in self._where(lambda answer: not answer.harmless) if k > trained[0]]
        last = max(k for k in trained if not broken or k < broken[0])
        above = min((k for k in self.answers if k > last), default=None)
        return Bracket(low=grid_lr(last), high=None if above is None else grid_lr(above))

    @property
    def best_lr(self) -> Bracket:
        """The LR of the lowest validation loss; open where it is not known.

        Where a parabola in log LR through it and its neighbours, an octave off, is lowest; where one of them broke,
        anywhere between them.
        """
        best = self._best()
        if best is None:
            return Bracket(low=None, high=None)
        below, above = (self.answers.get(k) for k in (best - OCTAVE, best + OCTAVE))
        if below is None or above is None:
            low, high = (grid_lr(best - OCTAVE), grid_lr(best + OCTAVE))
            return Bracket(low=None if below is None else low, high=None if above is None else high)
        losses = (below.validation_loss, self.answers[best].validation_loss, above.validation_loss)
        if not all(map(math.isfinite, losses)):
            return Bracket(low=grid_lr(best - OCTAVE), high=grid_lr(best + OCTAVE))
        bend = losses[0] - 2.0 * losses[1] + losses[2]
        off = 0.5 * (losses[0] - losses[2]) / bend if bend > 0.0 else 0.0
        return Bracket.exactly(2.0 ** (best / OCTAVE + off))

    def _best(self) -> int | None:
        """Of the octaves that were tried, the place of the lowest validation loss."""
        start = self.guess % OCTAVE
        octaves = {k: answer.validation_loss for k, answer in self.answers.items() if k % OCTAVE == start}
        finite = {k: loss for k, loss in octaves.items() if math.isfinite(loss)}
        return min(finite, key=lambda k: (finite[k], k), default=None)

    def _below_the_best(self) -> list[int]:
        best = self._best() if self.best and self.max_stable[0] is not None else None
        if best is None or best - OCTAVE in self.answers:
            return []
        return [best - OCTAVE] if best - OCTAVE >= max(LOWEST, self.guess - _FARTHEST * OCTAVE) else []

    @property
    def monotone(self) -> bool:
        """No LR above the first unstable one is harmless again, and none below the first harmless one broke."""
        harmless = self._where(lambda answer: answer.harmless)
        if not harmless:
            return True
        _, first_bad = self.max_stable
        broke = self._where(lambda answer: not answer.harmless and answer.outcome != "failed-to-train")
        return not any(k < harmless[0] for k in broke) and (first_bad is None or harmless[-1] < first_bad)

    def _where(self, holds: Callable[[HoldAnswer], bool]) -> list[int]:
        """The places whose answers are so, ascending."""
        return [k for k in sorted(self.answers) if holds(self.answers[k])]

    def _coarse(self) -> list[int]:
        if not self.answers:
            return [min(max(self.guess, LOWEST), self.highest)]
        low, high = self.max_stable
        if low is None:
            return self._toward_training()
        if high is None and low + OCTAVE <= self.highest:
            return [low + OCTAVE]
        return []

    def _toward_training(self) -> list[int]:
        """Where nothing is harmless yet: down, unless the smallest LR was clearly the slowest.

        Of the user's own model the other way too before it is said that nothing trains: a run may fail at an LR that is
        too large as quietly as at one that is too small.
        """
        down, up = self._lower(), self._higher()
        places = sorted(self.answers)
        loss = {k: self.answers[k].final_loss for k in places}
        lowest_broke = self.answers[places[0]].outcome != "failed-to-train"
        if lowest_broke or loss[places[0]] <= min(loss.values()) + self.noise_floor:
            return down or (up or self._far_down() if self.both_ways else [])
        if not self._broke and loss[places[-1]] == min(loss.values()):
            return up or (down if self.both_ways else [])
        return (down or up) if self.both_ways else []

    @property
    def _broke(self) -> bool:
        return any(answer.outcome != "failed-to-train" for answer in self.answers.values())

    def _lower(self) -> list[int]:
        below = min(self.answers) - OCTAVE
        far = _FARTHEST if self._broke else _FARTHEST_UNTRAINED
        return [below] if below >= max(LOWEST, self.guess - far * OCTAVE) else []

    def _far_down(self) -> list[int]:
        """On down to where the ramp began: a network may die quietly at every LR that is much too large."""
        below = min(self.answers) - _STRIDE_FAR
        return [below] if below >= max(LOWEST, self.lowest) else []

    def _higher(self) -> list[int]:
        above = max(self.answers) + OCTAVE
        broke = self._where(lambda answer: answer.outcome != "failed-to-train")
        farthest = broke[0] + _FARTHEST_BROKEN * OCTAVE if broke else self.guess + _FARTHEST_UNTRAINED * OCTAVE
        return [above] if above <= min(self.highest, farthest) else []

    def _finer(self) -> list[int]:
        low, high = self.max_stable
        if low is None or high is None or high - low <= self.stride:
            return []
        return [(low + high) // 2]

    def _below_what_is_flat(self) -> list[int]:
        """One octave below the guess where no LR trained and none broke there: what is flat may have trained lower."""
        flat = self._where(lambda answer: answer.harmless and not answer.trained)
        trained, below = self._where(lambda answer: answer.trained), self.guess - OCTAVE
        return [below] if flat and not trained and below >= LOWEST and below not in self.answers else []

    def _window(self) -> list[int]:
        trained = self._where(lambda answer: answer.trained)
        if not self.lower_end or not trained:
            return []
        lowest = trained[0]
        if any(k < lowest for k in self.answers) or lowest - OCTAVE < LOWEST:
            return []
        return [lowest - OCTAVE]
