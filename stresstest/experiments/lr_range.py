"""`stresstest lr-range`: ramp the learning rate until the loss explodes, then check by holding it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stresstest.engine.divergence import TRAINED, Rules
from stresstest.engine.memory import OutOfMemoryError
from stresstest.engine.population import DTYPES, Training
from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.hold import OCTAVE, STRIDES, Answer, HoldSearch, grid_lr, octave_below
from stresstest.experiments.measure import Bench, Run, hold, ramp
from stresstest.models.transformer import Transformer
from stresstest.models.variants import VARIANTS
from stresstest.optimizers import OPTIMIZERS
from stresstest.results import Bracket, Cell, Status
from stresstest.runs.executor import run_tasks
from stresstest.runs.identity import cell_key, code_fingerprint, environment
from stresstest.runs.store import RunStore
from stresstest.specs import LrRangeSpec, parse_choice
from stresstest.tasks.language import CHANCE_LOSS, load_task


@dataclass(frozen=True)
class CellPlan:
    """One cell to train; `key` identifies all that decides its result."""

    key: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """A checked spec: every name resolved, the data read, the device there, nothing trained yet."""

    spec: LrRangeSpec
    device: str
    cells: list[CellPlan]
    environment: dict[str, Any]
    data: dict[str, Any]
    rules: dict[str, Any]

    @property
    def identity(self) -> str:
        """The same for two plans that train the same cells."""
        return cell_key({"cells": sorted(cell.key for cell in self.cells)})


@dataclass(frozen=True)
class Task:
    """Cells of one variant that train as one population."""

    spec: LrRangeSpec
    device: str
    cells: tuple[CellPlan, ...]


@dataclass
class Measured:
    """A finished cell and its curves (arrays by name, for the run directory)."""

    cell: Cell
    curves: dict[str, NDArray[np.float64]]


def plan(spec: LrRangeSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    names = tuple(VARIANTS) if spec.variant == ("all",) else spec.variant
    variants = list(dict.fromkeys(parse_choice(text, VARIANTS).label for text in names))
    optimizer = parse_choice(spec.optimizer, OPTIMIZERS).label
    device = resolve_device(spec.device)
    spec = spec.model_copy(update={"variant": tuple(variants), "optimizer": optimizer})
    task = load_task(spec.data, spec.batch_size, spec.seq_len)
    env = environment(device, spec.dtype)
    data = {
        "name": spec.data,
        "bytes": len(task.data),
        "hash": task.fingerprint,
        "baseline_loss": task.baseline_loss,
        "chance_loss": CHANCE_LOSS,
    }
    rules = asdict(Rules())
    shared = _cell_settings(spec) | {
        "experiment": "lr-range",
        "code": code_fingerprint(),
        "data": task.fingerprint,
        "environment": env["key"],
        "rules": rules,
    }
    cells = [
        CellPlan(cell_key({**shared, "variant": variant, "seed": seed}), variant, seed)
        for seed in spec.seeds
        for variant in variants
    ]
    return Plan(spec, device, cells, env, data, rules)


def run(
    plan: Plan,
    store: RunStore,
    jobs: int,
    on_cell: Callable[[Cell], None] = lambda cell: None,
    on_found: Callable[[int], None] = lambda count: None,
) -> list[Cell]:
    """Train the cells that are not on the disk yet; every finished one is stored before the next.

    Cells that failed before are tried again. `on_found` hears how many cells were there already,
    `on_cell` of each one as it ends.
    """
    finished = {key: cell for key, cell in store.finished().items() if cell.status == "done"}
    missing = [cell for cell in plan.cells if cell.key not in finished]
    on_found(len(plan.cells) - len(missing))
    tasks = [Task(plan.spec, plan.device, tuple(group)) for group in _populations(plan.device, missing)]
    for done in run_tasks(train_cells, tasks, jobs):
        measured = done.answer or [_crashed(cell, done.error) for cell in done.task.cells]
        for m in measured:
            store.append(m.cell, m.curves)
            finished[m.cell.key] = m.cell
            on_cell(m.cell)
    return [finished[cell.key] for cell in plan.cells]


def _populations(device: str, cells: Sequence[CellPlan]) -> list[list[CellPlan]]:
    """On a CPU one cell a task, to fill the processes; on a GPU all seeds of a variant at once."""
    if device == "cpu":
        return [[cell] for cell in cells]
    groups: dict[str, list[CellPlan]] = {}
    for cell in cells:
        groups.setdefault(cell.variant, []).append(cell)
    return list(groups.values())


def _crashed(cell: CellPlan, error: str) -> Measured:
    return Measured(_failed(cell, "crashed", error), {})


def _failed(cell: CellPlan, status: Status, error: str) -> Cell:
    return Cell(key=cell.key, variant=cell.variant, seed=cell.seed, status=status, error=error)


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


def train_cells(task: Task) -> list[Measured]:
    """Train cells of one variant as populations; a replica that does not fit is `oom`."""
    started = time.perf_counter()
    try:
        measured = _measure(task.spec, task.device, task.cells)
    except OutOfMemoryError as error:
        if len(task.cells) > 1:
            return [m for cell in task.cells for m in train_cells(replace(task, cells=(cell,)))]
        return [Measured(_failed(task.cells[0], "oom", str(error)), {})]
    seconds = round((time.perf_counter() - started) / len(task.cells), 3)
    for m in measured:
        m.cell = m.cell.model_copy(update={"seconds": seconds})
    return measured


def ramp_lrs(spec: LrRangeSpec) -> NDArray[np.float64]:
    """The learning rate of each step of the ramp; the last is `end_lr`."""
    if spec.ramp == "linear":
        return np.linspace(spec.start_lr, spec.end_lr, spec.num_steps)
    return np.geomspace(spec.start_lr, spec.end_lr, spec.num_steps)


def _cell_settings(spec: LrRangeSpec) -> dict[str, Any]:
    """All settings that decide a cell: everything but which cells there are."""
    return spec.model_dump(exclude={"variant", "seeds", "device"})


def _measure(spec: LrRangeSpec, device: str, cells: Sequence[CellPlan]) -> list[Measured]:
    bench = _bench(spec, device, cells[0].variant)
    ramps = ramp(bench, [cell.seed for cell in cells], ramp_lrs(spec))
    searches = [_search(spec, run) for run in ramps]
    trials: list[dict[int, Run]] = [{} for _ in cells]
    while asked := [(i, k) for i, search in enumerate(searches) for k in search.ask()]:
        runs = hold(bench, [(cells[i].seed, grid_lr(k)) for i, k in asked], spec.hold_steps)
        for (i, k), run in zip(asked, runs, strict=True):
            trials[i][k] = run
            searches[i].tell(k, _answer(run))
    return [
        _finish(spec, cell, run, search, [held[k] for k in sorted(held)])
        for cell, run, search, held in zip(cells, ramps, searches, trials, strict=True)
    ]


def _bench(spec: LrRangeSpec, device: str, variant: str) -> Bench:
    choice = parse_choice(variant, VARIANTS)
    optimizer = parse_choice(spec.optimizer, OPTIMIZERS)
    where = torch.device(device)
    return Bench(
        Transformer(spec, choice.name, choice.options),
        Training(OPTIMIZERS[optimizer.name], optimizer.options, where, DTYPES[spec.dtype], spec.clip_norm),
        Batches(load_task(spec.data, spec.batch_size, spec.seq_len), where),
    )


def _search(spec: LrRangeSpec, run: Run) -> HoldSearch:
    """Start two octaves below the ramp's answer: the early part of a ramp works as a warm-up."""
    record = run.record()
    broke_at = record["onset_lr"]
    if not record["learned"]:
        finite = [pair for pair in zip(run.losses, run.lrs, strict=True) if math.isfinite(pair[0])]
        broke_at = min(finite)[1] if finite else run.lrs[0]
    highest = octave_below(spec.end_lr)
    guess = octave_below(broke_at or spec.end_lr) - 2 * OCTAVE  # a linear ramp starts at 0
    stride = STRIDES[spec.hold_resolution]
    floor = run.detector.floor
    return HoldSearch(min(guess, highest), highest, stride, spec.lr_window, floor)


