"""What the commands that train do: plan, train what is missing, store, reduce, print."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable

from stresstest.errors import ConfigError, ExitCode, InterruptedRunError, StorageError
from stresstest.experiments.show import print_result, result_text, show_result
from stresstest.experiments.specs import SPECS
from stresstest.gate.claims import judge
from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.reports.numbers import cell_name
from stresstest.reports.output import console, parse_output
from stresstest.reports.terminal import print_document
from stresstest.results.records import RESULT_SCHEMA, Cell, Result
from stresstest.runs.settings import RunSettings
from stresstest.specs.base import TrainingSpec, kind_of
from stresstest.user_code import loaded_sources

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.measurements.base import CellPlan
    from stresstest.runs.store import RunStore
    from stresstest.scenario.reader import Experiment, Scenario

_EXPERIMENTS = {command: command.replace("-", "_") for command in SPECS}  # the module of each command


@dataclass(frozen=True)
class Request:
    """One experiment to run: the spec, and how to run and show it."""

    command: str
    spec: TrainingSpec
    sources: Mapping[str, str]
    reproduce: str  # the line that gives this result again
    resume: str  # the line that goes on with the run, where that is another one
    settings: RunSettings
    run_dir: str | None
    fresh: bool
    outputs: Sequence[str]
    as_json: bool
    quiet: bool
    verbose: bool
    dry_run: bool

    @property
    def again(self) -> str:
        """The command that goes on with this run."""
        return self.line + (f" --run-dir {shlex.quote(self.run_dir)}" if self.run_dir else "")

    @property
    def line(self) -> str:
        """The same without the run directory."""
        run, words = self.settings, [self.resume or self.reproduce]
        if run.executor != "local":
            words += ["--executor", run.executor]
        if run.ray_address:
            words += ["--ray-address", shlex.quote(run.ray_address)]
        for key, value in run.slurm:
            words += ["--slurm", shlex.quote(f"{key}={value}")]
        if run.storage:
            has_password = ":" in run.storage.partition("://")[2].rpartition("@")[0]
            storage = '"$STRESSTEST_STORAGE"' if has_password else shlex.quote(run.storage)  # the line is stored
            words += ["--storage", storage, "--study", shlex.quote(run.study)]
        if run.shard[1] > 1:
            words.append(f"--shard {run.shard[0]}/{run.shard[1]}")
        return " ".join(words)


def run_experiment(request: Request) -> int:
    """Plan, train what is missing, store and print the result."""
    outputs = [parse_output(text) for text in request.outputs]
    plan = plan_experiment(request)
    if request.dry_run:
        return print_plan(plan, request)
    path, result, _ = train_experiment(plan, request)
    if result is None:
        return exit_code(_stored(path))
    show_result(result, str(path), outputs, request.as_json)
    return exit_code([cell.status for cell in result.cells])


def run_scenario(scenario: Scenario, requests: Sequence[Request]) -> int:
    """Plan every experiment, then train and print one after the other; each is a run in the scenario's folder.

    What became of its claims, where it has some and every experiment a result, comes last.
    """
    from stresstest.runs.store import choose_folder, write_scenario

    name, experiments = scenario.name, scenario.experiments
    plans = plan_scenario(experiments, requests)
    first, out = requests[0], console()
    if first.dry_run:
        for experiment, plan, request in zip(experiments, plans, requests, strict=True):
            out.print(f"\n[bold]{experiment.name}[/bold]: {experiment.command}")
            print_plan(plan, request)
        return ExitCode.OK
    identities = {experiment.name: plan.identity for experiment, plan in zip(experiments, plans, strict=True)}
    folder = choose_folder(first.run_dir, name, identities, first.fresh)
    write_scenario(folder, name, [experiment.name for experiment in experiments])
    results, code, left = {}, int(ExitCode.OK), first.settings.max_cells
    for experiment, plan, asked in zip(experiments, plans, requests, strict=True):
        request = replace(asked, settings=replace(asked.settings, max_cells=left))
        if not first.quiet:
            console(stderr=True).print(f"{experiment.name}: {experiment.command}", markup=False)
        path, result, trained = train_experiment(plan, request, folder / experiment.name)
        own = exit_code(_stored(path))
        code = max(code, own)
        left = None if left is None else left - trained
        failed = request.settings.fail_fast and own != ExitCode.OK
        if failed or (result is None and request.settings.shard[1] == 1):
            break  # stopped early, as it has said
        if result is None:
            continue
        results[experiment.name] = result
        if not first.as_json:
            out.rule(f"{experiment.name}: {experiment.command}", style="dim")
            print_result(result, out, str(path))
    if first.as_json:
        stored = {name: json.loads(result.to_json()) for name, result in results.items()}
        sys.stdout.write(json.dumps({"schema": "stresstest.results/1", "scenario": name, "results": stored}) + "\n")
    elif scenario.claims and len(results) == len(experiments):
        out.rule("claims", style="dim")
        print_document(claims_document([chapter_of(name, scenario, results)]), out)
    return code


def chapter_of(name: str, scenario: Scenario, results: Mapping[str, Result]) -> Chapter:
    """The claims of a scenario, judged."""
    seconds = sum(cell.seconds for result in results.values() for cell in result.cells)
    return Chapter(name, scenario.paper, [judge(claim, results) for _, claim in scenario.claims], seconds)


def plan_scenario(experiments: Sequence[Experiment], requests: Sequence[Request]) -> list[Plan]:
    """The plans of a scenario; raises `ConfigError` with the experiment's place in the file before any training."""
    plans = []
    for experiment, request in zip(experiments, requests, strict=True):
        try:
            plans.append(plan_experiment(request))
        except ConfigError as error:
            raise type(error)(f"{experiment.where}: experiments.{experiment.name}: {error}") from None
    return plans


