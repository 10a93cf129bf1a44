"""What the cells of a sweep over batch sizes come to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from stresstest.experiments.arms import Arm, max_stable_lr
from stresstest.experiments.batch_sweep.findings import batch_findings
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Bracket, Cell, SummaryRow, TrendRow, count, summarise
from stresstest.results.summary import Reduced, exponent

GIVEN_AWAY = 0.1  # share of what the smallest batch learns: a batch that loses more has stopped scaling


def reduce(spec: BatchSweepSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant, optimizer and batch size; one over all batch sizes; and what they say."""
    rows, trends = [], []
    for variant, optimizer in product(spec.variant, spec.optimizer):
        arms = {size: arm for size in spec.batch_sizes if (arm := arm_of(spec, cells, variant, optimizer, size)).seeds}
        rows += [_row(spec, arm, size) for size, arm in arms.items()]
        if arms:
            trends.append(_trend(arms))
    return Reduced(rows, trends, batch_findings(rows, trends, spec.model_dump(mode="json")))


def arm_of(spec: BatchSweepSpec, cells: Sequence[Cell], variant: str, optimizer: str, size: int) -> Arm:
    """The cells of one variant, optimizer and batch size by peak LR and seed."""
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
    seeds = sorted(set(first.seeds).intersection(*(arm.seeds for arm in arms.values())))
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
