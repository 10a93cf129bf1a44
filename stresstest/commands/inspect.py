"""The commands that look: list, show, report, status."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable

from stresstest.commands.show_result import show_result, show_unfinished
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.schedules import DECAYS, WARMUPS
from stresstest.errors import ConfigError, ExitCode
from stresstest.experiments.shock.guards import GUARDS
from stresstest.experiments.shock.table import SHOCKS
from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.unfinished import is_unfinished
from stresstest.models.variants import NORMS, PARAMETRIZATIONS, VARIANTS
from stresstest.registry import Registry, did_you_mean
from stresstest.reports.document import Fact
from stresstest.reports.output import Made, console, parse_output, write_outputs
from stresstest.results.metrics import METRICS
from stresstest.results.records import read_result
from stresstest.scenario.library import shipped_scenarios
from stresstest.specs.kinds import MODELS
from stresstest.specs.parsing import exact_text

if TYPE_CHECKING:
    from stresstest.results.progress import Progress
    from stresstest.runs.status import RunStatus


def print_report(run_path: str | None, output: Sequence[str], as_json: bool, verbose: bool = False) -> int:
    """Render a stored result; never trains."""
    from stresstest.runs.stored import result_file

    outputs = [parse_output(text) for text in output]
    path = Path(run_path) if run_path else _newest("manifest.json", "result.json")
    if is_unfinished(path) and not as_json:
        show_unfinished(path, outputs, verbose)
        return ExitCode.OK
    file = result_file(path)
    result = read_result(file)
    show_result(result, str(file.parent), outputs, as_json, verbose)
    return ExitCode.OK


def print_index(folder: str | None, output: Sequence[str], as_json: bool) -> int:
    """Write a page over all runs below a folder, and print the newest of them."""
    from stresstest.commands.run_index import index_document, index_runs, index_tables
    from stresstest.reports.terminal import print_document
    from stresstest.runs.store import DEFAULT_ROOT

    if as_json:
        raise ConfigError("the index of runs has no JSON; leave out --json, or write -o csv:FOLDER")
    outputs = [parse_output(text, {}) for text in output]
    root = Path(folder) if folder else DEFAULT_ROOT
    runs = index_runs(root)
    document, page = index_document(root, runs), root / "index.html"
    write_outputs([("html", page), *outputs], Made(lambda: document, lambda: index_tables(runs), {}))
    print_document(document.with_facts([Fact("index", str(page), file=True)]), console())
    return ExitCode.OK


def print_status(run_path: str | None, as_json: bool) -> int:
    """Print how far a run, each run of a scenario, or a check has got; without a path a check that runs comes first."""
    from stresstest.commands.check_progress import checks_under_way
    from stresstest.gate.sides import CHECKS
    from stresstest.runs.status import read_status
    from stresstest.runs.store import DEFAULT_ROOT, runs_in

    of_checks = run_path is not None and Path(run_path).resolve() == CHECKS.resolve()
    if checks := checks_under_way() if of_checks or run_path is None else {}:
        _print_checks(checks, as_json)
        return ExitCode.OK
    if of_checks:
        raise ConfigError(f"no check is under way in {CHECKS}")
    path = Path(run_path) if run_path else _newest("manifest.json")
    if not run_path and path.parent != DEFAULT_ROOT:
        path = path.parent  # of the scenario that it belongs to
    statuses = [read_status(run) for run in runs_in(path)]
    if as_json:
        stored = [{**asdict(status), "path": str(status.path)} for status in statuses]
        sys.stdout.write(json.dumps(stored, indent=1) + "\n")
        return ExitCode.OK
    out = console()
    for status in statuses:
        out.print(_in_words(status), markup=False, soft_wrap=True)
    return ExitCode.OK


def _print_checks(checks: Mapping[Path, Progress], as_json: bool) -> None:
    from stresstest.reports.progress import time_left

    if as_json:
        stored = [{"path": str(path), **asdict(progress)} for path, progress in checks.items()]
        sys.stdout.write(json.dumps(stored, indent=1) + "\n")
        return
    out = console()
    for path, each in checks.items():
        left = f"; {each.share:.0%}, {time_left(each.left)} left" if each.left else ""
        lines = [f"{path}: check, {each.total} cells: {each.ended} ended{left}"]
        lines += [f"  running: {name}" for name in each.running]
        out.print("\n".join(lines), markup=False, soft_wrap=True)


def _in_words(status: RunStatus) -> str:
    from stresstest.reports.progress import time_left
    from stresstest.results.progress import TimeLeft

    ended = sum(status.statuses.values())
    to_come = status.total - ended - len(status.running)
    counts = {"done": status.statuses.get("done", 0), "running": len(status.running)}
    counts |= {name: number for name, number in status.statuses.items() if name != "done"}
    counts["waiting"] = to_come
    cells = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    left = ""
    if status.seconds_left and status.between:
        left = f"; {status.share or 0.0:.0%}, {time_left(TimeLeft(status.seconds_left, *status.between))} left"
    index, number = status.shard
    part = f" of shard {index} of {number}" if number > 1 else ""
    lines = [f"{status.path}: {status.command}, {status.total} cells{part}: {cells or 'not planned yet'}{left}"]
    lines += [f"  running: {name}" for name in status.running]
    if status.holder:
        lines.append(f"  held by {status.holder}")
    elif to_come:
        lines.append(f"  stopped; to go on: {status.again}")
    return "\n".join(lines)


def _newest(*names: str) -> Path:
    """The run directory whose file of one of these names is the newest."""
    from stresstest.runs.store import DEFAULT_ROOT

    found = [path for name in names for depth in ("*", "*/*") for path in DEFAULT_ROOT.glob(f"{depth}/{name}")]
    if not found:
        raise ConfigError(f"no run under {DEFAULT_ROOT}; run stresstest lr-range first, or give a RUN")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _tables() -> dict[str, Registry[Any]]:
    from stresstest.tasks.images import IMAGE_SOURCES
    from stresstest.tasks.language import DATA_SOURCES
    from stresstest.tasks.translation import PAIR_SOURCES

    return {
        "experiments": EXPERIMENTS,
        "scenarios": shipped_scenarios(),
        "models": MODELS,
        "variants": VARIANTS,
        "norms": NORMS,
        "parametrizations": PARAMETRIZATIONS,
        "optimizers": OPTIMIZERS,
        "warm-ups": WARMUPS,
        "decays": DECAYS,
        "data": DATA_SOURCES,
        "translations": PAIR_SOURCES,
        "images": IMAGE_SOURCES,
        "shocks": SHOCKS,
        "guards": GUARDS,
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
        if kind == "scenarios":
            out.print(f"\n{entry.text}", markup=False, soft_wrap=True)
        for option, default in getattr(entry, "options", {}).items():
            shown = str(default).lower() if isinstance(default, bool) else default
            if isinstance(default, float) and math.isnan(default):
                dose = entry.dose
                out.print(f"dose: {name}:{option}=..., tried: {', '.join(map(exact_text, dose.tried))}", markup=False)
                continue
            words = getattr(entry, "choices", {}).get(option, ())
            others = f" (or {', '.join(word for word in words if word != shown)})" if words else ""
            out.print(f"option: {name}:{option}={shown}{others}", markup=False)
    return ExitCode.OK
