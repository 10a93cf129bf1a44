"""One seed at one learning rate: the run before the shocks, its undisturbed twin, its null twins, and each shock."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from stresstest.engine.guard import Guard
from stresstest.engine.outcomes import Reference
from stresstest.engine.schedules import schedule
from stresstest.experiments.shock.damage import LAST, MORE_NULLS, Array, Damage, Twin, damage_of
from stresstest.experiments.shock.disturbance import NONE, Disturbance
from stresstest.experiments.shock.guards import GuardedTraining, parse_guard
from stresstest.experiments.shock.line import UNGUARDED, Course, Line
from stresstest.experiments.shock.moved import first_move
from stresstest.experiments.shock.noise import null_noise
from stresstest.experiments.shock.search import DoseSearch
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import ChosenShock
from stresstest.measurements.base import Bench, Measurement
from stresstest.measurements.scheduled import cap
from stresstest.results.bracket import Bracket, finite
from stresstest.results.outcome import TRAINED

_AGAIN = 3  # times as many null twins, where the noise of the first few hides a scar
_POINTS = 80  # of a curve in the record, at most


class Arm:
    """What the shocks of one seed share, with or without a guard."""

    def __init__(self, bench: Bench, spec: ShockSpec, seed: int, guard: str, peak: float) -> None:
        self.spec = spec
        self._seed = seed
        self._guard = parse_guard(guard).training if guard else UNGUARDED
        self._bench = _guarded(bench, self._guard)
        self._lr_N = peak * schedule("linear", spec.warmup_steps, spec.decay, spec.total)
        self._key = f"{seed} {guard} {peak!r} "
        self._undisturbed, self._whole_N, self._outcome, self._untaught = self._once("twin", self._train)
        self._nulls = [self._null(k) for k in range(spec.nulls)]
        if self.twin.is_noisy:
            self._nulls += [self._null(k) for k in range(spec.nulls, max(MORE_NULLS, _AGAIN * spec.nulls))]
            del self.twin

    @cached_property
    def twin(self) -> Twin:
        """The undisturbed run, and what it does by chance."""
        return Twin(self._undisturbed.loss_T, np.stack([null.loss_T for null in self._nulls]), self._untaught)

    def measure(self, shock: ChosenShock) -> Measurement:
        """One shock at every dose that the search asks for."""
        record, curves = self._beside()
        if record["outcome"]:
            return Measurement({}, {"shock": record}, curves)
        doses = self.spec.doses(shock)
        standard = shock.only if shock.only is not None else shock.shock.dose.standard
        search = DoseSearch(doses, doses.index(standard) if standard in doses else len(doses) - 1)
        courses: dict[int, Course] = {}
        damages: dict[int, Damage] = {}
        while (place := search.ask()) is not None:
            courses[place] = self._once(f"{shock.label} {doses[place]!r}", partial(self._shocked, shock, doses[place]))
            damages[place] = damage_of(courses[place].loss_T, self.twin, shock.lasts(doses[place]))
            search.tell(place, damages[place].survival)
        first, tried = damages[search.first], sorted(damages)
        moved = self._first_move(courses[search.first])
        record |= {
            "outcome": first.survival,
            "dose": doses[search.first],
            "monotone": search.monotone,
            "doses": [_dose_record(doses[place], damages[place]) for place in tried],
            "curve": _thinned(courses[search.first].loss_T, self.spec.after, self.spec.after),
            "steps": record["steps"] + len(tried) * self.spec.horizon,
            **({} if moved is None else {"moved": moved}),
        }
        curves["shock_dose"] = np.array([doses[place] for place in tried])
        curves["shock_loss"] = np.stack([courses[place].loss_T for place in tried])
        metrics = _metrics(first, self.twin, self.spec.horizon - shock.lasts(doses[search.first]))
        if shock.only is None:
            metrics["shock_tolerance"] = search.tolerance("recovered")
            metrics["break_tolerance"] = search.tolerance("scarred")
        return Measurement(metrics, {"shock": record}, curves)

    @property
    def _trains(self) -> bool:
        """Whether the undisturbed run trains, and not by chance."""
        return self.twin.tells and self._outcome in TRAINED

    def _beside(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the record and the curves of every shock have of the twins."""
        twins = self.spec.after + (1 + len(self._nulls)) * self.spec.horizon
        record = {
            "outcome": "" if self._trains else "untrained",
            "twin_outcome": self._outcome,
            "peak_lr": float(self._lr_N.max()),
            "learned": finite(self.twin.learned),
            "noise": finite(self.twin.noise),
            "floor": finite(self.twin.floor),
            "nulls": len(self._nulls),
            "steps": round(twins / len(self.spec.shock)),
            "doses": [],
            "twin_curve": _thinned(self._whole_N, 0, self.spec.after),
        }
        return record, {
            "twin_lr": self._lr_N,
            "twin_loss": self._whole_N,
            "null_loss": self.twin.null_NT,
        }

    def _first_move(self, shocked: Course) -> Mapping[str, Any] | None:
        twin, names = self._undisturbed, self._bench.model.layout.names()
        if not len(shocked.frames) or not len(twin.frames) or not len(self._nulls[0].frames):
            return None
        return first_move(names, shocked, twin, self._nulls[0])

    @cached_property
    def _base(self) -> Line:
        """The run up to the shock."""
        base = Line.fresh(self._bench, self._seed, self._lr_N)
        base.go(self.spec.after)
        return base

    def _train(self) -> tuple[Course, Array, str, float]:
        """The undisturbed run, its losses from the start on, [N], what became of it, and the loss before it."""
        line = self._base.branch()
        line.go(len(self._lr_N))
        self._bench.finish(line.population, [line.run])
        untaught = self._loss_before(line.run.detector.reference)
        return line.read(self.spec.after), line.losses_from(0), line.run.detector.judgement().outcome, untaught

    def _loss_before(self, reference: Reference) -> float:
        """The loss of having learned nothing: the constant predictor's, or the start's where that is surely lower.

        What a model brought to the run is not what the run taught it: measured from the baseline, all that fine-tuning
        gains could be lost without a scar. The start is taken on the batches of the end, whose luck both have.
        """
        if reference.brought:
            start, batches, seeds = Line.fresh(self._bench, self._seed, self._lr_N), self._bench.batches, [self._seed]
            steps = range(max(self.spec.after, self.spec.total - LAST), self.spec.total)
            return statistics.fmean(float(start.population.step_loss(batches.batch(seeds, step))) for step in steps)
        baseline = float(self._bench.batches.baseline_loss)
        return cap(reference, self._bench.rules) if math.isnan(baseline) else baseline

    def _null(self, number: int) -> Course:
        name = f"null {number}"
        doing = f"null twin {number + 1}"
        null = Disturbance(state=null_noise)  # to which nothing happened that a guard would answer
        found: Course = self._once(name, partial(self._disturbed, null, name, doing, UNGUARDED))
        return found

    def _shocked(self, shock: ChosenShock, dose: float) -> Course:
        drawn = f"{shock.shock.name} {sorted(shock.options.items())}"
        disturbance = shock.at(dose)
        guard = UNGUARDED if disturbance is NONE else self._guard
        return self._disturbed(disturbance, drawn, f"{shock.label} {shock.words(dose)}".strip(), guard)

    def _disturbed(self, disturbance: Disturbance, drawn: str, doing: str, guard: GuardedTraining) -> Course:
        line = self._base.branch(doing)
        line.shocked(disturbance, drawn, guard)
        return line.read(self.spec.after)

    def _once(self, name: str, train: Callable[[], Any]) -> Any:
        """What a line of training gave; where the group was interrupted after it, as it was kept."""
        key = hashlib.blake2b((self._key + name).encode(), digest_size=12).hexdigest()
        found = self._bench.journal.finished(key)
        if found is None:
            found = train()
            self._bench.journal.finish(key, found)
        return found


