"""What a worker does: train cells of one architecture and optimizer, and measure them.

All that a cell's numbers depend on is imported from here; no plan, run directory or report is.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stresstest.engine.decoding import Decoding
from stresstest.engine.memory import OutOfMemoryError
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import DTYPES, Training
from stresstest.engine.train import Batches
from stresstest.errors import ConfigError, StoppedError
from stresstest.experiments.kernel import check_kernel
from stresstest.measurements.ahead import Ahead, Question, answer_ahead
from stresstest.measurements.base import Bench, CellPlan, Measurement, probing
from stresstest.measurements.built_in import BuiltInBench
from stresstest.measurements.course import hold
from stresstest.measurements.journal import Journal
from stresstest.measurements.replica import ReplicaRun
from stresstest.models.build import make_model
from stresstest.results.records import Cell, Status
from stresstest.runs.executor import tail
from stresstest.runs.identity import cell_key, environment
from stresstest.runs.live import telling
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model
from stresstest.specs.parsing import parse_choice
from stresstest.tasks import load_task
from stresstest.user_code import UserCodeError, heard_once
from stresstest.user_model.bench import user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.parallel.settings import is_parallel

# Measures cells of one architecture and optimizer as populations: what each gets.
MeasureCells = Callable[[Bench, Any, Sequence[CellPlan]], list[Measurement]]


@dataclass
class Measured:
    """A finished cell and its curves (arrays by name, for the run directory)."""

    cell: Cell
    curves: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Group:
    """Cells of one architecture and optimizer that train as one population, within a share of the memory."""

    spec: TrainingSpec
    device: str
    cells: tuple[CellPlan, ...]
    memory_share: float = 1.0
    environment: str = ""  # whose results these are; a node of another kind must not train them
    checkpoints: str = ""  # the folder for checkpoints of training under way; none without
    constant: Constant | None = None  # the best constant predictor of the user's model, where the preflight tried it
    live: str = ""  # the folder for what is told of training under way; none without
    ahead: str = ""  # the folder for holds that others train ahead; none without
    branches: bool = False  # its cells branch from one run, and cannot be trained one by one

    @property
    def checkpoint(self) -> Path | None:
        """Where training under way is kept; the keys of the cells are in its name."""
        return Path(self.checkpoints) / f"{self._name}.pt" if self.checkpoints else None

    @property
    def told(self) -> Path | None:
        """Where it is told how far it is, likewise."""
        return Path(self.live) / f"{self._name}.json" if self.live else None

    @property
    def shared(self) -> Path | None:
        """Where holds are offered to others, likewise."""
        return Path(self.ahead) / self._name if self.ahead else None

    @property
    def _name(self) -> str:
        return cell_key({"cells": [cell.key for cell in self.cells]})


@dataclass(frozen=True)
class HoldAhead:
    """A hold that a group's search may ask for."""

    group: Group
    question: Question


def do_task(measure: MeasureCells, task: Group | HoldAhead) -> list[Measured]:
    """Train a group's cells, or a hold for a group that is in training elsewhere, of which nothing is stored."""
    if isinstance(task, Group):
        return train_cells(measure, task)
    assert task.group.shared is not None, "it was asked for there"
    with suppress(OutOfMemoryError, UserCodeError):  # the group itself meets them, if it comes to that
        answer_ahead(task.group.shared, task.question, partial(_hold, task))
    return []


def _hold(task: HoldAhead, journal: Journal) -> ReplicaRun:
    group, question = task.group, task.question
    with _heard_once(group):
        bench = _bench_of(group, None)
        bench.journal = journal
        return hold(bench, [(question.seed, question.lr)], question.num_steps)[0]


def _heard_once(group: Group) -> AbstractContextManager[Any]:
    return heard_once() if is_user_model(group.spec.model) else nullcontext()


def _bench_of(group: Group, journal: Path | None) -> Bench:
    first = group.cells[0]
    where = (group.device, group.memory_share, journal, group.constant)
    return make_bench(group.spec, first.variant, first.depth, first.optimizer(group.spec), *where)


def train_cells(measure: MeasureCells, group: Group) -> list[Measured]:
    """Train cells of one architecture and optimizer as populations; a replica that does not fit is `oom`."""
    with telling(group.told, [cell.key for cell in group.cells]):
        return _train_cells(measure, group)


