"""What every experiment shares: a checked plan of cells, and training those that are not on the disk."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stresstest.choices import parse_choice
from stresstest.engine.divergence import Rules
from stresstest.engine.memory import Need, OutOfMemoryError, free_bytes, gib, probe_need, training_need
from stresstest.engine.population import DTYPES, Training
from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.journal import Journal
from stresstest.experiments.measure import Bench
from stresstest.models.block import Model
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.transformer import Transformer
from stresstest.models.variants import VARIANTS
from stresstest.optimizers import OPTIMIZERS
from stresstest.results import Bracket, Cell, Status
from stresstest.runs.executor import Executor, Hooks, Local, local_workers
from stresstest.runs.identity import cell_key, code_fingerprint, environment
from stresstest.runs.ray_cluster import Ray
from stresstest.runs.slurm import Slurm
from stresstest.runs.store import RunStore
from stresstest.specs import BoundarySpec, ModelSpec, RunSettings, ShapeSpec
from stresstest.tasks import load_task
from stresstest.tasks.task import Task

_CELLS_A_JOB = 8  # of a Slurm array, where -j does not say how many jobs


@dataclass(frozen=True)
class CellPlan:
    """One cell to train; `key` identifies all that decides its result."""

    key: str
    variant: str
    depth: int
    seed: int


@dataclass
class Measured:
    """A finished cell and its curves (arrays by name, for the run directory)."""

    cell: Cell
    curves: dict[str, NDArray[np.float64]]


@dataclass
class Measurement:
    """What a measurement adds to a cell: metrics, records by the cell's field, curves."""

    metrics: dict[str, Bracket] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, other: Measurement) -> None:
        """Take over what another measurement found."""
        self.metrics |= other.metrics
        self.records |= other.records
        self.curves |= other.curves


Phase = Literal["train", "probe", "train and probe"]

# Measures the seeds of one architecture as populations: what each seed's cell gets.
Measure = Callable[[Bench, Any, Sequence[int]], list[Measurement]]


@dataclass(frozen=True)
class Plan:
    """A checked spec: every name resolved, the data read, the device there, nothing trained yet."""

    command: str
    spec: BoundarySpec
    device: str
    cells: list[CellPlan]
    environment: dict[str, Any]
    data: dict[str, Any]
    rules: dict[str, Any]
    measure: Measure
    phases: tuple[Phase, ...]
    refine: Callable[[Plan, Sequence[Cell]], list[CellPlan]]  # cells that the finished ones ask for
    settings: dict[str, Any]  # all that decides a cell, but variant, depth and seed

    @property
    def identity(self) -> str:
        """The same for two plans that train the same cells."""
        return cell_key({"cells": sorted(cell.key for cell in self.cells)})

    def cell(self, variant: str, depth: int, seed: int) -> CellPlan:
        """The cell of one point for one seed."""
        key = cell_key({**self.settings, "variant": variant, "depth": depth, "seed": seed})
        return CellPlan(key, variant, depth, seed)

    def need(self, cell: CellPlan) -> Need:
        """Memory of one replica of a cell, by estimate: of the phase that takes most."""
        needs = [need_of(phase, self.spec, cell.variant, cell.depth) for phase in self.phases]
        return max(needs, key=lambda need: need.total)


@dataclass(frozen=True)
class Group:
    """Cells of one architecture that train as one population, within a share of the memory."""

    spec: BoundarySpec
    device: str
    cells: tuple[CellPlan, ...]
    memory_share: float = 1.0
    environment: str = ""  # whose results these are; a node of another kind must not train them
    checkpoints: str = ""  # the folder for checkpoints of training under way; none without

    @property
    def checkpoint(self) -> Path | None:
        """Where training under way is kept; the keys of the cells are in its name."""
        if not self.checkpoints:
            return None
        return Path(self.checkpoints) / f"{cell_key({'cells': [cell.key for cell in self.cells]})}.pt"