def plan_experiment(request: Request) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    plan: Plan = _experiment(request.command).plan(request.spec)
    if plan.own is not None and not request.quiet:
        for note in plan.own.notes:
            console(stderr=True).print(note, markup=False, soft_wrap=True)
    if request.settings.storage and request.command == "warmup":
        from stresstest.experiments.warmup.search import check_storage

        check_storage(plan, request.settings)
    return plan


def train_experiment(plan: Plan, request: Request, path: Path | None = None) -> tuple[Path, Result | None, int]:
    """Train what is missing: the run's directory, its result unless cells were left, how many were trained."""
    from stresstest.runs.store import choose_directory, open_run, other_runs

    folder = None if path is None else path.parent
    if path is None:
        path = choose_directory(request.run_dir, plan.identity, request.command, request.fresh)
    others = [] if request.fresh else other_runs(path, request.command)
    manifest = {
        "schema": "stresstest.manifest/1",
        "identity": plan.identity,
        "command": request.command,
        "reproduce": request.reproduce,
        "again": f"{request.line} --run-dir {shlex.quote(str(folder or path))}",
        "shard": list(request.settings.shard),
        "spec": plan.spec.model_dump(mode="json"),
        "sources": dict(request.sources),
        "code": plan.settings["code"],
        "modules": loaded_sources(),
        "rules": plan.rules,
        "environment": plan.environment,
        "data": plan.data,
    }
    with open_run(path, manifest, request.fresh, others) as store:
        cells, missing, trained = _train(plan, store, request, folder)
        return path, None if missing else finish_run(store, manifest, cells), trained


def _experiment(command: str) -> Any:
    return importlib.import_module(f"stresstest.experiments.{_EXPERIMENTS[command]}.experiment")


def exit_code(statuses: Sequence[str]) -> int:
    """4 if a cell has no result."""
    return ExitCode.MODEL_FAILED if any(status != "done" for status in statuses) else ExitCode.OK


def _stored(path: Path) -> list[str]:
    from stresstest.runs.store import planned_cells, stored_status

    stored = stored_status(path)
    return [stored[key] for key in planned_cells(path) if key in stored]


