"""`stresstest run` and the experiments' own commands: train with progress on stderr, print what was found."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table as RichTable

from stresstest.commands.show_claims import show_claims, show_reports
from stresstest.commands.show_result import print_result, show_result
from stresstest.errors import ExitCode
from stresstest.gate.claims import Asked, judge_claims
from stresstest.pipeline import (
    Left,
    RunListener,
    TrainingListener,
    chapter_of,
    exit_code,
    plan_experiment,
    plan_scenario,
    train_experiment,
    train_scenario,
)
from stresstest.reports.output import console, parse_output
from stresstest.results.records import Cell, Result
from stresstest.scenario.reader import Scenario
from stresstest.scenario.request import Request
from stresstest.specs.base import OFF
from stresstest.specs.kinds import kind_of

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.progress import ProgressBar
    from stresstest.results.progress import Progress


class OnStderr(RunListener):
    """Says on stderr how a run goes; `of` names what several scenarios have in common."""

    wants_notes = True

    def __init__(self, of: str = "") -> None:
        self._of = of

    def note(self, text: str) -> None:
        """A line."""
        console(stderr=True).print(text, markup=False, soft_wrap=True)

    def experiment(self, name: str, command: str) -> None:
        """A line."""
        console(stderr=True).print(f"{self._of}{name}: {command}", markup=False)

    @contextlib.contextmanager
    def training(self, request: Request) -> Iterator[TrainingListener]:
        """A bar on a terminal, a line for each finished cell elsewhere."""
        from stresstest.reports.progress import ProgressBar

        with ProgressBar(console(stderr=True), quiet=request.quiet, verbose=request.verbose) as bar:
            yield _Shown(bar, wants_estimate=not request.quiet)


class _Shown(TrainingListener):
    def __init__(self, bar: ProgressBar, wants_estimate: bool) -> None:
        self._bar = bar
        self.wants_estimate = wants_estimate

    def cells_known(self, finished: Sequence[Cell], missing: int) -> None:
        self._bar.cells_known(finished, missing)

    def estimate(self, progress: Progress, at_once: int) -> None:
        self._bar.estimate(progress, at_once)

    def progress(self, progress: Progress) -> None:
        self._bar.progress(progress)

    def cell_ended(self, cell: Cell, progress: Progress) -> None:
        self._bar.cell_ended(cell, progress)

    def stopping(self) -> None:
        sys.stderr.write("stopping: cells in training are saved if that is quick; interrupt again to stop at once\n")

    def left(self, left: Left, request: Request) -> None:
        index, number = request.settings.shard
        saved = f"{left.finished} of {left.total} cells are saved in {left.folder}"
        if number > 1 and left.shard_ended:
            join = f"stresstest merge {left.folder} ..."
            text = f"shard {index} of {number} has ended: {saved}; to join all shards: {join}"
        else:
            why = "a cell failed (--fail-fast)" if left.cell_failed else "--max-cells reached"
            text = f"stopped early: {why}; {saved}; to go on: {request.again}"
        console(stderr=True).print(text, markup=False, soft_wrap=True)


def run_experiment(request: Request) -> int:
    """Plan, train what is missing, store and print the result."""
    outputs, listener = [parse_output(text) for text in request.outputs], OnStderr()
    plan = plan_experiment(request, listener)
    if request.dry_run:
        return print_plan(plan, request)
    trained = train_experiment(plan, request, listener=listener)
    if trained.result is None:
        return trained.exit_code
    show_result(trained.result, str(trained.path), outputs, request.as_json, request.verbose, trained.document)
    return exit_code([cell.status for cell in trained.result.cells])


def run_scenario(scenario: Scenario, requests: Sequence[Request]) -> int:
    """Plan every experiment, then train and print one after the other; each is a run in the scenario's folder.

    What became of its claims, where it has some and every experiment a result, comes last, below where its reports are.
    """
    from stresstest.runs.directory import choose_folder, write_scenario

    name, experiments, listener = scenario.name, scenario.experiments, OnStderr()
    plans = plan_scenario(experiments, requests, listener)
    first, out = requests[0], console()
    if first.dry_run:
        for experiment, plan, request in zip(experiments, plans, requests, strict=True):
            out.print(f"\n[bold]{experiment.name}[/bold]: {experiment.command}")
            print_plan(plan, request)
        return ExitCode.OK
    identities = {experiment.name: plan.identities for experiment, plan in zip(experiments, plans, strict=True)}
    folder = choose_folder(first.run_dir, name, identities, first.fresh)
    write_scenario(folder, name, [experiment.name for experiment in experiments])
    results: dict[str, Result] = {}
    code = int(ExitCode.OK)
    for experiment, trained in train_scenario(scenario, plans, requests, folder, listener):
        code = max(code, trained.exit_code)
        if trained.result is None or trained.stopped:
            continue
        results[experiment.name] = trained.result
        if not first.as_json:
            out.rule(f"{experiment.name}: {experiment.command}", style="dim")
            print_result(trained.result, out, str(trained.path), first.verbose, trained.document)
    if first.as_json:
        stored = {name: json.loads(result.to_json()) for name, result in results.items()}
        sys.stdout.write(json.dumps({"schema": "stresstest.results/1", "scenario": name, "results": stored}) + "\n")
        return code
    if len(results) > 1:
        out.rule(name, style="dim")
        show_reports(folder, results)
    if scenario.claims and len(results) == len(experiments):
        asked = Asked(scenario.paper, [claim for _, claim in scenario.claims], [results])
        judged = judge_claims([asked])[0]
        show_claims([chapter_of(name, scenario.paper, judged, results)], folder, verbose=first.verbose)
    return code


def print_plan(plan: Plan, request: Request) -> int:
    """Print the resolved settings with the source of each, and what they ask for."""
    from stresstest.engine.memory import gib
    from stresstest.experiments.following import forecast_of
    from stresstest.experiments.workload import number_of_cells
    from stresstest.reports.progress import estimated, size_times

    table = RichTable("setting", "value", "from", box=None, pad_edge=False)
    for name, value in plan.spec.model_dump(exclude=set(kind_of(plan.spec.model).lacks)).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else OFF if value is None else str(value)
        table.add_row(name, shown, request.sources[name])
    out = console()
    out.print(table)
    need = max((plan.need(cell) for cell in plan.places), key=lambda need: need.total)
    out.print(
        f"\n{number_of_cells(plan)} on {plan.environment['device_name']}, at most about {gib(need.total)} a replica; "
        "nothing was trained",
        soft_wrap=True,
    )
    progress, at_once = forecast_of(plan, request.settings)
    if progress.sizes:
        out.print(size_times(progress.sizes))
    if progress.left is not None:
        out.print(estimated(progress, at_once))
    return ExitCode.OK