def no_more(plan: Plan, cells: Sequence[Cell]) -> list[CellPlan]:
    """The `refine` of an experiment whose cells are all known beforehand."""
    return []


def make_plan(
    command: str,
    spec: BoundarySpec,
    depths: Sequence[int],
    not_in_key: frozenset[str],
    measure: Measure,
    phases: Sequence[Phase] = ("train",),
    refine: Callable[[Plan, Sequence[Cell]], list[CellPlan]] = no_more,
) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training.

    `not_in_key` names settings that do not decide a cell; `phases` what is done to a replica.
    """
    optimizer = parse_choice(spec.optimizer, OPTIMIZERS).label
    device = resolve_device(spec.device)
    spec = spec.model_copy(update={"variant": tuple(_variants(spec)), "optimizer": optimizer})
    for variant in spec.variant:
        for depth in depths:
            _check_memory(spec, variant, depth, phases, device)
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    env = environment(device, spec.dtype)
    rules = asdict(Rules())
    settings = spec.model_dump(exclude={"variant", "seeds", "device"} | not_in_key) | {
        "experiment": command,
        "code": code_fingerprint(),
        "data": task.description["hash"],
        "environment": env["key"],
        "rules": rules,
    }
    data = {"name": spec.data, **task.description}
    plan = Plan(command, spec, device, [], env, data, rules, measure, tuple(phases), refine, settings)
    for seed in spec.seeds:
        plan.cells.extend(plan.cell(variant, depth, seed) for variant in spec.variant for depth in depths)
    return plan


@dataclass(frozen=True)
class Listener:
    """Who hears of a run: its cells and those of them that were finished (in rounds), each as it starts and ends."""

    known: Callable[[Sequence[CellPlan], Sequence[Cell]], None] = lambda cells, finished: None
    started: Callable[[CellPlan], None] = lambda cell: None
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
    cells, rounds, left = list(plan.cells), _largest_first(plan.cells), settings.max_cells
    while rounds:
        store.write_plan([cell.key for cell in cells])
        stored = store.finished({cell.key for cell in rounds})
        if settings.retry_errors:
            stored = {key: cell for key, cell in stored.items() if cell.status == "done"}
        finished |= {cell.key: stored[cell.key] for cell in rounds if cell.key in stored}
        mine = rounds[settings.shard[0] - 1 :: settings.shard[1]]
        missing = [cell for cell in mine if cell.key not in finished]
        listener.known(mine, [finished[cell.key] for cell in mine if cell.key in finished])
        asked = missing if left is None else missing[:left]
        with closing(_train(plan, store, asked, settings, listener)) as training:
            for measured in training:
                store.append(measured.cell, measured.curves)
                finished[measured.cell.key] = measured.cell
                listener.ended(measured.cell)
                if settings.fail_fast and measured.cell.status != "done":
                    break
        found = [finished[cell.key] for cell in cells if cell.key in finished]
        if len(found) < len(cells):
            return found, len(cells) - len(found)
        left = None if left is None else left - len(asked)
        known = {cell.key for cell in cells}
        rounds = [cell for cell in plan.refine(plan, found) if cell.key not in known]
        cells += rounds
    shutil.rmtree(store.path / "checkpoints", ignore_errors=True)
    return found, 0


def resolve_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise ConfigError(f"device '{name}' is not supported; use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' is not there: torch {torch.__version__} sees no CUDA GPU; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ConfigError(f"device '{name}' is not there; the last one is cuda:{last}")
    return name


def make_bench(
    spec: BoundarySpec, variant: str, depth: int, device: str, memory_share: float = 1.0, journal: Path | None = None
) -> Bench:
    """What the measurements of one architecture share."""
    optimizer = parse_choice(spec.optimizer, OPTIMIZERS)
    where = torch.device(device)
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    training = Training(OPTIMIZERS[optimizer.name], optimizer.options, where, DTYPES[spec.dtype], spec.clip_norm)
    return Bench(
        make_model(spec, variant, depth, task),
        training,
        Batches(task, where),
        memory_share=memory_share,
        journal=Journal(journal),
    )


def make_model(spec: ShapeSpec, variant: str, depth: int, task: Task) -> Model:
    """The built-in model of a spec, wired as `variant`, for the task's inputs and classes."""
    choice = parse_choice(variant, VARIANTS)
    shape = ModelSpec.model_validate({name: getattr(spec, name) for name in ShapeSpec.model_fields} | {"depth": depth})
    if shape.model == "mlp":
        return ResidualMlp(shape, choice.name, choice.options, task.num_inputs, task.num_classes)
    return Transformer(shape, choice.name, choice.options)