def _guarded(bench: Bench, guard: GuardedTraining) -> Bench:
    training = bench.training
    if guard.clip_norm is not None:
        training = replace(training, clip_norm=guard.clip_norm)
    if guard.options:
        training = replace(training, options={**training.options, **guard.options})
    if guard.skip is not None:
        training = replace(training, guard=Guard(**guard.skip))
    return bench if training is bench.training else replace(bench, training=training)


def _thinned(loss_T: Array, first: int, after: int) -> list[tuple[int, float]]:
    """(step, loss) for charts from a step on: the largest of each stretch, so that spikes survive.

    A stretch begins at the step of the shock, so that a run and its twin have the same ones.
    """
    total = first + len(loss_T)
    stretch = math.ceil(total / (_POINTS - 1))
    starts = sorted({first, *range(after % stretch, total, stretch)} - set(range(first)))
    stretches = ((at, loss_T[at - first : end - first]) for at, end in pairwise([*starts, total]))
    return [(at, float(seen.max())) for at, some in stretches if len(seen := some[np.isfinite(some)])]


def _dose_record(dose: float, damage: Damage) -> dict[str, Any]:
    return {
        "dose": dose,
        "outcome": damage.survival,
        "peak_excess": finite(damage.peak_excess),
        "recovery_steps": finite(damage.recovery_steps),
        "lasting_damage": finite(damage.lasting),
        "lasting_share": finite(damage.lasting_share),
        "lasting_steps": finite(damage.lasting_steps),
    }


def _metrics(damage: Damage, twin: Twin, after: int) -> dict[str, Bracket]:
    """Of the standard dose; of a run that broke, what is known: at least."""
    gone = not math.isfinite(damage.lasting)
    recovery = damage.recovery_steps
    return {
        "peak_excess": Bracket(low=finite(damage.peak_excess), high=None if gone else finite(damage.peak_excess)),
        "recovery_steps": Bracket(low=after, high=None) if math.isinf(recovery) else Bracket.exactly(recovery),
        "lasting_damage": Bracket(low=0.5 * twin.learned, high=None) if gone else Bracket.exactly(damage.lasting),
        "lasting_share": Bracket(low=0.5, high=None) if gone else Bracket.exactly(damage.lasting_share),
    }
