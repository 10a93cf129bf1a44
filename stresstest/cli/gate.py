"""The commands that compare: check, compare, baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from stresstest.cli.jobs import jobs_text
from stresstest.cli.outputs import output_option
from stresstest.reports.output import JSON
from stresstest.specs.profiles import PROFILES

if TYPE_CHECKING:
    from stresstest.commands.check_request import CheckRequest


def _check_options(command: Any) -> Any:
    """Those of `run` that a gate has too."""
    for option in reversed(_CHECK_OPTIONS):
        command = option(command)
    return command


_CHECK_OPTIONS = [
    click.option("--seeds", metavar="TEXT", envvar="STRESSTEST_SEEDS", help="Number of seeds, or a list: 8 or 0,1,2."),
    click.option("--profile", metavar="NAME", type=click.Choice(list(PROFILES)), help="quick, standard or full."),
    click.option("--device", metavar="TEXT", envvar="STRESSTEST_DEVICE", help="auto, cpu, cuda or cuda:N."),
    click.option(
        "-j",
        "--jobs",
        callback=jobs_text,
        metavar="N",
        envvar="STRESSTEST_JOBS",
        help="Worker processes (one side at a time).",
    ),
    click.option("--per-gpu", type=click.IntRange(min=1), metavar="K", help="Worker processes on each GPU."),
    click.option(
        "--cell-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time limit of a cell."
    ),
    click.option("--fresh", is_flag=True, help="Train every cell of base and head again."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", is_flag=True, help="On a terminal also a line for each cell that ends."),
]  # fmt: skip


def _check_request(context: click.Context, scenario: str, options: Mapping[str, Any]) -> CheckRequest:
    """What a gate's line asks for."""
    from stresstest.cli.sources import settings_beside
    from stresstest.commands.check_request import LINE_SETTINGS, CheckRequest

    line = {name: options[name] for name in LINE_SETTINGS if options[name] is not None}
    given, _ = settings_beside(context, line)
    return CheckRequest.of(scenario, given, options)


@click.command("check")
@click.argument("scenario", metavar="FILE|NAME")
@click.option("--base", metavar="REV", help="Compare with the commit where this branch left REV, e.g. origin/main.")
@click.option("--baseline", metavar="FILE|auto", help="Compare with committed values: stresstest baseline update.")
@click.option("--lenient", is_flag=True, help="Without a verdict, warn and exit with 0 instead of 3.")
@_check_options
@output_option(*JSON, "junit")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, and nothing else, on stdout.")
@click.option("--history", is_flag=True, help="Train nothing: show what earlier checks found, commit by commit.")
@click.option("--limit", type=click.IntRange(min=1), default=30, metavar="N", help="Checks of --history: the last N.")
@click.pass_context
def check_(context: click.RichContext, /, scenario: str, **options: Any) -> int:
    """The gate for CI: run a scenario, check its thresholds, compare it with a base; exit 99 if one is crossed.

    Both sides run the same settings and seeds, each in a process of its own. Without thresholds `vs base` the
    boundaries are compared (max_stable_lr, half an octave). Exit codes: 0 passed, 3 no verdict, 4 the model's code
    failed, 99 crossed.
    """
    from stresstest.commands.check import check
    from stresstest.commands.check_history import show_history

    if options.pop("history"):
        return show_history(scenario, options["limit"], options["output"])
    if options["base"] is not None and options["baseline"] is not None:
        raise click.UsageError("give either --base or --baseline, not both")
    return check(_check_request(context, scenario, options))


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@output_option(*JSON, "junit")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON, and nothing else, on stdout.")
def compare_(a: str, b: str, output: Sequence[str], as_json: bool) -> int:
    """Print how run B differs from run A, paired by seed: the gate's table, without its exit code."""
    from stresstest.commands.compare import compare
    from stresstest.gate.under_way import CHECKS

    return compare(a, b, as_json, CHECKS, output)


@click.group("baseline")
def baseline_() -> None:
    """Manage the values kept in the repository for `check --baseline`."""


@baseline_.command("update")
@click.argument("scenario", metavar="FILE|NAME")
@click.option("--reason", required=True, metavar="TEXT", help="Why the baseline changes, for its reviewers.")
@_check_options
@click.pass_context
def baseline_update(context: click.RichContext, /, scenario: str, reason: str, **options: Any) -> int:
    """Run a scenario on a clean commit and write its values under stresstest-baselines/."""
    from stresstest.commands.compare import update_baseline

    return update_baseline(_check_request(context, scenario, options), reason, datetime.now(UTC).date())


@baseline_.command("show")
@click.argument("scenario", metavar="[NAME]", required=False)
def baseline_show(scenario: str | None) -> int:
    """Print the values of each seed."""
    from stresstest.commands.compare import show_baselines

    return show_baselines(scenario)


@baseline_.command("status")
@click.argument("scenario", metavar="[NAME]", required=False)
def baseline_status_(scenario: str | None) -> int:
    """Print age, environment, coverage and slack of each baseline."""
    from stresstest.commands.compare import baseline_status
    from stresstest.experiments.plan import resolve_device
    from stresstest.gate.under_way import CHECKS
    from stresstest.runs.identity import environment

    return baseline_status(scenario, environment(resolve_device("auto"), "float32")["key"], CHECKS)


GATE_COMMANDS: tuple[click.Command, ...] = (check_, compare_, baseline_)
