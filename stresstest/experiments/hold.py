"""The search for the largest constant learning rate that trains, on one global grid.

The grid is 2^(k/4), the same for every seed, variant and machine. Octaves around the ramp's answer
come first; bisection follows only between a stable and an unstable neighbour, since stability need
not be monotone. The order of the questions depends on one seed's answers alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from stresstest.engine.divergence import Outcome
from stresstest.results import TRAINED, Bracket

OCTAVE = 4
STRIDES: Mapping[str, int] = {"octave": 4, "half-octave": 2, "quarter-octave": 1}
LOWEST = -20 * OCTAVE
_FARTHEST = 8  # octaves to walk below the first guess
_FARTHEST_UNTRAINED = 4  # octaves to walk where nothing has trained at all


def grid_lr(k: int) -> float:
    """The learning rate at place k of the global grid."""
    return float(2.0 ** (k / OCTAVE))


def octave_below(lr: float) -> int:
    """The largest whole octave of the grid that is not above `lr`."""
    return math.floor(math.log2(lr)) * OCTAVE


@dataclass(frozen=True)
class Answer:
    """What became of one held learning rate."""

    outcome: Outcome
    final_loss: float

    @property
    def trained(self) -> bool:
        return self.outcome in TRAINED


@dataclass
class HoldSearch:
    """One seed's search: `ask` for places of the grid, `tell` the answers, until `ask` is empty."""

    guess: int
    highest: int
    stride: int = OCTAVE
    lower_end: bool = False
    noise_floor: float = 0.0  # nats; smaller differences of final losses mean nothing
    answers: dict[int, Answer] = field(default_factory=dict)

    def tell(self, k: int, answer: Answer) -> None:
        """Record what became of the learning rate at place k."""
        self.answers[k] = answer

    def ask(self) -> list[int]:
        """The places to try next; empty when the search is over."""
        wanted = self._coarse() or self._finer() or self._window()
        return [k for k in wanted if k not in self.answers]

    @property
    def max_stable(self) -> tuple[int | None, int | None]:
        """(last stable, first unstable) going up from the smallest LR that trained."""
        places = sorted(self.answers)
        trained = [k for k in places if self.answers[k].trained]
        if not trained:
            return None, None
        last = trained[0]
        for k in places[places.index(last) + 1 :]:
            if not self.answers[k].trained:
                return last, k
            last = k
        return last, None

    @property
    def max_stable_lr(self) -> Bracket:
        """The bracket of the result; open where the search met the end of its range."""
        low, high = self.max_stable
        return Bracket(low=None if low is None else grid_lr(low), high=None if high is None else grid_lr(high))

    @property
    def min_useful_lr(self) -> Bracket:
        """The smallest LR that makes real progress, between the last too slow and the first that trained."""
        trained = [k for k, answer in self.answers.items() if answer.trained]
        if not trained:
            return Bracket(low=None, high=None)
        slow = [k for k, answer in self.answers.items() if answer.outcome == "failed-to-train"]
        slower = [k for k in slow if k < min(trained)]
        return Bracket(low=grid_lr(max(slower)) if slower else None, high=grid_lr(min(trained)))

    @property
    def monotone(self) -> bool:
        """No LR above the first unstable one trained again, and none below the first that trained broke."""
        trained = [k for k, answer in self.answers.items() if answer.trained]
        _, first_bad = self.max_stable
        if not trained:
            return True
        broke = [k for k, a in self.answers.items() if not a.trained and a.outcome != "failed-to-train"]
        return not any(k < min(trained) for k in broke) and (first_bad is None or max(trained) < first_bad)

    def _coarse(self) -> list[int]:
        if not self.answers:
            first = [self.guess - OCTAVE, self.guess, self.guess + OCTAVE]
            return [k for k in first if LOWEST <= k <= self.highest] or [self.highest]
        low, high = self.max_stable
        if low is None:
            return self._toward_training()
        if high is None and low + OCTAVE <= self.highest:
            return [low + OCTAVE]
        return []

    def _toward_training(self) -> list[int]:
        """Where nothing has trained yet: down, unless the smallest LR was clearly the slowest."""
        places = sorted(self.answers)
        loss = {k: self.answers[k].final_loss for k in places}
        broke = any(self.answers[k].outcome != "failed-to-train" for k in places)
        far = _FARTHEST if broke else _FARTHEST_UNTRAINED
        lowest_broke = self.answers[places[0]].outcome != "failed-to-train"
        if lowest_broke or loss[places[0]] <= min(loss.values()) + self.noise_floor:
            below = places[0] - OCTAVE
            return [below] if below >= max(LOWEST, self.guess - far * OCTAVE) else []
        if not broke and loss[places[-1]] == min(loss.values()):
            above = places[-1] + OCTAVE
            return [above] if above <= min(self.highest, self.guess + far * OCTAVE) else []
        return []

    def _finer(self) -> list[int]:
        low, high = self.max_stable
        if low is None or high is None or high - low <= self.stride:
            return []
        return [(low + high) // 2]

    def _window(self) -> list[int]:
        trained = [k for k, answer in self.answers.items() if answer.trained]
        if not self.lower_end or not trained:
            return []
        lowest = min(trained)
        if any(k < lowest for k in self.answers) or lowest - OCTAVE < LOWEST:
            return []
        return [lowest - OCTAVE]
