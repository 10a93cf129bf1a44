"""What all that trains does: plan, train what is missing, store, reduce. It tells a listener and prints nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError, ExitCode, InterruptedRunError, StorageError
from stresstest.experiments.reduction import result_of
from stresstest.experiments.result_views import document_of
from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.unfinished import MANIFEST_SCHEMA, unfinished_document
from stresstest.gate.claims import Judged
from stresstest.gate.claims_report import Chapter, size_words
from stresstest.loggers.table import parse_target
from stresstest.reports.document import Document
from stresstest.reports.output import render
from stresstest.results.records import Cell, Result, read_result
from stresstest.results.sums import DamagedError
from stresstest.runs.ranks import check_ranks
from stresstest.scenario.library import PAPERS, shipped_scenarios
from stresstest.scenario.request import Request
from stresstest.user_code import loaded_sources

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.loggers.session import CellLog
    from stresstest.measurements.base import CellPlan
    from stresstest.results.progress import Progress
    from stresstest.runs.store import RunStore
    from stresstest.scenario.reader import Scenario, ScenarioExperiment

_REFRESH_SECONDS = 20.0  # between two pages of a run that trains, at least


@dataclass(frozen=True)
class Left:
    """Why a run ends before all its cells are trained, and how many are in which folder."""

    finished: int
    total: int
    folder: Path
    shard_ended: bool  # all cells of its shard are there
    cell_failed: bool  # and --fail-fast was asked for


class RunListener:
    """Who is told how a run goes; this one hears nothing."""

    wants_notes = False  # those that take some timed steps too

    def note(self, text: str) -> None:
        """Something about the user's model that its user should know before training."""

    def experiment(self, name: str, command: str) -> None:
        """An experiment of several begins."""

    def training(self, request: Request) -> AbstractContextManager[TrainingListener]:
        """Training begins; what is told until it ends."""
        return nullcontext(TrainingListener())


class TrainingListener:
    """Who is told how the training of an experiment goes; this one hears nothing."""

    wants_estimate = False  # before the first step: then some steps are timed

    def cells_known(self, finished: Sequence[Cell], missing: int) -> None:
        """More cells belong to the run: those that are on the disk, and so many others."""

    def estimate(self, progress: Progress, at_once: int) -> None:
        """Before the first step: how long it will take, so many groups of cells at once."""

    def progress(self, progress: Progress) -> None:
        """How far the run is, about twice a second, from another thread."""

    def cell_ended(self, cell: Cell, progress: Progress) -> None:
        """A cell has a result, or failed; how far the run is then."""

    def stopping(self) -> None:
        """The user or the system asked the run to stop; what can be saved is."""

    def left(self, left: Left, request: Request) -> None:
        """The run has ended with cells missing."""


SILENT = RunListener()


@dataclass(frozen=True)
class Trained:
    """A run that has ended: its directory, its result with its report unless cells are left, how many were trained."""

    path: Path
    result: Result | None
    document: Document | None
    num_trained: int
    exit_code: int  # of all its cells that are stored
    stopped: bool = False  # early: by --max-cells, or as a cell failed under --fail-fast


def train_scenario(
    scenario: Scenario, plans: Sequence[Plan], requests: Sequence[Request], folder: Path, listener: RunListener = SILENT
) -> Iterator[tuple[ScenarioExperiment, Trained]]:
    """Train one experiment after the other, each in a folder of its name; stops where one was stopped early."""
    left = requests[0].settings.max_cells
    for experiment, plan, requested in zip(scenario.experiments, plans, requests, strict=True):
        request = replace(requested, settings=replace(requested.settings, max_cells=left))
        if not request.quiet:
            listener.experiment(experiment.name, experiment.command)
        trained = train_experiment(plan, request, folder / experiment.name, listener)
        left = None if left is None else left - trained.num_trained
        yield experiment, trained
        if trained.stopped:
            return  # as the listener was told


def chapter_of(name: str, paper: str, judged: Sequence[Judged], results: Mapping[str, Result]) -> Chapter:
    """The judged claims of a scenario, and what they rest on."""
    seconds = sum(cell.seconds for result in results.values() for cell in result.cells)
    again = f"stresstest papers {name}" if f"{PAPERS}/{name}" in shipped_scenarios() else ""
    first = min((cell.seed for result in results.values() for cell in result.cells), default=None)
    device = ", ".join(dict.fromkeys(result.environment["device_name"] for result in results.values()))
    return Chapter(name, paper, judged, seconds, size_words(results), again, first, device)