def _answer(run: Run) -> Answer:
    judgement = run.detector.judgement()
    broke = judgement.outcome in ("nonfinite", "exploded")
    return Answer(judgement.outcome, math.inf if broke else judgement.last_loss)


def _finish(spec: LrRangeSpec, cell: CellPlan, run: Run, search: HoldSearch, held: list[Run]) -> Measured:
    ramp_record = run.record() | {"curve": _thinned(run), "hold_monotone": search.monotone}
    hold_record = [
        {"lr": trial.lrs[0], "validation_loss": _known(trial.validation_loss)} | trial.record() for trial in held
    ]
    record = Cell(
        key=cell.key,
        variant=cell.variant,
        seed=cell.seed,
        status="done",
        metrics=_metrics(spec, ramp_record, search, held),
        ramp=ramp_record,
        hold=hold_record,
    )
    return Measured(record, _curves(run, held))


def _metrics(
    spec: LrRangeSpec, ramp_record: Mapping[str, Any], search: HoldSearch, held: list[Run]
) -> dict[str, Bracket]:
    metrics: dict[str, Bracket] = {}
    explosion, onset = ramp_record["explosion_lr"], ramp_record["onset_lr"]
    beyond = Bracket(low=spec.end_lr, high=None)
    metrics["explosion_lr"] = _measured(explosion, spec.start_lr, beyond)
    metrics["steps_survived"] = (
        Bracket(low=spec.num_steps, high=None)
        if ramp_record["explosion_step"] is None
        else Bracket.exactly(ramp_record["explosion_step"])
    )
    if onset is not None or ramp_record["learned"]:
        metrics["onset_lr"] = _measured(onset, spec.start_lr, beyond)
    metrics["max_stable_lr"] = search.max_stable_lr
    trained = [t for t in held if t.detector.judgement().outcome in TRAINED]
    if trained:
        best = min(trained, key=lambda t: t.validation_loss)
        metrics["final_loss"] = Bracket.exactly(best.detector.judgement().last_loss)
        metrics["validation_loss"] = Bracket.exactly(best.validation_loss)
        metrics["lr_window"] = _window(search)
    return metrics


