"""The search for the largest dose that a run takes: without a scar, and without breaking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from stresstest.results.bracket import Bracket

Survival = Literal["recovered", "scarred", "broke"]
WORSE: tuple[Survival, ...] = ("recovered", "scarred", "broke")


@dataclass
class DoseSearch:
    """One run's search: `ask` for a place among the doses, `tell` what became of it, until `ask` has none.

    The standard dose comes first, then bisection between the last dose that is no worse than "recovered" and the first
    that is, and the same of "scarred". Tolerance need not be monotone: it ends at the first dose that is worse.
    """

    doses: Sequence[float]
    first: int
    answers: dict[int, Survival] = field(default_factory=dict)

    def ask(self) -> int | None:
        """The place of the next dose; `None` when both brackets are found."""
        if not self.answers:
            return self.first
        for at_worst in WORSE[:2]:
            good, bad = self._between(at_worst)
            if bad - good > 1:
                return (good + bad) // 2
        return None

    def tell(self, place: int, answer: Survival) -> None:
        """What became of the run at the dose of this place."""
        self.answers[place] = answer

    def tolerance(self, at_worst: Survival) -> Bracket:
        """From the last dose before any is worse to the first that is; open at the ends of the doses."""
        good, bad = self._between(at_worst)
        low = self.doses[good] if good >= 0 else None
        return Bracket(low=low, high=self.doses[bad] if bad < len(self.doses) else None)

    @property
    def monotone(self) -> bool:
        """Whether no larger dose was seen to do less harm."""
        ranks = [WORSE.index(self.answers[place]) for place in sorted(self.answers)]
        return ranks == sorted(ranks)

    def _between(self, at_worst: Survival) -> tuple[int, int]:
        limit = WORSE.index(at_worst)
        worse = [place for place, answer in self.answers.items() if WORSE.index(answer) > limit]
        bad = min(worse, default=len(self.doses))
        return max((place for place in self.answers if place < bad), default=-1), bad
