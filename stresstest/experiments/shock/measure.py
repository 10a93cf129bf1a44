"""How shocks are planned and trained: the boundary of one seed, then each shock of every seed beside its twin."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stresstest.engine.guard import Guard
from stresstest.engine.schedules import schedule
from stresstest.experiments.plan import Plan, canonical, make_plan, no_more
from stresstest.experiments.shock.checks import check_shocks
from stresstest.experiments.shock.damage import MORE_NULLS, Damage, Twin, damage_of
from stresstest.experiments.shock.disturbance import Disturbance
from stresstest.experiments.shock.guards import GuardedTraining, parse_guard
from stresstest.experiments.shock.line import UNGUARDED, Array, Line
from stresstest.experiments.shock.noise import null_noise
from stresstest.experiments.shock.search import DoseSearch
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import ChosenShock, parse_shock
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.boundary import measure_boundary
from stresstest.measurements.scheduled import cap
from stresstest.results.bracket import Bracket, finite
from stresstest.results.outcome import TRAINED
from stresstest.results.records import Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import RunStore

# What decides which shocks there are, and not what becomes of one.
_WHICH = frozenset({"depth", "shock", "guard", "peak_lr", "lr_share"})
_AGAIN = 3  # times more


def plan(spec: ShockSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    spec = canonical(spec)
    points = [] if spec.peak_lr is None else [_point(*pair, spec.peak_lr) for pair in _pairs(spec)]
    search = {"shock": spec.shock, "guard": spec.guard, "lr_share": spec.lr_share, "peak_lr": spec.peak_lr}
    more = no_more if spec.peak_lr is not None else refine
    points = points or [{}]
    made = make_plan("shock", spec, [spec.depth], _WHICH, measure_shocks, points=points, refine=more, search=search)
    if spec.peak_lr is None:
        made.cells[:] = [cell for cell in made.cells if cell.seed == spec.seeds[0]]
    check_shocks(made, spec)
    return replace(made, together=_arm)


def refine(plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
    """The cells of every variant whose boundary is known, at its share of that."""
    spec = plan.spec
    assert isinstance(spec, ShockSpec), "the plan of a shock"
    found = []
    for variant in spec.variant:
        peak = peak_lr(spec, variant, cells)
        if peak is not None:
            points = [_point(shock, guard, peak) for shock, guard in _pairs(spec)]
            found += [plan.cell(variant, spec.depth, seed, point) for seed in spec.seeds for point in points]
    return found


def peak_lr(spec: ShockSpec, variant: str, cells: Sequence[Cell]) -> float | None:
    """The learning rate that a variant trains at; `None` where its boundary is not known, or nothing trained."""
    if spec.peak_lr is not None:
        return spec.peak_lr
    for cell in cells:
        if cell.variant == variant and "shock" not in cell.point and "max_stable_lr" in cell.metrics:
            stable = cell.metrics["max_stable_lr"].low
            return None if stable is None else spec.lr_share * stable
    return None


def _pairs(spec: ShockSpec) -> list[tuple[str, str]]:
    return [(shock, guard) for guard in spec.guards for shock in spec.shock]


def _point(shock: str, guard: str, peak: float) -> dict[str, Any]:
    return {"shock": shock, **({"guard": guard} if guard else {}), "peak_lr": peak}


def _arm(cell: CellPlan) -> tuple[Any, ...]:
    """What the cells share that branch from one run."""
    return (cell.seed, cell.point.get("guard", ""), cell.point.get("peak_lr"))


def measure_shocks(bench: Bench, spec: ShockSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Each cell's shock at every dose that is asked for, beside the twin of its seed; or the boundary."""
    arms: dict[tuple[Any, ...], list[CellPlan]] = {}
    for cell in cells:
        arms.setdefault(_arm(cell), []).append(cell)
    found: dict[str, Measurement] = {}
    for (seed, guard, peak), mine in arms.items():
        if peak is None:
            found |= zip((cell.key for cell in mine), measure_boundary(bench, spec, mine), strict=True)
            continue
        arm = Arm(bench, spec, seed, guard, peak)
        found |= {cell.key: arm.measure(parse_shock(cell.point["shock"])) for cell in mine}
    return [found[cell.key] for cell in cells]