def _measured(lr: float | None, start_lr: float, beyond: Bracket) -> Bracket:
    if lr is None:
        return beyond
    return Bracket.exactly(lr) if lr > start_lr else Bracket(low=None, high=lr)


def _window(search: HoldSearch) -> Bracket:
    """Octaves from the smallest useful LR to the largest stable one."""
    top, bottom = search.max_stable_lr, search.min_useful_lr
    assert top.low is not None, "something trained"
    assert bottom.high is not None, "something trained"
    narrow = math.log2(top.low / bottom.high)
    if top.high is None or bottom.low is None:
        return Bracket(low=narrow, high=None)
    return Bracket(low=narrow, high=math.log2(top.high / bottom.low))


def _thinned(run: Run, points: int = 80) -> list[tuple[float, float]]:
    """(lr, loss) of the ramp for charts: the largest loss of each stretch, so that spikes survive."""
    stretch = max(1, math.ceil(len(run.losses) / points))
    return [
        (run.lrs[i], max(finite))
        for i in range(0, len(run.losses), stretch)
        if (finite := [x for x in run.losses[i : i + stretch] if math.isfinite(x)])
    ]


def _curves(run: Run, held: list[Run]) -> dict[str, NDArray[np.float64]]:
    longest = max((len(trial.losses) for trial in held), default=0)
    padded = np.full((len(held), longest), np.nan)
    for row, trial in zip(padded, held, strict=True):
        row[: len(trial.losses)] = trial.losses
    return {
        "ramp_lr": np.array(run.lrs),
        "ramp_loss": np.array(run.losses),
        "ramp_judged": np.array(run.judged),
        "ramp_grad_norm": np.array(run.grad_norms),
        "hold_lr": np.array([trial.lrs[0] for trial in held]),
        "hold_loss": padded,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
