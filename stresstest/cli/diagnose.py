"""The command that reads logs."""

from __future__ import annotations

import rich_click as click

from stresstest.cli.outputs import output_option
from stresstest.errors import InterruptedReadingError
from stresstest.reports.output import JSON


@click.command("diagnose")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option("--metric", metavar="NAME", help="The column or key that is the train loss. (default: by its name)")
@click.option("--step", metavar="NAME", help="The column or key that is the step. (default: by its name)")
@click.option(
    "--baseline", type=float, metavar="LOSS", help="Loss of the best constant predictor. (default: not known)"
)
@click.option("--vocab", type=int, metavar="N", help="Number of classes or tokens, for a --baseline of ln N.")
@click.option(
    "--segment",
    type=click.IntRange(min=0),
    metavar="N",
    help="Judge only this stretch, from 0, of a log in which training began again. (default: all)",
)
@click.option(
    "--rank",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read this rank's rows where several wrote. (default: the first)",
)
@output_option(*JSON, "junit")
@click.option("--json", "as_json", is_flag=True, help="Print the diagnoses as JSON, and nothing else, on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="The verdict alone.")
@click.option("-v", "--verbose", is_flag=True, help="Every run, segment, spike and finding.")
@click.option("--follow", is_flag=True, help="Go on with a log that grows: a line whenever the verdict changes.")
def diagnose_command(
    logs: tuple[str, ...],
    metric: str | None,
    step: str | None,
    baseline: float | None,
    vocab: int | None,
    segment: int | None,
    rank: int | None,
    output: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
    follow: bool,
) -> int:
    """Read the log of a run that is already there: what happened, where, and what moved before.

    LOG is a file, a folder, a pattern in quotes, or - for a pipe. Exit code 0: not broken, 99: broken, 3: cannot be
    judged, 2: a log that could not be read.
    """
    from stresstest.commands.diagnose import Shown, diagnose_logs, outputs_of
    from stresstest.diagnosis.diagnose import Choices

    choices = Choices(metric, step, baseline, segment, rank, vocab)
    shown = Shown(outputs_of(output), as_json, quiet, verbose)
    if follow:
        from stresstest.commands.follow import follow_log

        return follow_log(logs, choices, shown)
    try:
        return diagnose_logs(logs, choices, shown)
    except KeyboardInterrupt:
        raise InterruptedReadingError("interrupted; no verdict") from None
