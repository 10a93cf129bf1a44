"""What became of claims: an exact sign test over paired seeds, Holm over all claims of a paper, alpha over the looks.

A claim is seen where more than half of all seeds do what it says, not seen where more than half do not, as far as
the seeds that were trained can tell (Conover 1999, Sec. 3.4); a seed that leaves it open counts on neither side.
"""

from __future__ import annotations

import math
import statistics as middles
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stresstest.gate import statistics
from stresstest.gate.claim_values import holds_in, values_of
from stresstest.reports.numbers import number
from stresstest.results.records import Bracket, Result, interval_rank
from stresstest.scenario.claims import Claim, Statement

ClaimVerdict = Literal["seen", "not seen", "undecided"]
ALPHA = 0.05  # of any wrong verdict among all claims of a paper
COVERAGE = 0.95  # of the median's interval, from six seeds on
_UNKNOWN = Bracket(low=None, high=None)


@dataclass(frozen=True)
class Evidence:
    """A statement and what became of it: the median over seeds with its interval, and the test.

    holding, contrary: seeds in which it holds, and does not. p: of the two-sided sign test, adjusted by Holm.
    level: the error that this test alone may have, at the last look.
    """

    statement: Statement
    verdict: ClaimVerdict = "undecided"
    median: Bracket = _UNKNOWN
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    holding: int = 0
    contrary: int = 0
    p: float = 1.0
    level: float = ALPHA

    @property
    def needed(self) -> int | None:
        """Seeds that would decide, if they go on as they did; `None` where it is decided or none would."""
        if self.verdict != "undecided":
            return None
        return statistics.seeds_to_decide(self.holding, self.contrary, self.seeds, self.level)

    @property
    def figure(self) -> str:
        """The numbers, as they are printed."""
        if not self.seeds:
            return "no value"
        unit = {"/": "x", "-": "", "": ""}[self.statement.how]
        low = "less" if self.low is None else f"{number(self.low)}{unit}"
        high = "more" if self.high is None else f"{number(self.high)}{unit}"
        return f"{_middle(self.median)}{unit} ({low}..{high}, {self.holding} of {self.seeds} seeds)"


@dataclass(frozen=True)
class Judged:
    """A claim and what became of it, at each place of its path, and of its cause, where that was tested."""

    claim: Claim
    places: tuple[Evidence, ...]
    cause: Evidence | None = None

    def __repr__(self) -> str:
        """What is claimed, what became of it, and the numbers."""
        return f"{self.words}: {self.claim.says} {self.figure}"

    @property
    def verdict(self) -> ClaimVerdict:
        """That of the last place: where it holds from some size on, it is seen."""
        return self.places[-1].verdict

    @property
    def words(self) -> str:
        """The verdict, with the place from which on it is seen, where that is not the first."""
        found = [place.verdict for place in self.places]
        if self.verdict != "seen" or found.count("seen") == len(found):
            return self.verdict
        first = max(i for i, verdict in enumerate(found) if verdict != "seen") + 1
        return f"seen from {self.places[first].statement.at}"

    @property
    def figure(self) -> str:
        """The numbers, as they are printed; of a path, those of each place."""
        if len(self.places) == 1:
            return self.places[0].figure
        return "; ".join(f"{place.statement.at}: {place.figure}" for place in self.places)

    @property
    def seeds(self) -> int:
        """Paired seeds that its verdict rests on."""
        return self.places[-1].seeds

    @property
    def open(self) -> list[Evidence]:
        """What is not decided: of its places, and of its cause where that is asked for."""
        why = [self.cause] if self.cause is not None and self.verdict != "seen" else []
        return [one for one in (*self.places, *why) if one.verdict == "undecided"]


@dataclass(frozen=True)
class Asked:
    """The claims of one scenario, and the results of its experiments at each look so far, by name.

    looks: how many looks there may be, over which alpha is spent.
    """

    paper: str
    claims: Sequence[Claim]
    results: Sequence[Mapping[str, Result]]
    looks: int = 1


def judge_claims(asked: Sequence[Asked], families: Mapping[str, int] | None = None) -> list[list[Judged]]:
    """What became of the claims of each scenario, in their order.

    A paper's claims, with their places and causes, are one family. `families`: how many statements a paper's has,
    where others than these belong to it.
    """
    found = {
        (i, statement): Evidence(statement)
        for i, one in enumerate(asked)
        for claim in one.claims
        for statement in claim.tested
    }
    for look in range(max((len(one.results) for one in asked), default=0)):
        for paper in dict.fromkeys(one.paper for one in asked):
            mine = [key for key in found if asked[key[0]].paper == paper]
            left = [key for key in mine if found[key].verdict == "undecided"]
            lines = max((families or {}).get(paper, 0), len(mine)) - (len(mine) - len(left))
            found.update(_look(left, asked, look, lines))
    return [
        [
            Judged(
                claim,
                tuple(found[i, statement] for statement in claim.statements),
                found[i, claim.because.statement] if claim.because and claim.because.statement else None,
            )
            for claim in one.claims
        ]
        for i, one in enumerate(asked)
    ]


def family_size(claims: Sequence[Claim]) -> int:
    """Statements that are tested: of claims, along their paths, and of their causes."""
    return len({statement for claim in claims for statement in claim.tested})


_Key = tuple[int, Statement]


def _look(keys: Sequence[_Key], asked: Sequence[Asked], look: int, lines: int) -> dict[_Key, Evidence]:
    """What is open of one paper, at one look."""
    tested = {}
    for i, statement in keys:
        results = asked[i].results
        tested[i, statement] = _measured(statement, results[min(look, len(results) - 1)])
    adjusted = statistics.holm([one.p for one in tested.values()], lines)
    found = {}
    for (key, one), p in zip(tested.items(), adjusted, strict=True):
        alpha = ALPHA / asked[key[0]].looks
        verdict: ClaimVerdict = "undecided"
        if p <= alpha:
            verdict = "seen" if one.holding > one.contrary else "not seen"
        found[key] = replace(one, verdict=verdict, p=p, level=alpha / max(1, lines))
    return found


def _measured(statement: Statement, results: Mapping[str, Result]) -> Evidence:
    """The values of a statement, and the sign test of them alone."""
    values = list(values_of(statement, results).values())
    if not values:
        return Evidence(statement)
    held = [holds_in(statement, value) for value in values]
    lows = sorted(-math.inf if value.low is None else value.low for value in values)
    highs = sorted(math.inf if value.high is None else value.high for value in values)
    rank, _ = interval_rank(len(values), COVERAGE)
    return Evidence(
        statement,
        median=Bracket(low=_known(_middle_of(lows)), high=_known(_middle_of(highs))),
        low=_known(lows[rank - 1]),
        high=_known(highs[-rank]),
        seeds=len(values),
        holding=held.count(True),
        contrary=held.count(False),
        p=statistics.sign_test(max(held.count(True), held.count(False)), len(values)),
    )


def _middle_of(ordered: Sequence[float]) -> float:
    """The median; between two numbers of which one is infinite, the upper."""
    low, high = middles.median_low(ordered), middles.median_high(ordered)
    return (low + high) / 2 if math.isfinite(low + high) else high


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _middle(value: Bracket) -> str:
    if value.low is None:
        return "none" if value.high is None else f"< {number(value.high)}"
    return f"> {number(value.low)}" if value.high is None else number(value.low)
