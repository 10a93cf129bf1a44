"""What each command does once its line is parsed: call, print, exit code."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable

from stresstest.errors import ConfigError, ExitCode, InterruptedRunError
from stresstest.models.variants import NORMS, VARIANTS
from stresstest.optimizers import OPTIMIZERS
from stresstest.reports.output import parse_output, render, write_outputs
from stresstest.reports.terminal import print_result
from stresstest.results import METRICS, RESULT_SCHEMA, Result, load_result
from stresstest.specs import MODELS, BoundarySpec
from stresstest.tables import Table, did_you_mean

if TYPE_CHECKING:
    from stresstest.experiments.cells import CellPlan, Plan
    from stresstest.results import Cell
    from stresstest.runs.store import RunStore


EXPERIMENTS = {"lr-range": "lr_range", "depth-sweep": "depth_sweep"}  # the module of each command


@dataclass(frozen=True)
class Request:
    """One call of an experiment's command: the spec, and how to run and show it."""

    command: str
    spec: BoundarySpec
    sources: Mapping[str, str]
    reproduce: str
    jobs: int | None
    run_dir: str | None
    fresh: bool
    outputs: Sequence[str]
    as_json: bool
    quiet: bool
    verbose: bool
    dry_run: bool


def console(stderr: bool = False) -> Console:
    """A console of the terminal's width, or 120 columns into a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Console(stderr=stderr, width=width, highlight=False)


def run_experiment(request: Request) -> int:
    """Plan, train what is missing, store and print the result."""
    outputs = [parse_output(text) for text in request.outputs]
    experiment = importlib.import_module(f"stresstest.experiments.{EXPERIMENTS[request.command]}")
    from stresstest.runs.store import choose_directory, open_run

    plan: Plan = experiment.plan(request.spec)
    if request.dry_run:
        return _print_plan(plan, request)
    path = choose_directory(request.run_dir, plan.identity, request.command, request.fresh)
    manifest = {
        "schema": "stresstest.manifest/1",
        "identity": plan.identity,
        "command": request.command,
        "reproduce": request.reproduce,
        "spec": plan.spec.model_dump(),
        "sources": dict(request.sources),
        "environment": plan.environment,
        "data": plan.data,
    }
    with open_run(path, manifest, request.fresh) as store:
        cells = _train(plan, store, request)
        reduced = experiment.reduce(plan, cells)
        result = Result(
            schema_=RESULT_SCHEMA,
            command=request.command,
            reproduce=request.reproduce,
            spec=plan.spec.model_dump(mode="json"),
            rules=plan.rules,
            environment=plan.environment,
            data=plan.data,
            cells=cells,
            summary=reduced.summary,
            trends=reduced.trends,
            findings=reduced.findings,
        )
        store.write_result(result.to_json())
        store.write_report(render(result, "html"))
    write_outputs(result, outputs)
    if request.as_json:
        sys.stdout.write(result.to_json())
    else:
        print_result(result, console(), str(path))
    failed = any(cell.status != "done" for cell in result.cells)
    return ExitCode.MODEL_FAILED if failed else ExitCode.OK


def _train(plan: Plan, store: RunStore, request: Request) -> list[Cell]:
    from stresstest.experiments.cells import run
    from stresstest.reports.progress import Progress
    from stresstest.runs.executor import default_jobs

    jobs = request.jobs or default_jobs(plan.device)
    progress = Progress(console(stderr=True), quiet=request.quiet, verbose=request.verbose)

    def cells_known(cells: Sequence[CellPlan], missing: Sequence[CellPlan]) -> None:
        progress.cells_known(len(cells), [cell.depth for cell in missing])

    with progress:
        try:
            return run(plan, store, jobs, progress.cell_ended, cells_known)
        except InterruptedRunError as error:
            place = f" --run-dir {shlex.quote(request.run_dir)}" if request.run_dir else ""
            raise InterruptedRunError(
                f"interrupted; {progress.ended} of {progress.total} cells are saved in {store.path}; "
                f"to go on: {request.reproduce}{place}",
                error.exit_code,
            ) from None


def _print_plan(plan: Plan, request: Request) -> int:
    table = RichTable("setting", "value", "from", box=None, pad_edge=False)
    for name, value in plan.spec.model_dump(exclude=set(MODELS[plan.spec.model].lacks)).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        table.add_row(name, shown, request.sources[name])
    out = console()
    out.print(table)
    cells = len(plan.cells)
    from stresstest.engine.memory import gib

    need = max((plan.need(cell) for cell in plan.cells), key=lambda need: need.total)
    out.print(
        f"\n{cells} cell{'s' * (cells > 1)} on {plan.environment['device_name']}, "
        f"at most about {gib(need.total)} a replica; nothing was trained"
    )
    return ExitCode.OK


def print_report(run_path: str | None, output: Sequence[str], as_json: bool) -> int:
    """Render a stored result; never trains."""
    outputs = [parse_output(text) for text in output]
    path = Path(run_path) if run_path else _newest_run()
    file = path / "result.json" if path.is_dir() else path
    if not file.exists() and (path / "manifest.json").exists():
        again = json.loads((path / "manifest.json").read_text())["reproduce"]
        raise ConfigError(f"the run in {path} has not ended; to go on: {again} --run-dir {shlex.quote(str(path))}")
    result = load_result(file)
    write_outputs(result, outputs)
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        print_result(result, console(), str(file.parent))
    return ExitCode.OK


def _newest_run() -> Path:
    from stresstest.runs.store import DEFAULT_ROOT

    results = sorted(DEFAULT_ROOT.glob("*/result.json"), key=lambda p: p.stat().st_mtime)
    if not results:
        raise ConfigError(
            f"no finished run under {DEFAULT_ROOT}; run stresstest lr-range or depth-sweep first, or name a RUN"
        )
    return results[-1].parent


def _tables() -> dict[str, Table[Any]]:
    from stresstest.tasks.images import IMAGE_SOURCES
    from stresstest.tasks.language import DATA_SOURCES

    return {
        "models": MODELS,
        "variants": VARIANTS,
        "norms": NORMS,
        "optimizers": OPTIMIZERS,
        "data": DATA_SOURCES,
        "images": IMAGE_SOURCES,
        "metrics": METRICS,
    }


def print_tables(kind: str | None) -> int:
    """Print one table or all: name, first sentence, source."""
    tables = _tables()
    if kind is not None and kind not in tables:
        raise ConfigError(f"unknown kind '{kind}'{did_you_mean(kind, tables)}")
    out = console()
    for name, table in tables.items():
        if kind in (None, name):
            shown = RichTable(name, "", "source", box=None, pad_edge=False, title_justify="left")
            shown.columns[0].no_wrap = True
            for entry in table.values():
                shown.add_row(entry.name, entry.summary, entry.source, style=None)
            out.print(shown)
            out.print()
    return ExitCode.OK


def print_entry(name: str) -> int:
    """Print all that is known of one entry."""
    tables = _tables()
    found = [(kind, table[name]) for kind, table in tables.items() if name in table]
    if not found:
        everything = [entry for table in tables.values() for entry in table]
        raise ConfigError(f"unknown name '{name}'{did_you_mean(name, everything)}")
    out = console()
    for kind, entry in found:
        out.print(f"[bold]{name}[/bold] ({kind})", entry.summary, sep="\n", markup=True)
        if entry.source:
            out.print(f"source: {entry.source}", markup=False)
        for option, default in getattr(entry, "options", {}).items():
            shown = str(default).lower() if isinstance(default, bool) else default
            out.print(f"option: {name}:{option}={shown}", markup=False)
    return ExitCode.OK


def print_diagnosis() -> int:
    """Check what a run needs, one line each; exit 1 when something is wrong."""
    from stresstest.diagnosis import CHECKS

    out = console()
    healthy = True
    for check in CHECKS:
        good, text = _checked(check)
        healthy &= good
        out.print(f"{'ok  ' if good else 'FAIL'} {text}", markup=False)
    return ExitCode.OK if healthy else ExitCode.INTERNAL


def _checked(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except Exception as error:
        return False, f"{(check.__doc__ or '').splitlines()[0]} {error}"
