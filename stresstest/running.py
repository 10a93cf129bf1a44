"""What the commands that train do: plan, train what is missing, store, reduce, print."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable

from stresstest.errors import ConfigError, ExitCode, InterruptedRunError, StorageError
from stresstest.reports.output import console, parse_output, render, write_outputs
from stresstest.reports.terminal import print_result
from stresstest.results import RESULT_SCHEMA, Cell, Result
from stresstest.specs import MODELS, SPECS, BoundarySpec, RunSettings

if TYPE_CHECKING:
    from stresstest.experiments.cells import CellPlan, Plan
    from stresstest.runs.store import RunStore

_EXPERIMENTS = {"lr-range": "lr_range", "depth-sweep": "depth_sweep"}  # the module of each command


@dataclass(frozen=True)
class Request:
    """One experiment to run: the spec, and how to run and show it."""

    command: str
    spec: BoundarySpec
    sources: Mapping[str, str]
    reproduce: str
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
        run, words = self.settings, [self.reproduce]
        if run.executor != "local":
            words += ["--executor", run.executor]
        if run.ray_address:
            words += ["--ray-address", shlex.quote(run.ray_address)]
        for key, value in run.slurm:
            words += ["--slurm", shlex.quote(f"{key}={value}")]
        if run.shard[1] > 1:
            words.append(f"--shard {run.shard[0]}/{run.shard[1]}")
        if self.run_dir:
            words += ["--run-dir", shlex.quote(self.run_dir)]
        return " ".join(words)


def run_experiment(request: Request) -> int:
    """Plan, train what is missing, store and print the result."""
    outputs = [parse_output(text) for text in request.outputs]
    plan = plan_experiment(request)
    if request.dry_run:
        return print_plan(plan, request)
    path, result = train_experiment(plan, request)
    if result is None:
        return _exit_code(_stored(path))
    write_outputs(result, outputs)
    if request.as_json:
        sys.stdout.write(result.to_json())
    else:
        print_result(result, console(), str(path))
    return _exit_code([cell.status for cell in result.cells])


def plan_experiment(request: Request) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    plan: Plan = _experiment(request.command).plan(request.spec)
    return plan


def train_experiment(plan: Plan, request: Request) -> tuple[Path, Result | None]:
    """Train what is missing; the run's directory, and its result unless cells were left for later."""
    from stresstest.runs.store import choose_directory, open_run, other_runs

    path = choose_directory(request.run_dir, plan.identity, request.command, request.fresh)
    others = [] if request.fresh else other_runs(path, request.command)
    manifest = {
        "schema": "stresstest.manifest/1",
        "identity": plan.identity,
        "command": request.command,
        "reproduce": request.reproduce,
        "spec": plan.spec.model_dump(mode="json"),
        "sources": dict(request.sources),
        "code": plan.settings["code"],
        "rules": plan.rules,
        "environment": plan.environment,
        "data": plan.data,
    }
    with open_run(path, manifest, request.fresh, others) as store:
        cells, missing = _train(plan, store, request)
        return path, None if missing else _finish(store, manifest, cells)


def merge_runs(paths: Sequence[Path], run_dir: str | None, outputs: Sequence[str], as_json: bool) -> int:
    """Join the cells of shards into one run and print its result; cells that no shard has are a `ConfigError`."""
    from stresstest.runs.store import choose_directory, open_run, planned_cells, read_manifest, stored_status

    written = [parse_output(text) for text in outputs]
    manifests = []
    for path in paths:
        manifest = read_manifest(path)
        if manifest is None:
            raise ConfigError(f"{path} holds no run; give the directories of the shards")
        manifests.append(manifest)
        different = _differences(manifests[0], manifest)
        if different:
            raise ConfigError(f"{paths[0]} and {path} are no shards of one run: {different}")
    wanted = planned_cells(paths[0])
    ended = {key for path in paths for key in stored_status(path)}
    missing = len(set(wanted) - ended)
    if not wanted:
        raise ConfigError(f"{paths[0]} has planned no cells yet; merge all shards once they have ended")
    if missing:
        raise ConfigError(
            f"{missing} of {len(wanted)} cells are in none of these runs; merge all shards once they have ended"
        )
    command = manifests[0]["command"]
    path = choose_directory(run_dir, "", command, fresh=True)
    with open_run(path, manifests[0]) as store:
        store.write_plan(wanted)
        for statuses in ({"done"}, {"crashed", "oom", "timeout"}):
            store.take_over(set(wanted) - set(stored_status(path)), paths, statuses)
        cells = store.finished()
        result = _finish(store, manifests[0], [cells[key] for key in wanted])
    write_outputs(result, written)
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        print_result(result, console(), str(path))
    return _exit_code([cell.status for cell in result.cells])


def _experiment(command: str) -> Any:
    return importlib.import_module(f"stresstest.experiments.{_EXPERIMENTS[command]}")


def _exit_code(statuses: Sequence[str]) -> int:
    return ExitCode.MODEL_FAILED if any(status != "done" for status in statuses) else ExitCode.OK


def _stored(path: Path) -> list[str]:
    from stresstest.runs.store import planned_cells, stored_status

    stored = stored_status(path)
    return [stored[key] for key in planned_cells(path) if key in stored]


def _finish(store: RunStore, manifest: Mapping[str, Any], cells: list[Cell]) -> Result:
    """Reduce the cells of a run and write its result and report."""
    command = manifest["command"]
    reduced = _experiment(command).reduce(SPECS[command].model_validate(manifest["spec"]), cells)
    result = Result(
        schema_=RESULT_SCHEMA,
        cells=cells,
        summary=reduced.summary,
        trends=reduced.trends,
        findings=reduced.findings,
        **{name: manifest[name] for name in ("command", "reproduce", "spec", "rules", "environment", "data")},
    )
    store.write_result(result.to_json())
    store.write_report(render(result, "html"))
    return result


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What keeps two runs from being parts of one, in words; nothing if they are."""
    if ours["identity"] == theirs["identity"]:
        return ""
    found = [f"{name} {ours[name]} and {theirs[name]}" for name in ("command", "code") if ours[name] != theirs[name]]
    for part, names in (("spec", ours["spec"]), ("environment", ["key"]), ("data", ["hash"])):
        for name in names:
            one, other = ours[part].get(name), theirs[part].get(name)
            if one != other and name != "device":
                found.append(f"{name if part == 'spec' else part} {one} and {other}")
    return "; ".join(found) or "other cells"


def _train(plan: Plan, store: RunStore, request: Request) -> tuple[list[Cell], int]:
    from stresstest.experiments.cells import Listener, run
    from stresstest.reports.progress import Progress

    progress = Progress(console(stderr=True), quiet=request.quiet, verbose=request.verbose)
    running: dict[str, str] = {}

    def known(cells: Sequence[CellPlan], finished: Sequence[Cell]) -> None:
        ended = {cell.key for cell in finished}
        progress.cells_known(finished, [cell.depth for cell in cells if cell.key not in ended])

    def started(cell: CellPlan) -> None:
        running[cell.key] = f"{cell.variant} depth {cell.depth} seed {cell.seed}"
        store.write_progress(list(running.values()), progress.seconds_left)

    def ended(cell: Cell) -> None:
        running.pop(cell.key, None)
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
        _say_why_it_ends(cells, missing, progress.ended == progress.total, store.path, request)
    return cells, missing


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
    for name, value in plan.spec.model_dump(exclude=set(MODELS[plan.spec.model].lacks)).items():
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
