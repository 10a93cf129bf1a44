"""What every experiment shares: training the cells of a plan that are not on the disk yet."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stresstest.engine.memory import free_bytes
from stresstest.errors import StoppedError
from stresstest.experiments.kept_task import do_kept_task
from stresstest.experiments.kernel import check_kernel
from stresstest.experiments.plan import Plan
from stresstest.experiments.training import Group, HoldAhead, Measured, failed
from stresstest.measurements.ahead import Question, asked_in
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Cell
from stresstest.runs.all_ranks import AllRanks
from stresstest.runs.executor import Executor, Hooks, Local, local_workers
from stresstest.runs.ray_cluster import Ray
from stresstest.runs.settings import RunSettings
from stresstest.runs.slurm import Slurm
from stresstest.runs.stopping import stopping
from stresstest.runs.store import RunStore
from stresstest.user_model.parallel.settings import is_parallel

_ROWS = 4  # of a transformer on a CPU: where a row is cheapest
_CELLS_A_JOB = 8  # of a Slurm array, where -j does not say how many jobs


@dataclass(frozen=True)
class Listener:
    """Who hears of a run: its cells and those of them that were finished (in rounds), each as it starts and ends.

    grouped: the cells that will be trained, those that train together as one; and how many such groups at once, 0 where
    that is a cluster's to say. started: all cells of a group.
    """

    known: Callable[[Sequence[CellPlan], Sequence[Cell]], None] = lambda cells, finished: None
    grouped: Callable[[Sequence[Sequence[CellPlan]], int], None] = lambda groups, at_once: None
    started: Callable[[Sequence[CellPlan]], None] = lambda cells: None
    ended: Callable[[Cell], None] = lambda cell: None
    stopping: Callable[[], None] = lambda: None


def run(
    plan: Plan, store: RunStore, settings: RunSettings = RunSettings(), listener: Listener = Listener()
) -> tuple[list[Cell], int]:
    """Train the cells that are not on the disk yet; every finished one is stored before the next.

    Returns the cells that are there, and how many are not: those that `max_cells`, `fail_fast` or
    another shard left.
    """
    finished: dict[str, Cell] = {}
    cells, left = list(plan.cells), settings.max_cells
    rounds = plan.in_order(cells) or _asked_for(plan, cells, [], store, settings, listener)
    found: list[Cell] = []
    while rounds:
        mine = rounds[settings.shard[0] - 1 :: settings.shard[1]]
        theirs = {cell.key for cell in rounds} - {cell.key for cell in mine}
        store.write_plan([cell.key for cell in cells], [cell.key for cell in cells if cell.key not in theirs])
        stored = store.finished({cell.key for cell in rounds})
        if settings.retry_errors:
            stored = {key: cell for key, cell in stored.items() if cell.status == "done"}
        finished |= {cell.key: stored[cell.key] for cell in rounds if cell.key in stored}
        missing = [cell for cell in mine if cell.key not in finished]
        listener.known(mine, [finished[cell.key] for cell in mine if cell.key in finished])
        asked = missing if left is None else missing[:left]
        with closing(_train(plan, store, asked, settings, listener)) as training:
            for measured in training:
                cell = store.append(measured.cell, measured.curves)
                finished[cell.key] = cell
                listener.ended(cell)
                if settings.fail_fast and measured.cell.status != "done":
                    break
        found = [finished[cell.key] for cell in cells if cell.key in finished]
        if len(found) < len(cells):
            return found, len(cells) - len(found)
        left = None if left is None else left - len(asked)
        rounds = _asked_for(plan, cells, found, store, settings, listener)
    for folder in ("checkpoints", "ahead"):
        shutil.rmtree(store.path / folder, ignore_errors=True)
    return found, 0


def _asked_for(
    plan: Plan,
    cells: list[CellPlan],
    found: Sequence[Cell],
    store: RunStore,
    settings: RunSettings,
    listener: Listener,
) -> list[CellPlan]:
    """The cells that the finished ones ask for; `cells` grows by them."""
    known = {cell.key for cell in cells}
    with stopping(listener.stopping) as signals:
        try:
            more = [cell for cell in plan.refine(plan, found, store, settings) if cell.key not in known]
        except StoppedError:
            raise signals.error from None
        if signals.code is not None:
            raise signals.error
    cells += more
    return more


def _train(
    plan: Plan, store: RunStore, cells: Sequence[CellPlan], settings: RunSettings, listener: Listener
) -> Generator[Measured, None, None]:
    if not cells:
        return
    if settings.executor == "local":  # other nodes look for it themselves
        check_kernel(plan.spec)
    executor, at_once, share = _executor(plan, store, cells, settings)
    alone = settings.cell_timeout is not None or is_parallel(plan.spec)
    parts = [[cell] for cell in plan.in_order(cells)] if alone else _populations(plan, cells, at_once)
    environment_key = plan.environment["key"]
    folder, live, ahead = (str(store.path.resolve() / name) for name in ("checkpoints", "live", "ahead"))
    lends = isinstance(executor, Local) and plan.device == "cpu" and len(executor.workers) > 1 < len(parts)
    common = (share, environment_key, folder)
    groups = [
        Group(
            plan.spec_of(part[0]),
            plan.device,
            tuple(part),
            *common,
            plan.constant_of(part[0]),
            live,
            ahead * (lends and _same_alone(plan, part)),
            plan.together is not None,
        )
        for part in parts
    ]
    listener.grouped(parts, 0 if settings.executor == "ray" else min(at_once, _jobs(settings, len(cells))))

    def started(group: Group) -> None:
        listener.started(group.cells)

    hooks = Hooks(started, listener.stopping, _Lending(groups).next if lends else None)
    with closing(executor.run(partial(do_kept_task, plan.measure), groups, hooks)) as running:
        for done in running:
            lost = [Measured(failed(cell, done.failure or "crashed", done.error), {}) for cell in done.task.cells]
            yield from done.answer or lost
            if done.task.checkpoint is not None:
                done.task.checkpoint.unlink(missing_ok=True)
            if done.task.told is not None:
                done.task.told.unlink(missing_ok=True)


def _same_alone(plan: Plan, part: Sequence[CellPlan]) -> bool:
    """Whether a hold of these cells has the same bits by itself, whenever that is.

    Of several seeds that torch trains at once that is known of one step alone (`Bench.rows_are_alike`), by the worker.
    """
    return len(part) == 1 or plan.spec.kernel == "native"


class _Lending:
    """What a worker without a task may do: the hold that some group in training most likely asks for next."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._given: set[tuple[Path, Question]] = set()

    def next(self) -> HoldAhead | None:
        """One that was not given before; `None` where no group offers any."""
        offered = [(group, folder, asked_in(folder)) for group in self._groups if (folder := group.shared) is not None]
        for rank in range(max((len(questions) for _, _, questions in offered), default=0)):
            for group, folder, questions in offered:
                if rank < len(questions) and (folder, questions[rank]) not in self._given:
                    self._given.add((folder, questions[rank]))
                    return HoldAhead(group, questions[rank])
        return None