def stored_result(plan: Plan, path: Path) -> Result | None:
    """The result of a plan that lies in a run directory; `None` where there is none, or one of other settings."""
    from stresstest.runs.directory import manifest_of

    if manifest_of(path).get("identity") not in plan.identities or not (path / "result.json").exists():
        return None
    try:
        return read_result(path / "result.json")
    except DamagedError:  # its cells are whole, or are trained again
        return None


def plan_scenario(
    experiments: Sequence[ScenarioExperiment], requests: Sequence[Request], listener: RunListener = SILENT
) -> list[Plan]:
    """The plans of a scenario; raises `ConfigError` with the experiment's place in the file before any training."""
    plans = []
    for experiment, request in zip(experiments, requests, strict=True):
        try:
            plans.append(plan_experiment(request, listener))
        except ConfigError as error:
            raise type(error)(f"{experiment.where}: experiments.{experiment.name}: {error}") from None
    return plans


def plan_experiment(request: Request, listener: RunListener = SILENT) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    from stresstest.experiments.kept_task import kept_while_planned  # which imports torch

    experiment = EXPERIMENTS[request.command]
    for text in request.logs:
        parse_target(text)
    _check_ranks(request)
    with kept_while_planned(request.spec):
        plan = experiment.plan(request.spec)
    if not request.quiet:
        for note in (*(() if plan.own is None else plan.own.notes), *plan.said):
            listener.note(note)
        if listener.wants_notes and (slower := _slower_dtype(plan)):
            listener.note(slower)
    if request.settings.storage:
        experiment.check_storage(plan, request.settings)
    return plan


def _slower_dtype(plan: Plan) -> str:
    from stresstest.experiments.half_precision import slower_words  # which imports torch

    return slower_words(plan)


def _check_ranks(request: Request) -> None:
    """Whether processes of torchrun are asked for, are there, and are not asked to start others."""
    parallel, run = getattr(request.spec, "parallel", "off"), request.settings
    check_ranks(parallel != "off")
    if parallel == "off":
        return
    others = {
        f"--executor {run.executor}": run.executor != "local",
        f"-j {run.jobs}": run.jobs not in (None, 1),
        f"--per-gpu {run.per_gpu}": run.per_gpu != 1,
        "--cell-timeout": run.cell_timeout is not None,
    }
    if wrong := [option for option, given in others.items() if given]:
        raise ConfigError(
            f"parallel {parallel} trains one cell at a time on all processes of torchrun; leave out {wrong[0]}"
        )


def train_experiment(plan: Plan, request: Request, path: Path | None = None, listener: RunListener = SILENT) -> Trained:
    """Train what is missing, in the directory of the run."""
    from stresstest.loggers.session import CellLog, RunFacts
    from stresstest.runs.directory import choose_directory, other_runs
    from stresstest.runs.store import open_run

    folder = None if path is None else path.parent
    if path is None:
        path = choose_directory(request.run_dir, plan.identities, request.command, request.fresh)
    plan = plan if request.fresh else _as_begun(plan, path)
    others = [] if request.fresh else other_runs(path, request.command)
    if not (request.quiet or request.fresh) and (old := _of_other_code(path, plan)):
        listener.note(f"{old} saved cells in {path} are of another version of the training code; training them again")
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "identity": plan.identity,
        "command": request.command,
        "reproduce": request.reproduce,
        "again": request.going_on(folder or path),
        "shard": list(request.settings.shard),
        "spec": plan.spec.model_dump(mode="json"),
        "sources": dict(request.sources),
        "code": plan.settings["code"],
        "modules": loaded_sources(),
        "rules": plan.rules,
        "environment": plan.environment,
        "data": plan.data,
    }
    with open_run(path, manifest, request.fresh, others, listener.note) as store:
        facts = RunFacts(request.command, manifest["spec"], str(path.resolve()), request.reproduce)
        log = CellLog([parse_target(text) for text in request.logs], path, facts, listener.note)
        cells, missing, number = _train(plan, store, request, folder or path, listener, log)
        result, document = (None, None) if missing else finish_run(store, manifest, cells)
    code, settings = exit_code(_stored(path)), request.settings
    failed = settings.fail_fast and code != ExitCode.OK
    return Trained(path, result, document, number, code, failed or (result is None and settings.shard[1] == 1))