def train_cells(measure: Measure, group: Group) -> list[Measured]:
    """Train cells of one architecture as populations; a replica that does not fit is `oom`."""
    started = time.perf_counter()
    first = group.cells[0]
    here = environment(group.device, group.spec.dtype)["key"] if group.environment else ""
    if here != group.environment:
        raise ConfigError(f"this node is {here}, and the run is of {group.environment}; use nodes of one kind")
    try:
        where = (group.device, group.memory_share, group.checkpoint)
        bench = make_bench(group.spec, first.variant, first.depth, *where)
        found = measure(bench, group.spec, [cell.seed for cell in group.cells])
    except OutOfMemoryError as error:
        if len(group.cells) > 1:
            return [m for cell in group.cells for m in train_cells(measure, replace(group, cells=(cell,)))]
        return [Measured(_failed(first, "oom", str(error)), {})]
    seconds = round((time.perf_counter() - started) / len(group.cells), 3)
    return [
        Measured(_cell(cell, "done", metrics=one.metrics, seconds=seconds, **one.records), one.curves)
        for cell, one in zip(group.cells, found, strict=True)
    ]


def _train(
    plan: Plan, store: RunStore, cells: Sequence[CellPlan], settings: RunSettings, listener: Listener
) -> Generator[Measured, None, None]:
    if not cells:
        return
    executor, at_once, share = _executor(plan, store, cells, settings)
    alone = settings.cell_timeout is not None
    parts = [[cell] for cell in _largest_first(cells)] if alone else _populations(plan, cells, at_once)
    environment_key = plan.environment["key"]
    folder = str(store.path.resolve() / "checkpoints")
    groups = [Group(plan.spec, plan.device, tuple(part), share, environment_key, folder) for part in parts]

    def started(group: Group) -> None:
        for cell in group.cells:
            listener.started(cell)

    hooks = Hooks(started, listener.stopping)
    with closing(executor.run(partial(train_cells, plan.measure), groups, hooks)) as running:
        for done in running:
            failed = [Measured(_failed(cell, done.failure or "crashed", done.error), {}) for cell in done.task.cells]
            yield from done.answer or failed
            if done.task.checkpoint is not None:
                done.task.checkpoint.unlink(missing_ok=True)


def _executor(
    plan: Plan, store: RunStore, cells: Sequence[CellPlan], settings: RunSettings
) -> tuple[Executor, int, float]:
    """Where the cells are trained, how many tasks at once, and the share of its machine's memory that each has."""
    on_cpu = plan.device == "cpu"
    workers = local_workers(plan.device, settings.jobs, settings.per_gpu)
    timeout, share = settings.cell_timeout, 1.0 / (len(workers) if on_cpu else settings.per_gpu)
    if settings.executor == "ray":
        gpus = 0.0 if on_cpu else 1.0 / settings.per_gpu
        ray = Ray(settings.ray_address, settings.jobs, gpus, timeout, limited=on_cpu)
        return ray, settings.jobs or len(cells), share
    if settings.executor == "slurm":
        jobs = settings.jobs or math.ceil(len(cells) / _CELLS_A_JOB)
        parameters = dict(settings.slurm)
        cluster = str(parameters.pop("cluster", "slurm"))
        slurm = Slurm(store.path.resolve() / "slurm", jobs, parameters, cluster, timeout, limited=on_cpu)
        return slurm, len(cells), share
    needs = [plan.need(cell).total for cell in _largest_first(cells)[: len(workers)]]
    fit = [n for n in range(1, len(needs) + 1) if sum(needs[:n]) <= free_bytes(torch.device(plan.device))]
    if on_cpu:
        workers = workers[: fit[-1] if fit else 1]
        share = 1.0 / len(workers)
    return Local(workers, timeout, limited=on_cpu), len(workers), share