def _executor(
    plan: Plan, store: RunStore, cells: Sequence[CellPlan], settings: RunSettings
) -> tuple[Executor, int, float]:
    """Where the cells are trained, how many tasks at once, and the share of its machine's memory that each has."""
    if is_parallel(plan.spec):
        return AllRanks(store.path, _key_of), 1, 1.0
    on_cpu = plan.device == "cpu"
    workers = local_workers(plan.device, settings.jobs, settings.per_gpu)
    timeout, share = settings.cell_timeout, 1.0 / (len(workers) if on_cpu else settings.per_gpu)
    if settings.executor == "ray":
        gpus = 0.0 if on_cpu else 1.0 / settings.per_gpu
        ray = Ray(settings.ray_address, settings.jobs, gpus, timeout, limited=on_cpu)
        return ray, settings.jobs or len(cells), share
    if settings.executor == "slurm":
        jobs = _jobs(settings, len(cells))
        parameters = dict(settings.slurm)
        cluster = str(parameters.pop("cluster", "slurm"))
        slurm = Slurm(store.path.resolve() / "slurm", jobs, parameters, cluster, timeout, limited=on_cpu)
        return slurm, len(cells), share
    needs = [plan.need(cell).total for cell in _largest(plan, cells)[: len(workers)]]
    needs += needs[:1] * (len(workers) - len(needs))  # of holds that are trained ahead
    fit = [n for n in range(1, len(needs) + 1) if sum(needs[:n]) <= free_bytes(torch.device(plan.device))]
    if on_cpu:
        workers = workers[: fit[-1] if fit else 1]
        share = 1.0 / len(workers)
    return Local(workers, timeout, limited=on_cpu), len(workers), share