def finish_run(store: RunStore, manifest: Mapping[str, Any], cells: list[Cell]) -> Result:
    """Reduce the cells of a run and write its result and report."""
    command = manifest["command"]
    reduced = _experiment(command).reduce(SPECS[command].model_validate(manifest["spec"]), cells, manifest["data"])
    result = Result(
        schema_=RESULT_SCHEMA,
        cells=cells,
        summary=reduced.summary,
        trends=reduced.trends,
        searches=reduced.searches,
        findings=reduced.findings,
        **{name: manifest[name] for name in ("command", "reproduce", "spec", "rules", "environment", "data")},
    )
    store.write_result(result.to_json())
    store.write_report(result_text(result, "html"))
    return result


def _train(plan: Plan, store: RunStore, request: Request, folder: Path | None) -> tuple[list[Cell], int, int]:
    from stresstest.experiments.cells import Listener, run
    from stresstest.reports.progress import Progress

    progress = Progress(console(stderr=True), quiet=request.quiet, verbose=request.verbose)
    running: dict[str, str] = {}
    trained: list[str] = []

    def known(cells: Sequence[CellPlan], finished: Sequence[Cell]) -> None:
        ended = {cell.key for cell in finished}
        progress.cells_known(finished, [cell.depth for cell in cells if cell.key not in ended])

    def started(cell: CellPlan) -> None:
        running[cell.key] = cell_name(cell)
        store.write_progress(list(running.values()), progress.seconds_left)

    def ended(cell: Cell) -> None:
        running.pop(cell.key, None)
        trained.append(cell.key)
        progress.cell_ended(cell)
        store.write_progress(list(running.values()), progress.seconds_left)

    with progress:
        try:
            cells, missing = run(plan, store, request.settings, Listener(known, started, ended, _say_stopping))
        except InterruptedRunError as error:
            raise InterruptedRunError(
                f"interrupted; {progress.ended} of {progress.total} cells are saved in {store.path}; "
                f"to go on: {request.again}",
                error.exit_code,
            ) from None
        except StorageError as error:
            raise StorageError(f"{error}; to go on once it can: {request.again}") from None
    if missing:
        _say_why_it_ends(cells, missing, progress.ended == progress.total, folder or store.path, request)
    return cells, missing, len(trained)


def _say_stopping() -> None:
    sys.stderr.write("stopping: what is in training is saved where that is quick; once more to stop at once\n")


def _say_why_it_ends(cells: Sequence[Cell], missing: int, all_of_shard: bool, path: Path, request: Request) -> None:
    index, number = request.settings.shard
    saved = f"{len(cells)} of {len(cells) + missing} cells are saved in {path}"
    if number > 1 and all_of_shard:
        text = f"shard {index} of {number} has ended: {saved}; with the others: stresstest merge {path} ..."
    else:
        failed = request.settings.fail_fast and any(cell.status != "done" for cell in cells)
        why = "a cell failed (--fail-fast)" if failed else "as many as --max-cells allows"
        text = f"stopped early: {why}; {saved}; to go on: {request.again}"
    console(stderr=True).print(text, markup=False, soft_wrap=True)


def print_plan(plan: Plan, request: Request) -> int:
    """Print the resolved settings with the source of each, and what they ask for."""
    from stresstest.engine.memory import gib

    table = RichTable("setting", "value", "from", box=None, pad_edge=False)
    for name, value in plan.spec.model_dump(exclude=set(kind_of(plan.spec.model).lacks)).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        table.add_row(name, shown, request.sources[name])
    out = console()
    out.print(table)
    cells = len(plan.cells)
    need = max((plan.need(cell) for cell in plan.cells), key=lambda need: need.total)
    out.print(
        f"\n{cells} cell{'s' * (cells > 1)} on {plan.environment['device_name']}, "
        f"at most about {gib(need.total)} a replica; nothing was trained"
    )
    return ExitCode.OK
