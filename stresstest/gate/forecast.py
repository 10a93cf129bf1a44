"""How far a check is, and how long it may still take: both sides, every experiment, all its looks at most.

What a side's run tells of itself is taken as it is. What has not begun costs its work, times the seconds that a unit of
it took: of the same experiment on the other side, or of all so far, or by the estimate. All times are `time.time()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stresstest.results.progress import Progress, TimeLeft

STARTUP_SECONDS = 5.0  # of a side, before its first cell: it imports torch and plans, as the check did
_SIDES = 0.15  # by how much two sides differ that train the same cells with other code, as a spread
_ENOUGH = 0.1  # of an experiment's work: who trains less of it tells nothing of how long the rest takes


@dataclass(frozen=True)
class Expected:
    """One experiment on one side at the first look, beforehand.

    work: seconds, or where no step was timed, steps. spread: of the work's logarithm on either side, in 8 of 10.
    """

    cells: int
    work: float
    spread: float


@dataclass
class _Stretch:
    """One experiment on one side at one look; `stored` is the share of its work that was on the disk beforehand."""

    side: str
    name: str
    cells: int
    work: float
    spread: float
    stored: float
    began: float | None = None
    over: float | None = None
    at_first: float | None = None  # the share that was told first
    told: Progress | None = None
    at: float = 0.0  # when that was told

    def heard(self, at: float, told: Progress | None) -> None:
        """It has begun by now; what its run tells, where it tells something."""
        self.began = at if self.began is None else self.began
        if told is None or told.left is None:
            return
        self.told, self.at = told, at
        self.at_first = told.share if self.at_first is None else self.at_first

    @property
    def total(self) -> int:
        """Its cells."""
        return self.told.total if self.told else self.cells

    @property
    def ended(self) -> int:
        """Its cells that have ended."""
        if self.over is not None:
            return self.total
        return self.told.ended if self.told else round(self.stored * self.cells)

    @property
    def share(self) -> float:
        """Of its work that is done."""
        if self.over is not None:
            return 1.0
        return self.told.share if self.told else self.stored

    def left(self, now: float) -> TimeLeft | None:
        """As its run tells it; `None` while it tells nothing."""
        if self.over is not None:
            return TimeLeft(0.0, 0.0, 0.0)
        if self.told is None or self.told.left is None:
            return None
        since, left = now - self.at, self.told.left
        return TimeLeft(*(max(0.0, each - since) for each in (left.seconds, left.low, left.high)))

    def seen(self, now: float) -> tuple[float, float, float] | None:
        """The seconds that it takes in all, for how much work, and their spread; `None` where that is not known yet."""
        left = self.left(now)
        if self.began is None or self.at_first is None or left is None or 1.0 - self.at_first < _ENOUGH:
            return None
        took = (now if self.over is None else self.over) - self.began
        seconds = max(took + left.seconds, 1e-3)
        return seconds, self.work * (1.0 - self.at_first), math.log(max(1.0, (took + left.high) / seconds))


@dataclass
class CheckForecast:
    """Hears of a check as it goes.

    timed: whether the work is in seconds. sides: in the order in which they run. looks: seeds at each, of one side.
    stored: by side and experiment, the share that is on the disk beforehand.
    """

    expected: Mapping[str, Expected]
    timed: bool
    sides: Sequence[str]
    looks: Sequence[int] = ()
    stored: Mapping[tuple[str, str], float] = field(default_factory=dict)
    _look: int = -1
    _side: str = ""  # that runs
    _began: float | None = None  # the side that runs, until its first experiment
    _names: Sequence[str] = ()  # the experiments of this look
    _stretches: dict[tuple[str, str], _Stretch] = field(default_factory=dict)  # the latest of each side and experiment
    _past: list[_Stretch] = field(default_factory=list)  # of earlier looks
    _startups: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._expect(list(self.expected), 0)

    def began(self, side: str, names: Sequence[str], look: int, now: float) -> None:
        """A side runs these experiments."""
        if look != self._look and look > 0:
            self._expect(names, look)
        self._look, self._side, self._began = look, side, now

    def heard(self, name: str, at: float, told: Progress | None) -> None:
        """An experiment of the side that runs has begun; the ones before it are over."""
        if self._began is not None:
            self._startups.append(at - self._began)
            self._began = None
        for stretch in self._of(self._side):
            if stretch.name == name:
                stretch.heard(at, told)
                return
            if stretch.began is not None and stretch.over is None:
                stretch.over = at

    def ended(self, now: float) -> None:
        """The side that runs has ended; what it has not begun it never will."""
        self._began = None
        for stretch in list(self._of(self._side)):
            if stretch.began is None:
                del self._stretches[stretch.side, stretch.name]
            elif stretch.over is None:
                stretch.over = now

    def progress(self, now: float, running: tuple[str, ...] = ()) -> Progress:
        """The whole check: of this look, and as the most that it takes, of all."""
        stretches = list(self._stretches.values())
        ended, total = sum(each.ended for each in stretches), sum(each.total for each in stretches)
        whole = sum(each.work * self._rate(each.name, now)[0] for each in stretches)
        done = sum(each.share * each.work * self._rate(each.name, now)[0] for each in stretches)
        return Progress(ended, total, done / whole if whole else 0.0, self._left(now), running)

    def _expect(self, names: Sequence[str], look: int) -> None:
        """The experiments of a look; what the one before trained is there."""
        more = self._seeds(look) / self._seeds(0)
        for side in self.sides:
            for name in names:
                before, one = self._stretches.pop((side, name), None), self.expected[name]
                if look and before is None:
                    continue  # this side cannot run it
                self._past += [before] if before else []
                stored = self.stored.get((side, name), 0.0) if not look else self._seeds(look - 1) / self._seeds(look)
                stretch = _Stretch(side, name, round(one.cells * more), one.work * more, one.spread, min(1.0, stored))
                self._stretches[side, name] = stretch
        self._names = names

    def _seeds(self, look: int) -> float:
        return float(self.looks[look]) if self.looks else 1.0

    def _of(self, side: str) -> Iterator[_Stretch]:
        yield from [self._stretches[side, name] for name in self._names if (side, name) in self._stretches]

    def _left(self, now: float) -> TimeLeft | None:
        """The time left of this look; `None` where nothing is known of a step."""
        seconds = low = high = 0.0
        for stretch in (each for each in self._stretches.values() if each.over is None):
            left = stretch.left(now) or self._expected_left(stretch, now)
            if left is None:
                return None
            seconds, low, high = seconds + left.seconds, low + left.low, high + left.high
        waits = self._waits(now)
        high += waits
        return TimeLeft(seconds + waits, low + waits, high, self._at_most(high, now))

    def _expected_left(self, stretch: _Stretch, now: float) -> TimeLeft | None:
        """Of what has told nothing yet."""
        rate, spread = self._rate(stretch.name, now)
        if not self.timed and not self._seen(now):
            return None
        since = 0.0 if stretch.began is None else now - stretch.began
        seconds = max(0.0, stretch.work * (1.0 - stretch.stored) * rate - since)
        spread = spread or stretch.spread
        return TimeLeft(seconds, seconds * math.exp(-spread), seconds * math.exp(spread))

    def _at_most(self, high: float, now: float) -> float | None:
        """With all looks that may follow, for every experiment of this one."""
        look = max(0, self._look)
        if look + 1 >= len(self.looks):
            return None
        more = (self._seeds(len(self.looks) - 1) - self._seeds(look)) / self._seeds(0)
        for stretch in [each for side in self.sides for each in self._of(side)]:
            rate, spread = self._rate(stretch.name, now)
            high += more * self.expected[stretch.name].work * rate * math.exp(spread or stretch.spread)
        return high + (len(self.looks) - 1 - look) * len(self.sides) * self._startup

    def _waits(self, now: float) -> float:
        """For sides that have not begun their first cell."""
        running = 0.0 if self._began is None else max(0.0, self._startup - (now - self._began))
        waiting = {each.side for each in self._stretches.values() if each.began is None} - {self._side}
        return running + len(waiting) * self._startup

    @property
    def _startup(self) -> float:
        return max(self._startups, default=STARTUP_SECONDS)

    def _rate(self, name: str, now: float) -> tuple[float, float]:
        """Seconds for a unit of an experiment's work, and their spread; 0 where that is the estimate's own."""
        mine = self._seen(now, name)
        if mine:
            return _per_work(mine), math.hypot(min(spread for _, _, spread in mine), _SIDES)
        others = self._seen(now)
        return _per_work(others) if others else 1.0, 0.0

    def _seen(self, now: float, name: str = "") -> list[tuple[float, float, float]]:
        stretches: Iterable[_Stretch] = (*self._past, *self._stretches.values())
        found = [each.seen(now) for each in stretches if name in ("", each.name)]
        return [each for each in found if each is not None]


def _per_work(seen: Sequence[tuple[float, float, float]]) -> float:
    return sum(seconds for seconds, _, _ in seen) / sum(work for _, work, _ in seen)
