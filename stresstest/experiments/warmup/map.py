"""What the map of warm-up x peak LR comes to, arm by arm: a variant with an optimizer and a shape of warm-up."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from stresstest.experiments.arms import Arm, grid_lrs, max_stable_lr, point
from stresstest.experiments.warmup.sensitivity import gain_per_doubling, sensitivity, variance_shares
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.results.metrics import METRICS
from stresstest.results.records import (
    TRAINED,
    Bracket,
    Cell,
    MapPlace,
    MetricSummary,
    SummaryRow,
    TrendRow,
    count,
    summarise,
)


def map_points(spec: WarmupSpec) -> list[dict[str, Any]]:
    """The settings of the map; without a warm-up its shapes are one."""
    points = [
        point(optimizer, shape, steps, lr)
        for optimizer, shape, steps, lr in product(spec.optimizer, spec.warmup, spec.warmup_steps, grid_lrs(spec))
    ]
    return [one for i, one in enumerate(points) if one not in points[:i]]


def objective(cells: Sequence[Cell]) -> float:
    """Mean over seeds of the loss, each at most that of having learned nothing: always finite."""
    return statistics.fmean(cell.recipe["loss"] for cell in cells)


def untrained(cells: Sequence[Cell]) -> float:
    """The share of seeds that did not train: the constraint, met at 0."""
    return sum(cell.recipe["outcome"] not in TRAINED for cell in cells) / len(cells)


def notes(cells: Sequence[Cell]) -> dict[str, Any]:
    """What became of each seed, in the order of the seeds."""
    ordered = sorted(cells, key=lambda cell: cell.seed)
    return {
        "outcomes": [cell.recipe.get("outcome", cell.status) for cell in ordered],
        "losses": [cell.recipe.get("loss") for cell in ordered],
    }


def arms_of(spec: WarmupSpec, cells: Sequence[Cell]) -> list[Arm]:
    """The arms of a map in the order of the spec; one without a warm-up belongs to every shape."""
    arms = []
    for variant, optimizer, shape in product(spec.variant, spec.optimizer, spec.warmup):
        places: dict[tuple[int, float], dict[int, Cell]] = {}
        for cell in cells:
            mine = cell.variant == variant and cell.point["optimizer"] == optimizer
            if mine and cell.status == "done" and cell.point["warmup"] in (shape, "none"):
                places.setdefault((cell.point["warmup_steps"], cell.point["peak_lr"]), {})[cell.seed] = cell
        if places:
            arms.append(Arm(variant, spec.depth, optimizer, shape, dict(sorted(places.items()))))
    return arms


def arm_rows(arms: Sequence[Arm]) -> tuple[list[SummaryRow], list[TrendRow]]:
    """For each arm a row a warm-up, over its learning rates, and a row over all warm-ups."""
    return [row for arm in arms for row in _warmup_rows(arm)], [_trend(arm) for arm in arms]


def min_warmup(arm: Arm, lr: float, seed: int) -> Bracket | None:
    """The fewest steps of warm-up that train at a peak LR; `None` where it is too small to tell.

    Where none of the map's trains, it lies beyond the longest.
    """
    enough = [steps for steps in arm.warmups if arm.trained(steps, lr, seed)]
    if enough:
        return Bracket.exactly(enough[0])
    reached = [other for steps, other in arm.cells if arm.trained(steps, other, seed)]
    return Bracket(low=arm.warmups[-1], high=None) if reached and lr > min(reached) else None


def _warmup_rows(arm: Arm) -> list[SummaryRow]:
    rows = []
    for steps in arm.warmups:

        def lr_sensitivity(seed: int, steps: int = steps) -> float:
            return sensitivity([arm.loss(steps, lr, seed) for lr in arm.lrs], arm.cap(seed))

        def best(seed: int, steps: int = steps) -> float:
            return min(arm.loss(steps, lr, seed) for lr in arm.lrs)

        metrics = _over_seeds(arm, {"lr_sensitivity": lr_sensitivity, "validation_loss": best} | _scores(arm, steps))
        stable = {seed: max_stable_lr(arm, steps, seed) for seed in arm.seeds}
        if stable:
            metrics["max_stable_lr"] = summarise("max_stable_lr", stable)
        ended = [cell for (at, _), by_seed in arm.cells.items() if at == steps for cell in by_seed.values()]
        rows.append(
            SummaryRow(
                variant=arm.variant,
                depth=arm.depth,
                optimizer=arm.optimizer,
                metrics=metrics,
                outcomes=count(cell.recipe["outcome"] for cell in ended),
                point={"warmup": arm.warmup, "warmup_steps": steps},
            )
        )
    return rows


def _scores(arm: Arm, steps: int) -> dict[str, Callable[[int], float | None]]:
    """What else validation gave: the best over the peak LRs, or what has no best at that of the lowest loss.

    A run that broke has none; where one could be the best, it counts as 0.
    """
    found = {name for by_seed in arm.cells.values() for cell in by_seed.values() for name in cell.metrics}

    def best_of(name: str) -> Callable[[int], float]:
        def best(seed: int) -> float:
            scores = [arm.cells[steps, lr][seed].metrics.get(name) for lr in arm.lrs]
            return max(score.low or 0.0 if score is not None else 0.0 for score in scores)

        return best

    def at_lowest_loss(name: str) -> Callable[[int], float | None]:
        def there(seed: int) -> float | None:
            lr = min(arm.lrs, key=lambda lr: arm.loss(steps, lr, seed))
            score = arm.cells[steps, lr][seed].metrics.get(name)
            return None if score is None else score.low

        return there

    return {
        name: best_of(name) if METRICS[name].direction == "higher" else at_lowest_loss(name) for name in sorted(found)
    }


def _trend(arm: Arm) -> TrendRow:
    places = [
        MapPlace(
            warmup_steps=steps,
            peak_lr=lr,
            outcomes={str(seed): cell.recipe["outcome"] for seed, cell in sorted(by_seed.items())},
            losses={str(seed): cell.recipe["loss"] for seed, cell in sorted(by_seed.items())},
        )
        for (steps, lr), by_seed in arm.cells.items()
    ]
    needs = {lr: {seed: need for seed in arm.seeds if (need := min_warmup(arm, lr, seed))} for lr in arm.lrs}
    return TrendRow(
        variant=arm.variant,
        optimizer=arm.optimizer,
        metrics=_trend_metrics(arm),
        point={"warmup": arm.warmup},
        map=places,
        min_warmup={repr(lr): summarise("min_warmup", by_seed) for lr, by_seed in needs.items() if by_seed},
    )


def _trend_metrics(arm: Arm) -> dict[str, MetricSummary]:
    found: dict[str, Callable[[int], float | None]] = {"warmup_gain": lambda seed: _gain(arm, seed)}
    if arm.window and len(arm.warmups) > 1:
        found["warmup_sensitivity"] = lambda seed: _warmup_sensitivity(arm, seed)
    if len(arm.warmups) > 1 and len(arm.lrs) > 1:
        for name, axes in (("warmup_share", (0,)), ("lr_share", (1,)), ("interaction_share", (0, 1))):
            found[name] = lambda seed, axes=axes: variance_shares(_grid(arm, seed)).get(axes)  # type: ignore[misc]  # its default
    return _over_seeds(arm, found)


def _warmup_sensitivity(arm: Arm, seed: int) -> float:
    losses = [[arm.loss(steps, lr, seed) for steps in arm.warmups] for lr in arm.window]
    return statistics.fmean(sensitivity(each, arm.cap(seed)) for each in losses)


def _gain(arm: Arm, seed: int) -> float | None:
    """Of warm-ups whose max_stable_lr lies within the map."""
    brackets = {steps: max_stable_lr(arm, steps, seed) for steps in arm.warmups}
    inside = {steps: b.low for steps, b in brackets.items() if b.low is not None and b.high is not None}
    return gain_per_doubling(inside)


def _grid(arm: Arm, seed: int) -> np.ndarray:
    return np.array([[arm.loss(steps, lr, seed) for lr in arm.lrs] for steps in arm.warmups])


def _over_seeds(arm: Arm, metrics: Mapping[str, Callable[[int], float | None]]) -> dict[str, MetricSummary]:
    found = {}
    for name, of in metrics.items():
        values = {seed: Bracket.exactly(value) for seed in arm.seeds if (value := of(seed)) is not None}
        if values:
            found[name] = summarise(name, values)
    return found
