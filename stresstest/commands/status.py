"""The command `status`: how far runs and checks have got."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from stresstest.errors import ConfigError, ExitCode
from stresstest.gate.under_way import CHECKS, checks_under_way
from stresstest.reports.output import console
from stresstest.results.progress import Progress
from stresstest.runs.directory import DEFAULT_ROOT, newest_run, runs_in
from stresstest.runs.status import RunStatus, damage_words, read_status


def print_status(run_path: str | None, as_json: bool) -> int:
    """Print how far a run, each run of a scenario, or a check has got; without a path a check that runs comes first."""
    of_checks = run_path is not None and Path(run_path).resolve() == CHECKS.resolve()
    if checks := checks_under_way() if of_checks or run_path is None else {}:
        _print_checks(checks, as_json)
        return ExitCode.OK
    if of_checks:
        raise ConfigError(f"no check is under way in {CHECKS}")
    path = Path(run_path) if run_path else newest_run("manifest.json")
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
    ended = sum(status.statuses.values())
    to_come = status.total - ended - len(status.running)
    counts = {"done": status.statuses.get("done", 0), "running": len(status.running)}
    counts |= {name: number for name, number in status.statuses.items() if name != "done"}
    counts["waiting"] = to_come
    cells = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    left = ""
    if status.seconds_left and status.between:
        from stresstest.reports.progress import time_left
        from stresstest.results.progress import TimeLeft

        left = f"; {status.share or 0.0:.0%}, {time_left(TimeLeft(status.seconds_left, *status.between))} left"
    index, number = status.shard
    part = f" of shard {index} of {number}" if number > 1 else ""
    lines = [f"{status.path}: {status.command}, {status.total} cells{part}: {cells or 'not planned yet'}{left}"]
    lines += [f"  running: {name}" for name in status.running]
    lines += [f"  {text}" for text in damage_words(status)]
    if status.holder:
        lines.append(f"  held by {status.holder}")
    elif to_come:
        lines.append(f"  stopped; to go on: {status.again}")
    return "\n".join(lines)
