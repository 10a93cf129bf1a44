"""`stresstest batch-sweep`: the largest stable LR, and the loss at equal tokens, against the batch size.

Each batch size has the grid of peak LRs scaled by its own factor (sqrt scaling, You et al. 2019, Sec. 4.3), as many
steps as the budget of tokens allows, and the same number of warm-up steps (linear-epoch warm-up).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from stresstest.engine.schedules import DECAYS, schedule
from stresstest.engine.train import Batches
from stresstest.experiments.arms import Arm, grid_lrs, max_stable_lr
from stresstest.experiments.batch_sweep.findings import batch_findings
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.plan import Plan, make_plan, spelled
from stresstest.experiments.warmup.experiment import of_run
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.course import recipe
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Bracket, Cell, SummaryRow, TrendRow, count, summarise
from stresstest.results.summary import Reduced, exponent
from stresstest.specs.parsing import parse_choice
from stresstest.tasks import load_task

_WHICH = frozenset("depth optimizer start_lr end_lr num_lrs batch_size batch_sizes lr_scaling warmup_share".split())
GIVEN_AWAY = 0.1  # share of what the smallest batch learns: a batch that loses more has stopped scaling


def plan(spec: BatchSweepSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    decay = parse_choice(spec.decay, DECAYS).label
    spec = spelled(spec).model_copy(update={"decay": decay, "batch_size": max(spec.batch_sizes)})  # for its memory
    points = [
        {
            "optimizer": optimizer,
            "batch_size": size,
            "warmup_steps": spec.warmup_steps,
            "peak_lr": float(f"{spec.scale(size) * lr:.12g}"),
        }
        for optimizer, size, lr in product(spec.optimizer, spec.batch_sizes, grid_lrs(spec))
    ]
    return make_plan("batch-sweep", spec, [spec.depth], _WHICH, measure_batches, points=points)


def measure_batches(bench: Bench, spec: BatchSweepSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Train every cell through its schedule, those of one batch size as one population."""
    found: dict[str, Measurement] = {}
    for size in sorted({cell.point["batch_size"] for cell in cells}):
        mine = [cell for cell in cells if cell.point["batch_size"] == size]
        task = load_task(spec.task, spec.data, size, spec.seq_len)
        sized = replace(bench, batches=Batches(task, bench.batches.device))
        runs = recipe(sized, [(cell.seed, _lrs(spec, cell.point)) for cell in mine])
        for cell, run in zip(mine, runs, strict=True):
            one = of_run(run)
            one.records["recipe"]["baseline_loss"] = bench.batches.baseline_loss
            found[cell.key] = one
    return [found[cell.key] for cell in cells]


def reduce(spec: BatchSweepSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant, optimizer and batch size; one over all batch sizes; and what they say."""
    rows, trends = [], []
    for variant, optimizer in product(spec.variant, spec.optimizer):
        arms = {size: arm for size in spec.batch_sizes if (arm := _arm(spec, cells, variant, optimizer, size)).seeds}
        rows += [_row(spec, arm, size) for size, arm in arms.items()]
        if arms:
            trends.append(_trend(arms))
    return Reduced(rows, trends, batch_findings(rows, trends, spec.model_dump(mode="json")))


def _lrs(spec: BatchSweepSpec, where: Mapping[str, Any]) -> Any:
    steps = spec.steps(where["batch_size"])
    return where["peak_lr"] * schedule("linear", where["warmup_steps"], spec.decay, steps)


def _arm(spec: BatchSweepSpec, cells: Sequence[Cell], variant: str, optimizer: str, size: int) -> Arm:
    places: dict[tuple[int, float], dict[int, Cell]] = {}
    for cell in cells:
        mine = cell.variant == variant and cell.point["optimizer"] == optimizer and cell.point["batch_size"] == size
        if mine and cell.status == "done":
            places.setdefault((0, cell.point["peak_lr"]), {})[cell.seed] = cell
    return Arm(variant, spec.depth, optimizer, "linear", dict(sorted(places.items())))


def _row(spec: BatchSweepSpec, arm: Arm, size: int) -> SummaryRow:
    best = {seed: min(arm.loss(0, lr, seed) for lr in arm.lrs) for seed in arm.seeds}
    lowest = min(arm.lrs, key=lambda lr: statistics.median(arm.loss(0, lr, seed) for seed in arm.seeds))
    metrics = {
        "max_stable_lr": summarise("max_stable_lr", {seed: max_stable_lr(arm, 0, seed) for seed in arm.seeds}),
        "validation_loss": summarise("validation_loss", {s: Bracket.exactly(loss) for s, loss in best.items()}),
    }
    ended = [cell for by_seed in arm.cells.values() for cell in by_seed.values()]
    return SummaryRow(
        variant=arm.variant,
        depth=spec.depth,
        optimizer=arm.optimizer,
        metrics=metrics,
        outcomes=count(cell.recipe["outcome"] for cell in ended),
        point={"batch_size": size, "steps": spec.steps(size), "peak_lr": lowest},
    )


def _trend(arms: Mapping[int, Arm]) -> TrendRow:
    first = next(iter(arms.values()))
    seeds = [seed for seed in first.seeds if all(seed in arm.seeds for arm in arms.values())]
    metrics = {}
    if seeds:
        metrics["scaling_batch"] = summarise("scaling_batch", {seed: scaling_batch(arms, seed) for seed in seeds})
        powers = {
            seed: power
            for seed in seeds
            if (power := exponent({size: max_stable_lr(arm, 0, seed) for size, arm in arms.items()})) is not None
        }
        if powers:
            metrics["batch_lr_exponent"] = summarise("batch_lr_exponent", powers)
    return TrendRow(variant=first.variant, optimizer=first.optimizer, metrics=metrics)


def scaling_batch(arms: Mapping[int, Arm], seed: int) -> Bracket:
    """From the largest batch up to which none gives away more than a tenth of what the smallest learned, to the next.

    What is learned is the constant predictor's loss less the lowest over the peak LRs.
    """
    losses = {size: min(arm.loss(0, lr, seed) for lr in arm.lrs) for size, arm in arms.items()}
    first, least = next(iter(losses.items()))
    constant = float(next(iter(arms[first].cells.values()))[seed].recipe["baseline_loss"])
    low: int | None = None
    for size, loss in losses.items():
        if loss > least + GIVEN_AWAY * max(0.0, constant - least):
            return Bracket(low=low, high=size)
        low = size
    return Bracket(low=low, high=None)
