"""The time left, against hand-made runs: cells, true step times and what their workers tell, played by a clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import pytest

from stresstest.runs.forecast import OVERHEAD, Forecast, Kind, Work
from stresstest.runs.live import ENDED, LiveRecord

NEWS_SECONDS = 5.0
VARIANTS = {"post-ln": 0.020, "pre-ln": 0.021, "normformer": 0.026, "rezero": 0.018, "deepnorm": 0.020}  # s a step


@dataclass
class TrueCell:
    """What a forecast does not know: the steps that a cell takes, and all of its seconds."""

    work: Work
    taken: int
    step_seconds: float
    overhead: float

    @property
    def seconds(self) -> float:
        return self.taken * self.step_seconds * self.overhead


def boundary(rng: random.Random, depths: tuple[int, ...] = (6,), spread: float = 0.18) -> list[TrueCell]:
    """Ramps that break after 160 steps and holds of 150, as many as each cell needs; the deepest first, as in a run."""
    found = []
    for depth in sorted(depths, reverse=True):
        for variant, seconds in VARIANTS.items():
            of_kind = rng.gauss(0.0, 0.5)
            for seed in range(3):
                holds = min(7, max(2, round(3.6 + of_kind + rng.gauss(0.0, 0.6))))
                kind = Kind(variant, depth, "adam", 8)
                work = Work(f"{variant} {depth} {seed}", kind, f"{variant} {depth}", 700.0, spread)
                found.append(
                    TrueCell(
                        work,
                        rng.randint(120, 180) + 150 * holds,
                        seconds * (0.4 + 0.1 * depth),
                        rng.uniform(1.04, 1.15),
                    )
                )
    return found


def grid(rng: random.Random, steps: Mapping[int, int], num_lrs: int, seconds: Callable[[int], float]) -> list[TrueCell]:
    """Every peak LR at every batch size and seed; at the largest LR some break early."""
    found = []
    for size in sorted(steps):
        for place in range(num_lrs):
            for seed in range(3):
                work = Work(
                    f"{size} {place} {seed}", Kind("pre-ln", 2, "adam", size), f"{size} {place}", float(steps[size])
                )
                breaks = place == num_lrs - 1 and rng.random() < 0.5
                found.append(TrueCell(work, steps[size] // (2 if breaks else 1), seconds(size), rng.uniform(1.03, 1.1)))
    return found


def lr_range(rng: random.Random) -> list[TrueCell]:
    return boundary(rng)


def depth_sweep(rng: random.Random) -> list[TrueCell]:
    return boundary(rng, (2, 4, 8, 16))


def batch_sweep(rng: random.Random) -> list[TrueCell]:
    steps = {32: 976, 128: 244, 512: 61, 2048: 15}
    return grid(rng, steps, 6, lambda size: 0.003 + 0.00013 * size)


def race(rng: random.Random) -> list[TrueCell]:
    return grid(rng, {8: 400}, 16, lambda size: 0.02)


class Played:
    """A run by the clock, on some workers whose speed drifts; `log` has (share of the work done, forecast, came)."""

    def __init__(self, cells: list[TrueCell], rng: random.Random, at_once: int = 2, timed: bool = True) -> None:
        self.forecast = Forecast(at_once=at_once)
        self.forecast.expect([cell.work for cell in cells])
        if timed:  # alone on the machine
            quicker, kinds = rng.uniform(0.75, 1.1), {cell.work.kind: cell.step_seconds for cell in cells}
            self.forecast.timed = {kind: step * quicker * rng.uniform(0.93, 1.07) for kind, step in kinds.items()}
        self._rng, self._now, self._done = rng, 0.0, 0.0
        self._running: list[tuple[TrueCell, float]] = []
        self.told: list[tuple[float, float, float, float]] = []  # share of the work, seconds, low, high
        self.at: list[float] = []
        self._play(list(cells), sum(cell.seconds for cell in cells))

    def _play(self, waiting: list[TrueCell], whole: float) -> None:
        self._tell(whole)
        while waiting or self._running:
            while waiting and len(self._running) < self.forecast.at_once:
                cell = waiting.pop(0)
                self._running.append((cell, self._now))
                self.forecast.began([cell.work.key], self._now)
            first = min(cell.seconds + began for cell, began in self._running)
            self._now = min(first, self._now + NEWS_SECONDS)
            for cell, began in list(self._running):
                self._news(cell, self._now - began)
                if self._now >= began + cell.seconds:
                    self._running.remove((cell, began))
                    self.forecast.ended(cell.work.key, cell.seconds, cell.taken)
                    self._done += cell.seconds
            self._tell(whole)

    def _news(self, cell: TrueCell, seconds: float) -> None:
        share = min(1.0, seconds / cell.seconds)
        taken, ended = round(share * cell.taken), share > 1.0 - 1e-9
        record = LiveRecord(
            cells=[cell.work.key],
            doing=ENDED if ended else "hold",
            step=taken % 150,
            num_steps=150,
            left=min(cell.taken - taken, 150 - taken % 150),
            taken=taken,
            trained=taken,
            step_seconds=cell.step_seconds * self._rng.uniform(0.9, 1.15) if taken else None,
            seconds=seconds,
        )
        self.forecast.heard(record, self._now)

    def _tell(self, whole: float) -> None:
        left = self.forecast.left(self._now)
        done = self._done + sum(self._now - began for _, began in self._running)
        self.told.append((done / whole, left.seconds, left.low, left.high))
        self.at.append(self._now)

    def errors(self, share: float) -> tuple[float, bool]:
        """At this share of the work: how far off the time left was, and whether its range held what came."""
        place = next(i for i, told in enumerate(self.told) if told[0] >= share)
        came = self._now - self.at[place]
        _, seconds, low, high = self.told[place]
        return abs(seconds / came - 1.0), low <= came <= high


@pytest.fixture(scope="module")
def sweeps() -> list[Played]:
    """Ten depth sweeps."""
    return [Played(depth_sweep(rng := random.Random(seed)), rng) for seed in range(10)]


@pytest.mark.parametrize("cells", [lr_range, race, batch_sweep])
def test_at_half_of_the_steps_the_time_left_is_within_a_quarter_of_what_came(
    cells: Callable[[random.Random], list[TrueCell]],
) -> None:
    played = [Played(cells(rng := random.Random(seed)), rng) for seed in range(6)]
    errors = [each.errors(0.5)[0] for each in played]
    assert max(errors) < 0.25
    assert median(errors) < 0.15


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_range_of_a_depth_sweep_holds_what_came_in_eight_of_ten(share: float, sweeps: list[Played]) -> None:
    assert sum(each.errors(share)[1] for each in sweeps) >= 8


def test_the_range_of_a_depth_sweep_narrows_as_it_goes(sweeps: list[Played]) -> None:
    for each in sweeps:
        before, later = each.told[0], next(told for told in each.told if told[0] >= 0.5)
        assert before[3] < 2.5 * before[2]
        assert later[3] / later[2] < before[3] / before[2]


def test_without_timed_steps_it_is_told_as_soon_as_something_trains() -> None:
    rng = random.Random(1)
    cells = lr_range(rng)
    empty = Forecast()
    empty.expect([cell.work for cell in cells])
    assert not empty.can_tell
    played = Played(cells, rng, timed=False)
    assert played.forecast.can_tell
    assert played.errors(0.5)[0] < 0.25


def work(key: str, depth: int = 2, place: str = "", steps: float = 100.0) -> Work:
    return Work(key, Kind("pre-ln", depth, "adam", 8), place or f"place {depth}", steps)


def test_the_steps_of_a_cell_are_learned_from_those_that_ended_at_its_place() -> None:
    forecast = Forecast(timed={work("").kind: 1.0})
    forecast.expect([work(f"{i}") for i in range(20)])
    before = forecast.left(0.0).seconds
    for i in range(10):
        forecast.ended(f"{i}", 60.0 * OVERHEAD, 60)
    assert before == pytest.approx(20 * 100 * OVERHEAD)
    assert forecast.left(0.0).seconds == pytest.approx(10 * 60 * OVERHEAD, rel=0.1)


def test_what_was_trained_before_counts_as_done_and_tells_of_the_rest() -> None:
    forecast = Forecast()
    forecast.expect([work("a"), work("b")])
    forecast.ended("a", 50.0, 100)
    assert forecast.left(0.0).seconds == pytest.approx(50.0, rel=0.01)
    assert forecast.share(0.0) == pytest.approx(0.5, rel=0.01)


def test_a_deeper_cell_than_was_timed_costs_as_much_more_as_it_is_deeper() -> None:
    forecast = Forecast(timed={work("").kind: 1.0})
    forecast.expect([work("deep", depth=20)])
    assert forecast.left(0.0).seconds == pytest.approx(10 * 100 * OVERHEAD)


def test_a_group_counts_down_between_its_news_and_by_the_steps_that_it_took() -> None:
    forecast = Forecast(timed={work("").kind: 0.5})
    forecast.expect([work("a"), work("b")])
    forecast.groups = [("a", "b")]
    forecast.began(["a", "b"], 0.0)
    forecast.heard(
        LiveRecord(["a", "b"], "schedule", 50, 100, left=100, taken=100, step_seconds=0.5, trained=100), 50.0
    )
    assert forecast.left(50.0).seconds == pytest.approx(50.0 * OVERHEAD, rel=0.05)
    assert forecast.left(60.0).seconds == pytest.approx(forecast.left(50.0).seconds - 10.0)
    assert forecast.left(500.0).seconds > 0.0, "it has not ended"


def test_one_group_that_is_longer_than_all_others_decides_on_many_workers() -> None:
    forecast = Forecast(at_once=4, timed={work("").kind: 1.0})
    forecast.expect([work("long", steps=1000.0), work("short"), work("too", place="x")])
    assert forecast.left(0.0).seconds == pytest.approx(1000.0 * OVERHEAD)


def test_cells_that_a_search_will_ask_for_are_in_the_time_left() -> None:
    forecast = Forecast(timed={work("").kind: 1.0})
    forecast.expect([work("a")])
    forecast.more = [work("")] * 3
    forecast.pauses = 10.0
    assert forecast.left(0.0).seconds == pytest.approx(4 * 100 * OVERHEAD + 10.0)