def _populations(plan: Plan, cells: Sequence[CellPlan], jobs: int) -> list[list[CellPlan]]:
    """Cells that train at once, the deepest first, so that no long task is left for the end.

    On a GPU, and for thin MLPs, whose cost is in the number of operations, all seeds of an
    architecture together, as long as every process has something to do; for transformers on a CPU
    one cell a task.
    """
    together: dict[tuple[str, int], list[CellPlan]] = {}
    for cell in _largest_first(cells):
        together.setdefault((cell.variant, cell.depth), []).append(cell)
    groups = list(together.values())
    if plan.device != "cpu":
        return groups
    parts = max(1, jobs // len(groups)) if plan.spec.model == "mlp" else len(cells)
    return [
        group[start : start + math.ceil(len(group) / parts)]
        for group in groups
        for start in range(0, len(group), math.ceil(len(group) / parts))
    ]


def _largest_first(cells: Sequence[CellPlan]) -> list[CellPlan]:
    """The order in which cells are trained and dealt out to shards, whatever the order of the settings."""
    return sorted(cells, key=lambda cell: (-cell.depth, cell.seed, cell.variant))


def _variants(spec: BoundarySpec) -> list[str]:
    """The variants asked for, in their canonical spelling; one that the model lacks is a `ConfigError`."""
    there = [name for name, variant in VARIANTS.items() if spec.model not in variant.not_in]
    choices = [parse_choice(text, VARIANTS) for text in (there if spec.variant == ("all",) else spec.variant)]
    for choice in choices:
        if choice.name not in there:
            raise ConfigError(f"variant {choice.name} does not exist for model {spec.model}; it has {', '.join(there)}")
    return list(dict.fromkeys(choice.label for choice in choices))


def need_of(phase: Phase, spec: BoundarySpec, variant: str, depth: int) -> Need:
    """Memory of one replica: linear in depth, so that two shallow models tell without building the deep one."""
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    one, two = (make_model(spec, variant, blocks, task) for blocks in (1, 2))

    def extrapolated(first: int, second: int) -> int:
        return first + (depth - 1) * (second - first)

    parameters = extrapolated(one.layout.num_parameters, two.layout.num_parameters)
    batch, autocast = spec.batch_size, spec.dtype != "float32"
    probe = probe_need(parameters, extrapolated(one.activation_bytes(batch), two.activation_bytes(batch)))
    if phase == "probe":
        return probe
    activations = extrapolated(one.activation_bytes(batch, autocast), two.activation_bytes(batch, autocast))
    slots = len(OPTIMIZERS[parse_choice(spec.optimizer, OPTIMIZERS).name].slots)
    training = training_need(parameters, slots, activations)
    return training if phase == "train" else training + probe


def _check_memory(spec: BoundarySpec, variant: str, depth: int, phases: Sequence[Phase], device: str) -> None:
    free = free_bytes(torch.device(device))
    for phase in phases:
        need = need_of(phase, spec, variant, depth)
        if need.total > free:
            raise ConfigError(
                f"depth {depth} of {variant} needs about {need} to {phase} one replica, and {gib(free)} are free; "
                "use fewer blocks, a smaller --width or a smaller --batch-size"
            )


def _failed(cell: CellPlan, status: Status, error: str) -> Cell:
    return _cell(cell, status, error=error)


def _cell(cell: CellPlan, status: Status, **fields: Any) -> Cell:
    return Cell(key=cell.key, variant=cell.variant, depth=cell.depth, seed=cell.seed, status=status, **fields)
