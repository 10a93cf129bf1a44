"""How a sweep over batch sizes is planned and trained.

Each batch size has the grid of peak LRs scaled by its own factor (sqrt scaling, You et al. 2019, Sec. 4.3), as many
steps as the budget of tokens allows, and the same number of warm-up steps (linear-epoch warm-up).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from stresstest.engine.schedules import DECAYS, schedule
from stresstest.engine.train import Batches
from stresstest.experiments.arms import grid_lrs
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.plan import Plan, canonical, make_plan
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.course import recipe
from stresstest.measurements.scheduled import of_run, progress
from stresstest.specs.parsing import parse_choice
from stresstest.tasks import load_task
from stresstest.tasks.task import Task
from stresstest.user_model.bench import UserBench

_WHICH = frozenset("depth optimizer start_lr end_lr num_lrs batch_size batch_sizes lr_scaling warmup_share".split())


def plan(spec: BatchSweepSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    decay = parse_choice(spec.decay, DECAYS).label
    spec = canonical(spec).model_copy(update={"decay": decay, "batch_size": max(spec.batch_sizes)})  # for its memory
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
        own = isinstance(bench, UserBench)
        unread = isinstance(bench, UserBench) and bench.model.factory.draws
        task = load_task(spec.task, "synthetic" if unread else spec.data, size, spec.seq_len)
        sized = _sized(bench, task, size)
        runs = recipe(sized, [(cell.seed, _lrs(spec, cell.point)) for cell in mine])
        for cell, run in zip(mine, runs, strict=True):
            one = of_run(run)
            # As its validation loss: labels as they are.
            one.records["recipe"]["baseline_loss"] = bench.batches.baseline_loss if own else task.baseline_loss
            one.records["recipe"]["progress"] = progress(run)
            found[cell.key] = one
    return [found[cell.key] for cell in cells]


def _sized(bench: Bench, task: Task, size: int) -> Bench:
    if isinstance(bench, UserBench):
        return replace(bench, batches=bench.batches.of(task, size), _starts={})
    assert isinstance(bench.batches, Batches), "a built-in model learns a task"
    return replace(bench, batches=bench.batches.of(task))


def _lrs(spec: BatchSweepSpec, where: Mapping[str, Any]) -> Any:
    steps = spec.steps(where["batch_size"])
    return where["peak_lr"] * schedule("linear", where["warmup_steps"], spec.decay, steps)
