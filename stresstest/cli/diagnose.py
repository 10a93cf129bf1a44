"""The command that reads logs."""

from __future__ import annotations

import rich_click as click


@click.command("diagnose")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option("--metric", metavar="NAME", help="The column or key that is the train loss.")
@click.option("--step", metavar="NAME", help="The column or key that is the step.")
@click.option("--baseline", type=float, metavar="LOSS", help="Loss of the best constant predictor.")
def diagnose_command(logs: tuple[str, ...], metric: str | None, step: str | None, baseline: float | None) -> int:
    """Read the log of a run that is already there: what happened, where, and what moved before."""
    from stresstest.commands.diagnose import diagnose_logs
    from stresstest.diagnosis.diagnose import Choices

    return diagnose_logs(logs, Choices(metric, step, baseline))