def layout(plan: Plan, settings: RunSettings) -> tuple[list[list[CellPlan]], int]:
    """The cells that train together, and how many such groups at once, as far as that is known beforehand."""
    cells = plan.cells[settings.shard[0] - 1 :: settings.shard[1]][: settings.max_cells]
    workers = len(local_workers(plan.device, settings.jobs, settings.per_gpu))
    at_once = 1 if is_parallel(plan.spec) else workers if settings.executor == "local" else _jobs(settings, len(cells))
    if settings.cell_timeout is not None or is_parallel(plan.spec):
        return [[cell] for cell in plan.in_order(cells)], at_once
    groups = _populations(plan, cells, at_once)
    return groups, max(1, min(at_once, len(groups)) if groups else at_once)


def _largest(plan: Plan, cells: Sequence[CellPlan]) -> list[CellPlan]:
    """Cells that need the most memory first."""
    ordered = plan.in_order(cells)
    return ordered[::-1] if plan.ascending else ordered


def _jobs(settings: RunSettings, number: int) -> int:
    """How many jobs of a Slurm array train so many cells; elsewhere that sets no limit."""
    if settings.executor != "slurm":
        return number
    return settings.jobs or math.ceil(number / _CELLS_A_JOB)


def _key_of(group: Group) -> str:
    return group.cells[0].key


def _populations(plan: Plan, cells: Sequence[CellPlan], jobs: int) -> list[list[CellPlan]]:
    """Cells that train at once, in their order.

    Those that branch from one run, where a plan has such. Else on a GPU, and for thin MLPs, whose cost is in the number
    of operations, all cells of an architecture together, as long as every process has something to do. For transformers
    on a CPU a few, whose rows share what a step costs, and ever fewer towards the end, so that no process waits for
    another (guided self-scheduling, Polychronopoulos & Kuck 1987). Else one cell a task.
    """
    together: dict[tuple[Any, ...], list[CellPlan]] = {}
    for cell in plan.in_order(cells):
        run = None if plan.together is None else plan.together(cell)
        shape = (plan.spec_of(cell), cell.variant, cell.depth, cell.optimizer(plan.spec), run)
        together.setdefault(shape, []).append(cell)
    groups = list(together.values())
    if plan.device != "cpu" or plan.together is not None:
        return groups
    if plan.spec.model == "mlp":
        parts = max(1, jobs // len(groups))
        return [part for group in groups for part in _chunks(group, math.ceil(len(group) / parts))]
    if plan.own is not None or plan.spec.model == "resnet":  # whose replicas gain nothing side by side
        return _chunks([cell for group in groups for cell in group], 1)
    dealt: list[list[CellPlan]] = []
    left = len(cells)
    for group in groups:
        while group:
            size = _ROWS if jobs == 1 else min(_ROWS, math.ceil(left / (2 * jobs)))
            dealt.append(group[:size])
            left, group = left - len(dealt[-1]), group[size:]
    return dealt


def _chunks(cells: Sequence[CellPlan], size: int) -> list[list[CellPlan]]:
    return [list(cells[start : start + size]) for start in range(0, len(cells), size)]