def _as_begun(plan: Plan, path: Path) -> Plan:
    """The plan with the kernel of the run that it goes on, where nobody asked for one."""
    from stresstest.runs.directory import manifest_of

    manifest = manifest_of(path)
    if manifest.get("code") != plan.settings["code"]:
        return plan
    other = plan.other_kernel
    return plan.of_kernel(other) if other is not None and other == manifest["spec"].get("kernel") else plan


def _of_other_code(path: Path, plan: Plan) -> int:
    """How many finished cells of a run directory are of another version of the code, which makes other keys."""
    from stresstest.runs.directory import manifest_of, stored_status

    manifest = manifest_of(path)
    if not manifest or manifest.get("code") == plan.settings["code"]:
        return 0
    keys = {cell.key for cell in plan.cells}
    return sum(status == "done" for key, status in stored_status(path).items() if key not in keys)


def exit_code(statuses: Sequence[str]) -> int:
    """4 if a cell has no result."""
    return ExitCode.MODEL_FAILED if any(status != "done" for status in statuses) else ExitCode.OK


def _stored(path: Path) -> list[str]:
    from stresstest.runs.directory import planned_cells, stored_status

    stored = stored_status(path)
    return [stored[key] for key in planned_cells(path) if key in stored]


def finish_run(store: RunStore, manifest: Mapping[str, Any], cells: list[Cell]) -> tuple[Result, Document]:
    """Reduce the cells of a run and write its result and report."""
    result = result_of(manifest, cells)
    store.write_result(result.json_parts())
    document = document_of(result)
    page = replace(document, links=("result.json", "cells.jsonl"), date=store.last_day())
    store.write_report(render(page, "html"))
    store.write_answer([verdict.text for verdict in document.verdicts])
    return result.of_run(store.path), document


class _Page:
    """The report of a run that trains, written again as it goes on: seldom, and in a fiftieth of the time at most."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._due = time.monotonic() + _REFRESH_SECONDS

    def refresh(self) -> None:
        """Write it where it is due."""
        if time.monotonic() >= self._due:
            started = time.monotonic()
            self.write(running=True)
            ended = time.monotonic()
            self._due = ended + max(_REFRESH_SECONDS, 50 * (ended - started))

    def write(self, running: bool) -> None:
        """Write it; what a page cannot show stops no training."""
        with suppress(Exception):
            self._store.write_report(render(unfinished_document(self._store.path, running), "html"))


def _train(
    plan: Plan, store: RunStore, request: Request, folder: Path, listener: RunListener, log: CellLog
) -> tuple[list[Cell], int, int]:
    """The cells of the plan that are stored, how many are missing, and how many were trained now."""
    from stresstest.experiments.cells import Listener, run
    from stresstest.experiments.following import Following

    with listener.training(request) as training:
        page = _Page(store)
        estimate = training.estimate if training.wants_estimate else None
        following = Following(plan, store, request.settings, training.progress, estimate)

        def cells_known(planned: Sequence[CellPlan], finished: Sequence[Cell]) -> None:
            following.cells_known(planned, finished)
            training.cells_known(finished, len(planned) - len(finished))
            for cell in finished:
                log.tell(cell)

        def cell_started(group: Sequence[CellPlan]) -> None:
            following.cell_started(group)
            page.refresh()

        def cell_ended(cell: Cell) -> None:
            training.cell_ended(cell, following.cell_ended(cell))
            page.refresh()
            log.tell(cell)

        hooks = Listener(cells_known, following.grouped, cell_started, cell_ended, training.stopping)
        try:
            with following:
                cells, missing = run(plan, store, request.settings, hooks)
        except InterruptedRunError as error:
            page.write(running=False)
            raise InterruptedRunError(
                f"interrupted; {following.ended} of {following.total} cells are saved in {store.path}; "
                f"to go on: {request.again}",
                error.exit_code,
            ) from None
        except StorageError as error:
            raise StorageError(f"{error}; to go on once it can: {request.again}") from None
    if missing:
        page.write(running=False)
        failed = request.settings.fail_fast and any(cell.status != "done" for cell in cells)
        total = len(cells) + missing
        training.left(Left(len(cells), total, folder, following.ended == following.total, failed), request)
    return cells, missing, len(following.trained)