def _train_cells(measure: MeasureCells, group: Group) -> list[Measured]:
    started = time.perf_counter()
    first = group.cells[0]
    here = environment(group.device, group.spec.dtype)["key"] if group.environment else ""
    if here != group.environment:
        raise ConfigError(f"this node is {here}, but the run started on {group.environment}; use identical nodes")
    check_kernel(group.spec)
    try:
        with _heard_once(group):
            bench = _bench_of(group, group.checkpoint)
            if len(group.cells) > 1 and not group.branches and not bench.rows_are_alike([c.seed for c in group.cells]):
                return _one_by_one(measure, group)
            bench.ahead = Ahead(group.shared)
            before = bench.replay_seconds
            found = measure(bench, group.spec, group.cells)
    except OutOfMemoryError as error:
        if len(group.cells) > 1:
            return _one_by_one(measure, group)
        traced = f"{error.text}{error}" if is_user_model(group.spec.model) else str(error)
        return [Measured(failed(first, "oom", traced), {})]
    except UserCodeError as error:
        if len(group.cells) > 1:
            return _one_by_one(measure, group)
        return [Measured(failed(first, "crashed", str(error)), {})]
    except (StoppedError, ConfigError):
        raise
    except Exception:
        if len(group.cells) > 1:  # it may be one of them alone
            return _one_by_one(measure, group)
        raise
    seconds = round((time.perf_counter() - started) / len(group.cells), 3)
    replays = round((bench.replay_seconds - before) / len(group.cells), 3)
    return [
        Measured(_cell(cell, "done", metrics=one.metrics, **_costs(seconds, one, replays), **one.records), one.curves)
        for cell, one in zip(group.cells, found, strict=True)
    ]


def _one_by_one(measure: MeasureCells, group: Group) -> list[Measured]:
    """Each cell by itself, so that one that fails takes nobody along."""
    found = []
    for cell in group.cells:
        try:
            found += _train_cells(measure, replace(group, cells=(cell,)))
        except (StoppedError, ConfigError):
            raise
        except Exception:
            found.append(Measured(failed(cell, "crashed", tail(traceback.format_exc())), {}))
    return found


def failed(cell: CellPlan, status: Status, error: str) -> Cell:
    """A cell that has no result, and why."""
    return _cell(cell, status, error=error)


def make_bench(
    spec: TrainingSpec,
    variant: str,
    depth: int,
    optimizer: str,
    device: str,
    memory_share: float = 1.0,
    journal: Path | None = None,
    constant: Constant | None = None,
) -> Bench:
    """What the measurements of one architecture and optimizer share."""
    if is_parallel(spec):
        from stresstest.user_model.parallel.bench import sharded_bench  # takes a second to import

        return sharded_bench(spec, variant, depth, optimizer, device, journal, constant)
    if is_user_model(spec.model):
        return user_bench(spec, variant, depth, optimizer, device, journal, constant)
    chosen = parse_choice(optimizer, OPTIMIZERS)
    where = torch.device(device)
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    training = Training(
        OPTIMIZERS[chosen.name],
        chosen.numbers,
        where,
        DTYPES[spec.dtype],
        spec.clip_norm,
        spec.micro_batch,
        kernel="torch" if spec.kernel == "auto" else spec.kernel,  # auto has been resolved, or nobody plans
    )
    return BuiltInBench(
        make_model(spec, variant, depth, task),
        training,
        Batches(task, where, spec.label_smoothing, spec.vocab_size),
        decoding=Decoding(spec.beam, spec.length_penalty, spec.penalized_length),
        memory_share=memory_share,
        journal=Journal(journal),
        probing=probing(spec),
    )


def _costs(seconds: float, measured: Measurement, replays: float) -> dict[str, float]:
    return {"seconds": seconds, "probe_seconds": round(measured.probe_seconds, 3), "replay_seconds": replays}


def _cell(cell: CellPlan, status: Status, **fields: Any) -> Cell:
    where = {"variant": cell.variant, "depth": cell.depth, "seed": cell.seed, "point": dict(cell.point)}
    return Cell(key=cell.key, status=status, **where, **fields)
