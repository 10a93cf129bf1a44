"""How long the cells that are left will take: from the steps that were timed, and from the cells that have ended.

A cell costs its steps, times the seconds of one step of its kind, times an overhead (evaluations, probes, building).
The steps come from cells that have ended, at the same place first, the seconds from the latest steps in training, each
as a mean of what was seen and of what was expected before, so that one cell does not turn the whole around.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stresstest.results.progress import SizeTime, TimeLeft
from stresstest.runs.live import ENDED, LiveRecord

Z = 1.28  # standard deviations on both sides that hold 8 of 10
STARTUP_SECONDS = 4.0  # of a worker process, before its first step: most of it imports torch
OVERHEAD = 1.12  # of all of a cell's seconds over those of its steps, beforehand
_LAST = 0.03  # of a group's time: what comes after its last step
_LATEST = 9  # records that a kind's step time is the median of
_TAIL = 0.3  # of the longest group: how the last ones fall to the workers
_DRIFT = 0.08  # relative standard deviation of a step's time between now and the end: others use the machine as well
_UNSEEN = 0.2  # of what was timed before the training, alone on the machine


@dataclass(frozen=True)
class Kind:
    """What decides the time of a step."""

    variant: str
    depth: int
    optimizer: str
    batch_size: int
    shape: str = ""  # what else makes a model larger, in words

    @property
    def size(self) -> int:
        """What it grows with, about."""
        return self.depth * self.batch_size


@dataclass(frozen=True)
class Work:
    """One cell to train.

    place: all but its seed. steps: of one replica, as expected beforehand. spread: their relative standard deviation.
    size: in words, along a path of growing ones.
    """

    key: str
    kind: Kind
    place: str
    steps: float
    spread: float = 0.1
    size: str = ""


@dataclass
class _Ratios:
    """Of cells that have ended: how many, and the sum of their steps over those expected."""

    number: int = 0
    total: float = 0.0

    def add(self, ratio: float) -> None:
        self.number += 1
        self.total += ratio

    def drawn(self, before: float, weight: float) -> float:
        """Their mean, with what was expected before as so many more."""
        return (weight * before + self.total) / (weight + self.number)


@dataclass
class _Running:
    """A group of cells in training: when it began, and its latest record with when it was heard."""

    cells: tuple[str, ...]
    began: float
    record: LiveRecord | None = None
    heard: float = 0.0


@dataclass
class Forecast:
    """Hears of a run as it goes, and tells the time left. Times are of one clock, in seconds.

    at_once: groups of cells that train at the same time. startup: seconds of a worker before it trains.
    """

    at_once: int = 1
    startup: float = 0.0
    works: dict[str, Work] = field(default_factory=dict)  # still to train, in their order
    groups: list[tuple[str, ...]] = field(default_factory=list)  # that train together, where known
    more: list[Work] = field(default_factory=list)  # that will be asked for
    pauses: float = 0.0  # seconds between rounds of cells still to come
    timed: dict[Kind, float] = field(default_factory=dict)  # seconds of a step, before the training
    spent: float = 0.0  # seconds of all cells that have ended
    _steps: dict[Kind, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_LATEST)))
    _overheads: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    _ratios: dict[Kind | str | None, _Ratios] = field(default_factory=lambda: defaultdict(_Ratios))  # None: of all
    _running: dict[str, _Running] = field(default_factory=dict)  # by its first cell
    _known: dict[str, Work] = field(default_factory=dict)
    _startups: list[float] = field(default_factory=list)

    def expect(self, works: Sequence[Work]) -> None:
        """These cells are to be trained as well."""
        self.works |= {work.key: work for work in works}
        self._known |= {work.key: work for work in works}

    def began(self, cells: Sequence[str], now: float) -> None:
        """A group of cells was handed to a worker."""
        self._running[cells[0]] = _Running(tuple(cells), now)

    def heard(self, record: LiveRecord, now: float) -> None:
        """The latest news of a group; the same again is no news."""
        running = self._running.get(record.cells[0]) if record.cells else None
        if running is None or record == running.record:
            return
        if running.record is None and running.began and not self._overheads:
            self._startups.append(max(0.0, now - running.began - record.seconds))
        running.record, running.heard = record, now
        work = self._known.get(record.cells[0])
        if work is None or not record.step_seconds:
            return
        self._steps[work.kind].append(record.step_seconds)
        if record.doing == ENDED and record.trained:
            self._overheads[work.kind].append(max(1.0, record.seconds / (record.trained * record.step_seconds)))

    def ended(self, key: str, seconds: float, taken: float) -> None:
        """A cell has ended, or had before the run went on: it took so long, and so many steps of a replica."""
        self.spent += seconds
        work = self.works.pop(key, None) or self._known.get(key)
        for first, running in list(self._running.items()):
            if key in running.cells and not any(cell in self.works for cell in running.cells):
                del self._running[first]
        if work is None or not taken or not seconds:
            return
        for among in (None, work.kind, work.place):
            self._ratios[among].add(taken / work.steps)
        if work.kind not in self._steps:
            self.timed.setdefault(work.kind, seconds / taken / OVERHEAD)

    def left(self, now: float) -> TimeLeft:
        """The time left, by everything that was heard."""
        waiting = self._waiting()
        running = [self._left_of(each, now) for each in self._running.values()]
        free = [*running, *[0.0] * max(0, self.at_once - len(running))]
        heapq.heapify(free)
        late = [self._startup if not self._steps else 0.0] * (self.at_once - len(running))
        for group in waiting:
            start = heapq.heappop(free)
            heapq.heappush(free, start + self._cost(group) + (late.pop() if late else 0.0))
        seconds = max(free, default=0.0) + self.pauses
        spread = Z * self._deviation(waiting)
        return TimeLeft(seconds, seconds * math.exp(-spread), seconds * math.exp(spread))

    def share(self, now: float) -> float:
        """Of the work that is done, from 0 to 1, in seconds of one process."""
        under_way = sum(each.record.seconds for each in self._running.values() if each.record)
        done = self.spent + under_way
        left = sum(self._left_of(each, now) for each in self._running.values())
        left += sum(self._cost(group) for group in self._waiting())
        return done / (done + left) if done + left else 0.0

    def sizes(self) -> tuple[SizeTime, ...]:
        """What the cells that are still to train take, by size."""
        found: dict[str, list[Work]] = defaultdict(list)
        for work in self.works.values():
            found[work.size].append(work)
        return tuple(
            SizeTime(size, len(works), max(self.step_seconds(work.kind) for work in works), self._cost(works))
            for size, works in found.items()
            if size
        )

    @property
    def can_tell(self) -> bool:
        """Whether the time of a step is known of anything."""
        return bool(self._steps or self.timed)

    @property
    def _startup(self) -> float:
        return statistics.median(self._startups) if self._startups else self.startup

    def _waiting(self) -> list[list[Work]]:
        """The groups that are not in training yet, then the cells that will be asked for."""
        begun = {cell for each in self._running.values() for cell in each.cells}
        asked = [[self.works[key] for key in group if key in self.works and key not in begun] for group in self.groups]
        grouped = {key for group in self.groups for key in group}
        alone = [[work] for key, work in self.works.items() if key not in grouped and key not in begun]
        return [group for group in (*asked, *alone) if group] + [[work] for work in self.more]

    def _left_of(self, running: _Running, now: float) -> float:
        """Of a group in training: what is expected of it, less the share of its steps that it has taken."""
        works = [self._known[key] for key in running.cells if key in self._known]
        whole, record = self._cost(works), running.record
        if record is None:
            return whole + max(0.0, self._startup - (now - running.began))
        if record.doing == ENDED:
            return 0.0
        expected = sum(self._taken(work) for work in works)
        left = whole * (1.0 - record.taken / expected) if expected else 0.0
        least = record.left * (record.step_seconds or 0.0) + _LAST * whole
        return max(_LAST * whole, max(left, least) - (now - running.heard))

    def _cost(self, works: Sequence[Work]) -> float:
        each = {kind: self.step_seconds(kind) * self._overhead(kind) for kind in {work.kind for work in works}}
        return sum(self._taken(work) * each[work.kind] for work in works)

    def _taken(self, work: Work) -> float:
        """The steps that a cell takes: of all cells, of its kind, of its place, each drawn toward the one before."""
        ratio = self._ratios[None].drawn(1.0, 2.0)
        ratio = self._ratios[work.kind].drawn(ratio, 2.0)
        ratio = self._ratios[work.place].drawn(ratio, 1.0)
        return work.steps * ratio

    def step_seconds(self, kind: Kind) -> float:
        """Of one step of one replica: as it is now, as it was timed, or as others of about its size have it."""
        if kind in self._steps:
            return statistics.median(self._steps[kind])
        seen = {each: statistics.median(times) for each, times in self._steps.items()}
        if kind in self.timed:
            slower = [math.log(seconds / self.timed[each]) for each, seconds in seen.items() if each in self.timed]
            return self.timed[kind] * math.exp(sum(slower) / (0.5 + len(slower)))
        known = seen or self.timed
        if not known:
            return 0.0
        nearest = sorted(known, key=lambda each: (abs(math.log(each.size / kind.size)), each.variant != kind.variant))
        return statistics.median(known[each] * kind.size / each.size for each in nearest[:3])

    def _overhead(self, kind: Kind) -> float:
        mine = self._overheads.get(kind, [])
        everyone = [one for found in self._overheads.values() for one in found]
        of_all = (2.0 * OVERHEAD + sum(everyone)) / (2.0 + len(everyone))
        return (2.0 * of_all + sum(mine)) / (2.0 + len(mine))

    def _deviation(self, waiting: Sequence[Sequence[Work]]) -> float:
        """Relative standard deviation of the time left."""
        running = [[self._known[key] for key in each.cells if key in self._known] for each in self._running.values()]
        groups = [*waiting, *running]
        works = [work for group in groups for work in group]
        by_kind: dict[Kind, list[Work]] = defaultdict(list)
        for work in works:
            by_kind[work.kind].append(work)
        spread = max((work.spread for work in works), default=0.0)
        total, squares = 0.0, 0.0
        for kind, mine in by_kind.items():
            cost = self._cost(mine)
            total += cost
            squares += (cost * spread) ** 2 * (1.0 / len(mine) + 1.0 / (1.0 + 2.0 * self._ratios[kind].number))
            squares += 0.0 if kind in self._steps else (cost * _UNSEEN) ** 2
        if not total:
            return 0.0
        squares += (_TAIL * max(self._cost(list(group)) for group in groups)) ** 2
        common = spread**2 / (1.0 + self._ratios[None].number) + _DRIFT**2 + (0.0 if self._steps else _UNSEEN**2)
        return math.sqrt(squares / total**2 + common)
