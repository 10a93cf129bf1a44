"""When to raise an alarm while a run trains: at once and provisionally, then confirmed or taken back by the rules.

The loss of a step is compared with the losses right before it, in units of their own scatter, and with the largest
rise that this run has seen so far and outlived. What follows is judged by `engine/divergence.py` on a reference that
is made of the run's first losses.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from stresstest.engine.divergence import Detector
from stresstest.engine.outcomes import Outcome, Reference, Rules

_SETTINGS = frozenset({"reference", "rules", "patience", "_fresh"})  # of a detector
_KEPT = frozenset(
    {
        *("_first", "_recent", "_steps", "_taken", "_settling", "_pair_record", "_single_record", "_open", "_open_for"),
        *(
            "_broken_for",
            "_sound_for",
            "_confirmed",
            "_nonfinite_in_a_row",
            "_lowest_level",
            "_rise",
            "_unit",
            "_limit",
        ),
    }
)
EventKind = Literal["alarm", "confirmed", "taken-back", "recovered"]
BROKEN: frozenset[str] = frozenset({"exploded", "relapsed", "nonfinite"})


@dataclass(frozen=True)
class AlarmRules:
    """The constants of the provisional alarm; scatter is the median distance from a loss to the next.

    before: losses that it takes to know the scatter; none is judged earlier, unless it is not finite.
    level_of, scatter_of: losses before the pair; the lower of their two medians is the level, the scatter of the more
        of them the unit.
    pair, single: how many scatters two losses in a row, or one alone, must at least rise above the level.
    pair_record, single_record: and how many times the largest such rise that this run outlived.
    settle: losses after which a rise counts as outlived: a climb would otherwise raise its own bar with each step.
    share, single_share: and of what was learned so far, the share that the rise gives back.
    few: losses after which the largest rise is half known: earlier ones must be larger by few / losses.
    outlived: after an alarm was taken back, a rise must be so many times as large as that one.
    wait: steps after which an alarm that the rules do not confirm is taken back.
    slow: steps for which the rules must call a run relapsed that raised no alarm (exploded: a fourth of it), or
        sound again after a break.
    """

    before: int = 20
    level_of: int = 10
    scatter_of: int = 40
    pair: float = 5.0
    single: float = 20.0
    pair_record: float = 2.5
    single_record: float = 5.0
    settle: int = 10
    share: float = 0.15
    single_share: float = 0.5
    few: float = 60.0
    outlived: float = 2.0
    wait: int = 50
    slow: int = 20


@dataclass(frozen=True)
class Event:
    """What became of an alarm at a step. first_bad_step: of the first loss of the rise."""

    kind: EventKind
    step: int
    loss: float
    first_bad_step: int
    level_before: float
    outcome: Outcome | Literal[""] = ""


class Alarm:
    """Takes losses in the order of their steps; each `update` returns what is to be told, mostly nothing.

    baseline: the loss of the best constant predictor, where it is known. skips_nonfinite: whether a loss scaler skips
    steps that are not finite; then only the third in a row is a break.
    """

    def __init__(
        self,
        baseline: float | None = None,
        skips_nonfinite: bool = False,
        rules: AlarmRules = AlarmRules(),
        outcome_rules: Rules = Rules(),
    ) -> None:
        self.baseline = baseline
        self.rules = rules
        self._outcome_rules = outcome_rules
        self._may_skip = 2 if skips_nonfinite else 0
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=rules.scatter_of + 2)
        self._steps: deque[int] = deque(maxlen=400)  # of the detector's last losses
        self._taken = 0  # losses that the detector has
        self._detector: Detector | None = None
        self._settling: deque[tuple[float, float]] = deque()  # the last losses' rises, alone and in a pair
        self._pair_record = 0.0
        self._single_record = 0.0
        self._open: Event | None = None
        self._open_for = 0
        self._broken_for = 0  # steps, by the rules, without an alarm
        self._sound_for = 0  # steps, by the rules, after a break
        self._confirmed = False
        self._nonfinite_in_a_row = 0
        self._lowest_level = math.inf
        self._rise = (0.0, 0.0)  # of the alarm under way, alone and in a pair, in scatters
        self._unit = 0.0  # the scatter at its start
        self._limit = math.inf  # a level below it takes the alarm back

    @property
    def state(self) -> Literal["waiting", "calm", "alarm", "broken"]:
        """Waiting for a scale, calm, provisionally alarmed, or broken as confirmed by the rules."""
        if self._confirmed:
            return "broken"
        if self._open is not None:
            return "alarm"
        return "waiting" if self._detector is None else "calm"

    @property
    def over(self) -> bool:
        """The loss is not finite for good: no later step is looked at."""
        return self._confirmed and self._open is not None and self._open.outcome == "nonfinite"

    @property
    def first_bad_step(self) -> int | None:
        """Of the alarm or break under way."""
        return None if self._open is None else self._open.first_bad_step

    def update(self, loss: float, step: int) -> tuple[Event, ...]:
        """Take the loss of a step."""
        if self.over:
            return ()
        if not math.isfinite(loss):
            return self._take_nonfinite(loss, step)
        self._nonfinite_in_a_row = 0
        if self._detector is None:
            self._wait(loss, step)
            return ()
        events = self._provisional(loss, step) if self._open is None else ()
        self._recent.append(loss)
        self._judge_by_rules(loss, step)
        return (*events, *self._resolve(loss, step))

    def outcome(self) -> Outcome | Literal[""]:
        """The rules' word on the curve so far, taken as the whole; empty where there were too few losses for one."""
        if self.over:
            return "nonfinite"
        return "" if self._detector is None else self._detector.judgement().outcome

    @property
    def best_loss(self) -> float:
        """The lowest level so far: the median of five losses."""
        return math.nan if self._detector is None else self._detector.judgement().best_loss

    def state_dict(self) -> dict[str, Any]:
        """Its state in plain numbers and lists, as a checkpoint can keep it."""
        kept = {name: _plain(value) for name, value in vars(self).items() if name in _KEPT}
        detector = self._detector
        if detector is not None:
            kept["detector"] = {name: _plain(value) for name, value in vars(detector).items() if name not in _SETTINGS}
            kept["reference"] = asdict(detector.reference)
        return kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for name in _KEPT & set(state):
            setattr(self, name, _like(getattr(self, name), state[name]))
        self._open = None if state["_open"] is None else Event(**state["_open"])
        self._detector = None
        if "detector" in state:
            self._detector = Detector(Reference(**state["reference"]), self._outcome_rules, patience=math.inf)
            for name, value in state["detector"].items():
                setattr(self._detector, name, _like(getattr(self._detector, name), value))

    # Before there is a scale

    def _wait(self, loss: float, step: int) -> None:
        self._first.append(loss)
        self._recent.append(loss)
        self._steps.append(step)
        if len(self._first) < self.rules.before:
            return
        self._detector = Detector(reference_of(self._first, self.baseline), self._outcome_rules, patience=math.inf)
        for first in self._first:
            self._detector.update(first)
        self._taken = len(self._first)

    # The provisional alarm

    def _provisional(self, loss: float, step: int) -> tuple[Event, ...]:
        """Whether this loss, or it and the one before, stand out; where they do not, they are what is usual."""
        *before, last = self._recent
        level = min(statistics.median(before[-self.rules.level_of :]), statistics.median(before))
        scatter = _scatter(before) or 1e-12 * max(1.0, abs(level))
        self._lowest_level = min(self._lowest_level, level)
        single, pair = loss - level, min(loss, last) - level
        learned = max(self._start - self._lowest_level, 0.1 * abs(self._start))
        rules = self.rules
        unsure = 1.0 + rules.few / self._taken  # the largest rise so far is of so few losses
        self._settle()
        least_pair = max(rules.pair, rules.pair_record * self._pair_record) * unsure * scatter
        least_single = max(rules.single, rules.single_record * self._single_record) * unsure * scatter
        by_pair = pair > max(least_pair, rules.share * learned)
        by_single = single > max(least_single, rules.single_share * learned)
        if not (by_pair or by_single):
            self._settling.append((single / scatter, pair / scatter))
            return ()
        self._settling.clear()
        first_bad = self._steps[-1] if by_pair else step
        self._open = Event("alarm", step, loss, first_bad, level)
        self._open_for = 0
        self._rise, self._unit = (single / scatter, pair / scatter), scatter
        self._limit = level + 0.5 * (pair if by_pair else single)
        return (self._open,)

    def _settle(self) -> None:
        """Rises that the run has outlived are what is usual."""
        while len(self._settling) > self.rules.settle:
            single, pair = self._settling.popleft()
            self._single_record = max(self._single_record, single)
            self._pair_record = max(self._pair_record, pair)

    @property
    def _start(self) -> float:
        assert self._detector is not None
        return min(self._detector.reference.initial_loss, self._detector.reference.baseline_loss)

    # What the rules make of it

    def _judge_by_rules(self, loss: float, step: int) -> None:
        assert self._detector is not None
        self._detector.update(loss)
        self._steps.append(step)
        self._taken += 1

    def _resolve(self, loss: float, step: int) -> tuple[Event, ...]:
        assert self._detector is not None
        judgement = self._detector.judgement()
        broken = judgement.outcome in BROKEN
        if self._confirmed:
            self._sound_for = 0 if broken else self._sound_for + 1
            return self._end("recovered", loss, step) if self._sound_for >= self.rules.slow else ()
        if broken:
            onset = judgement.onset_step if judgement.onset_step is not None else judgement.explosion_step
            events: tuple[Event, ...] = ()
            if self._open is None:
                self._broken_for += 1
                if self._broken_for < self.rules.slow / (4 if judgement.outcome == "exploded" else 1):
                    return ()
                self._open = Event("alarm", step, loss, self._step_of(onset), self._lowest_level)
                self._rise, self._unit, events = (0.0, 0.0), 0.0, (self._open,)
            first_bad = min(self._open.first_bad_step, self._step_of(onset))
            self._confirmed, self._sound_for = True, 0
            self._open = Event("confirmed", step, loss, first_bad, self._open.level_before, judgement.outcome)
            return (*events, self._open)
        self._broken_for = 0
        if self._open is None:
            return ()
        self._open_for += 1
        if self._open_for == 2 and self._unit:  # the loss after one that was alone
            pair = (min(loss, self._recent[-2]) - self._open.level_before) / self._unit
            self._rise = self._rise[0], max(self._rise[1], pair)
        back = self._open_for >= 5 and statistics.median(list(self._recent)[-5:]) <= self._limit
        return self._end("taken-back", loss, step) if back or self._open_for >= self.rules.wait else ()

    def _end(self, kind: EventKind, loss: float, step: int) -> tuple[Event, ...]:
        """The rise is over: the next must be larger to be told."""
        assert self._open is not None
        event = Event(kind, step, loss, self._open.first_bad_step, self._open.level_before)
        single, pair = self._rise
        rules = self.rules
        self._single_record = max(self._single_record, rules.outlived * single / rules.single_record)
        self._pair_record = max(self._pair_record, rules.outlived * pair / rules.pair_record)
        self._open, self._confirmed = None, False
        return (event,)

    def _step_of(self, index: int | None) -> int:
        """The step of a loss of the detector's."""
        if index is None:
            return self._steps[-1]
        return self._steps[max(0, index - self._taken + len(self._steps))]

    # Not finite

    def _take_nonfinite(self, loss: float, step: int) -> tuple[Event, ...]:
        level = statistics.median(list(self._recent)[-5:]) if self._recent else math.nan
        first = self._open.first_bad_step if self._open is not None else step
        self._nonfinite_in_a_row += 1
        events: tuple[Event, ...] = ()
        if self._open is None:
            self._open, self._open_for = Event("alarm", step, loss, first, level), 0
            self._rise, self._unit, self._limit = (0.0, 0.0), 0.0, math.inf
            events = (self._open,)
        if self._nonfinite_in_a_row <= self._may_skip:
            return events
        self._open = Event("confirmed", step, loss, first, level, "nonfinite")
        self._confirmed = True
        return (*events, self._open)


def reference_of(first: list[float], baseline: float | None = None) -> Reference:
    """What the rules judge by, from a run's own first losses.

    The start is the median of three, unless they already lie far above the first of all: a run may break at once.
    """
    scatter = 1.048 * _scatter(first)  # standard deviation, if normal
    start = min(statistics.median(first[:3]), first[0] + 3.0 * scatter)
    known = start if baseline is None else baseline
    return Reference(start, scatter, known, known, noisy=True)


def _scatter(losses: list[float]) -> float:
    """The median distance from a loss to the next."""
    return statistics.median(abs(b - a) for a, b in pairwise(losses)) if len(losses) > 1 else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, Event):
        return asdict(value)
    return list(value) if isinstance(value, deque | tuple) else value


def _like(present: Any, value: Any) -> Any:
    """A plain value as what is there now."""
    if isinstance(present, deque):
        return deque(value, maxlen=present.maxlen)
    return tuple(value) if isinstance(present, tuple) else value
