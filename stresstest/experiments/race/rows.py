"""What the cells of a race come to.

Every entrant is judged at its own best peak LR: that at which its median over seeds is at the target soonest. The
ratio to the reference, the first entrant, is taken seed by seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.experiments.arms import Arm, max_stable_lr
from stresstest.experiments.race.findings import race_findings
from stresstest.experiments.race.spec import RaceSpec
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Bracket, Cell, MetricSummary, SummaryRow, count, summarise
from stresstest.results.scores import KEPT_SCORES
from stresstest.results.summary import Reduced


@dataclass(frozen=True)
class Entrant:
    """One variant with one optimizer, at its best peak LR: what its runs became, by seed."""

    arm: Arm
    peak_lr: float

    def cell(self, seed: int) -> Cell:
        """The run of a seed."""
        return self.arm.cells[0, self.peak_lr][seed]


def reduce(spec: RaceSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row an entrant, the reference first, and what they say."""
    arms = _arms(spec, cells)
    if not arms:
        return Reduced([], [], [])
    targets = targets_of(spec, cells)
    entrants = [Entrant(arm, _soonest(spec, arm, targets)) for arm in arms]
    rows = [_row(spec, entrant, entrants[0], targets) for entrant in entrants]
    return Reduced(rows, [], race_findings(rows, spec.model_dump(mode="json")))


def targets_of(spec: RaceSpec, cells: Sequence[Cell]) -> dict[int, float]:
    """The loss that each seed races to: NaN where the reference learned nothing."""
    arms = _arms(spec, cells)
    if not arms:
        return {}
    own = Entrant(arms[0], _lowest_loss(arms[0]))
    return {seed: _end(own.cell(seed)) if spec.target_loss is None else spec.target_loss for seed in own.arm.seeds}


def steps_to(cell: Cell, target: float, most: int) -> Bracket:
    """Steps before the level of the loss is first at the target; open where it never was."""
    if math.isnan(target):
        return Bracket(low=None, high=None)
    there = [step for step, level in cell.recipe["progress"] if level <= target]
    return Bracket.exactly(there[0]) if there else Bracket(low=most, high=None)


def _arms(spec: RaceSpec, cells: Sequence[Cell]) -> list[Arm]:
    places: dict[tuple[str, str], dict[tuple[int, float], dict[int, Cell]]] = {
        (variant, optimizer): {} for variant in spec.variant for optimizer in spec.optimizer
    }
    for cell in cells:
        if cell.status == "done":
            mine = places[cell.variant, cell.point["optimizer"]]
            mine.setdefault((0, cell.point["peak_lr"]), {})[cell.seed] = cell
    return [
        Arm(variant, spec.depth, optimizer, "linear", dict(sorted(mine.items())))
        for (variant, optimizer), mine in places.items()
        if mine and Arm(variant, spec.depth, optimizer, "linear", mine).seeds
    ]


def _end(cell: Cell) -> float:
    """The lowest level of a run; NaN of one that never had any."""
    found = cell.recipe["progress"]
    return float(found[-1][1]) if found else math.nan


def _lowest_loss(arm: Arm) -> float:
    return min(arm.lrs, key=lambda lr: (statistics.median(arm.loss(0, lr, seed) for seed in arm.seeds), lr))


def _soonest(spec: RaceSpec, arm: Arm, targets: Mapping[int, float]) -> float:
    """The peak LR whose median over seeds is soonest at the target; where none is there, that of the lowest loss."""

    def key(lr: float) -> tuple[float, float]:
        seeds = [seed for seed in arm.seeds if seed in targets]
        steps = [steps_to(arm.cells[0, lr][seed], targets[seed], spec.train_steps) for seed in seeds]
        counted = [math.inf if bracket.high is None else float(bracket.high) for bracket in steps]
        return statistics.median(counted), statistics.median(arm.loss(0, lr, seed) for seed in arm.seeds)

    return min(arm.lrs, key=key)


def _row(spec: RaceSpec, entrant: Entrant, reference: Entrant, targets: Mapping[int, float]) -> SummaryRow:
    arm = entrant.arm
    cells = {seed: entrant.cell(seed) for seed in arm.seeds}
    steps = {seed: steps_to(cell, targets[seed], spec.train_steps) for seed, cell in cells.items() if seed in targets}
    there = set(reference.arm.seeds)
    theirs = {seed: steps_to(reference.cell(seed), targets[seed], spec.train_steps) for seed in steps if seed in there}
    metrics = {
        "validation_loss": _exact("validation_loss", {seed: cell.recipe["loss"] for seed, cell in cells.items()})
    }
    metrics["max_stable_lr"] = summarise("max_stable_lr", {seed: max_stable_lr(arm, 0, seed) for seed in arm.seeds})
    if steps:
        metrics["steps_to_target"] = summarise("steps_to_target", steps)
        tokens = spec.batch_size * (1 if spec.task == "images" else spec.seq_len)
        metrics["tokens_to_target"] = summarise("tokens_to_target", _times(steps, dict.fromkeys(steps, tokens)))
        seconds = {seed: cell.metrics["seconds_per_step"].low or 0.0 for seed, cell in cells.items()}
        metrics["seconds_to_target"] = summarise("seconds_to_target", _times(steps, seconds))
        if faster := speedups(theirs, steps):
            metrics["speedup"] = summarise("speedup", faster)
    metrics |= {
        name: _exact(name, {seed: cell.metrics[name].low for seed, cell in cells.items() if name in cell.metrics})
        for name in KEPT_SCORES
        if any(name in cell.metrics for cell in cells.values())
    }
    return SummaryRow(
        variant=arm.variant,
        depth=spec.depth,
        optimizer=arm.optimizer,
        metrics=metrics,
        outcomes=count(cell.recipe["outcome"] for cell in cells.values()),
        point={"peak_lr": entrant.peak_lr},
    )


def speedups(reference: Mapping[int, Bracket], steps: Mapping[int, Bracket]) -> dict[int, Bracket]:
    """How many times as fast as the reference, seed by seed; one-sided where one of the two is not there."""
    found = {}
    for seed, other in reference.items():
        mine = steps[seed]
        if other.low is None or mine.low is None or (other.high is None and mine.high is None):
            continue  # neither is there: nothing is known
        ratio = max(1.0, other.low) / max(1.0, mine.low)
        found[seed] = Bracket(low=None if mine.high is None else ratio, high=None if other.high is None else ratio)
    return found


def _times(steps: Mapping[int, Bracket], factors: Mapping[int, float]) -> dict[int, Bracket]:
    return {
        seed: Bracket(
            low=None if b.low is None else b.low * factors[seed],
            high=None if b.high is None else b.high * factors[seed],
        )
        for seed, b in steps.items()
    }


def _exact(name: str, values: Mapping[int, float | None]) -> MetricSummary:
    return summarise(name, {seed: Bracket.exactly(value) for seed, value in values.items() if value is not None})