class Arm:
    """One seed at one learning rate, with or without a guard: the run before the shock, its twin, its null twins."""

    def __init__(self, bench: Bench, spec: ShockSpec, seed: int, guard: str, peak: float) -> None:
        self.spec = spec
        self._seed = seed
        self._guard = parse_guard(guard).training if guard else UNGUARDED
        self._bench = _guarded(bench, self._guard)
        self._lr_N = peak * schedule("linear", spec.warmup_steps, spec.decay, spec.total)
        self._key = f"{seed} {guard} {peak!r} "
        self._base: Line | None = None
        self.reference = bench.starts(bench.populate([seed], [peak]), [seed])[0].reference
        self._twin_line = self._once("twin", self._trained)
        self._nulls = [self._null(k) for k in range(spec.nulls)]
        if self.twin.is_noisy:
            self._nulls += [self._null(k) for k in range(spec.nulls, max(MORE_NULLS, _AGAIN * spec.nulls))]

    @property
    def base(self) -> Line:
        """The run up to the shock."""
        if self._base is None:
            self._base = Line.fresh(self._bench, self._seed, self._lr_N)
            self._base.go(self.spec.after)
        return self._base

    @property
    def twin(self) -> Twin:
        """The undisturbed run, and what it does by chance."""
        baseline = self._bench.batches.baseline_loss
        if math.isnan(baseline):
            baseline = cap(self.reference, self._bench.rules)
        return Twin(self._twin_line["loss"], np.stack(self._nulls), baseline)

    @property
    def _trains(self) -> bool:
        """Whether the undisturbed run trains, and not by chance."""
        return self.twin.trains and self._twin_line["outcome"] in TRAINED

    def measure(self, shock: ChosenShock) -> Measurement:
        """One shock at every dose that the search asks for."""
        outcome = self._twin_line["outcome"]
        record: dict[str, Any] = {
            "outcome": "" if self._trains else "untrained",
            "twin_outcome": outcome,
            "peak_lr": float(self._lr_N.max()),
            "learned": finite(self.twin.learned),
            "noise": finite(self.twin.noise),
            "floor": finite(self.twin.floor),
            "nulls": len(self._nulls),
            "steps": self._steps_of_twins(),
            "doses": [],
            "twin_curve": _thinned(self._twin_line["whole"], 0),
        }
        curves = {
            "twin_lr": self._lr_N,
            "twin_loss": self._twin_line["whole"],
            "null_loss": np.stack(self._nulls),
        }
        if record["outcome"]:
            return Measurement({}, {"shock": record}, curves)
        doses = self.spec.doses(shock)
        standard = shock.only if shock.only is not None else shock.shock.dose.standard
        search = DoseSearch(doses, doses.index(standard) if standard in doses else len(doses) - 1)
        losses: dict[int, Array] = {}
        damages: dict[int, Damage] = {}
        while (place := search.ask()) is not None:
            dose = doses[place]
            losses[place] = self._once(f"{shock.label} {dose!r}", lambda d=dose: self._shocked(shock, d))
            damages[place] = damage_of(losses[place], self.twin, shock.lasts(dose))
            search.tell(place, damages[place].survival)
        first = damages[search.first]
        record |= {
            "outcome": first.survival,
            "dose": doses[search.first],
            "monotone": search.monotone,
            "doses": [_dose_record(doses[place], damages[place]) for place in sorted(damages)],
            "curve": _thinned(losses[search.first], self.spec.after),
            "steps": record["steps"] + len(damages) * self.spec.horizon,
        }
        curves |= {
            "shock_dose": np.array([doses[place] for place in sorted(losses)]),
            "shock_loss": np.stack([losses[place] for place in sorted(losses)]),
        }
        metrics = _metrics(first, self.twin, self.spec.horizon - shock.lasts(doses[search.first]))
        if shock.only is None:
            metrics["shock_tolerance"] = search.tolerance("recovered")
            metrics["break_tolerance"] = search.tolerance("scarred")
        return Measurement(metrics, {"shock": record}, curves)

    def _steps_of_twins(self) -> int:
        return round((self.spec.after + (1 + len(self._nulls)) * self.spec.horizon) / len(self.spec.shock))

    def _trained(self) -> dict[str, Any]:
        line = self.base.branch()
        line.go(len(self._lr_N))
        self._bench.finish(line.population, [line.run])
        return {
            "loss": line.losses_from(self.spec.after),
            "whole": line.losses_from(0),
            "outcome": line.run.detector.judgement().outcome,
        }

    def _null(self, number: int) -> Array:
        name, doing = f"null {number}", f"null twin {number + 1}"
        found: Array = self._once(name, lambda: self._disturbed(Disturbance(state=null_noise), name, doing))
        return found

    def _shocked(self, shock: ChosenShock, dose: float) -> Array:
        drawn = f"{shock.label} {shock.shock.dose.name}"
        return self._disturbed(shock.at(dose), drawn, f"{shock.label} {shock.words(dose)}".strip())

    def _disturbed(self, disturbance: Disturbance, drawn: str, doing: str) -> Array:
        line = self.base.branch(doing)
        line.shocked(disturbance, drawn, self._guard)
        return line.losses_from(self.spec.after)

    def _once(self, name: str, train: Any) -> Any:
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


def _thinned(loss_T: Array, first: int, points: int = 80) -> list[tuple[int, float]]:
    """(step, loss) for charts from a step on: the largest of each stretch, so that spikes survive."""
    stretch = max(1, math.ceil(len(loss_T) / points))
    stretches = ((first + t, loss_T[t : t + stretch]) for t in range(0, len(loss_T), stretch))
    return [(step, float(seen.max())) for step, some in stretches if len(seen := some[np.isfinite(some)])]


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
