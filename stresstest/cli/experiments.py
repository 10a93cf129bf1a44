"""The commands of the experiments, made from what `EXPERIMENTS` says of each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import rich_click as click

from stresstest.cli.options import option_groups, run_options
from stresstest.cli.outputs import output_option
from stresstest.cli.sources import line_request
from stresstest.commands.run import run_experiment
from stresstest.experiments.base import Experiment
from stresstest.experiments.table import EXPERIMENTS
from stresstest.registry import did_you_mean
from stresstest.reports.output import JSON

OUTPUT = output_option(*JSON)
VERBOSE = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print the whole report: charts, intervals, theory, every finding. Without it, the answer alone.",
)
_LISTED = f"{__name__}.listed"
_FIND = [*EXPERIMENTS, "run", "papers"]
click.rich_click.COMMAND_GROUPS["stresstest"] = [
    {"name": "Find", "commands": _FIND},
    {"name": "Gate", "commands": ["check", "compare", "baseline"]},
    {"name": "Look", "commands": ["report", "status", "list", "show", "schema"]},
    {"name": "Set up", "commands": ["init", "doctor", "validate", "merge", "completion"]},
]


class Commands(click.RichGroup):
    """The commands of stresstest: those of the experiments, and those that are written out."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The experiments first."""
        _FIND[:] = [*EXPERIMENTS, "run", "papers"]
        return [*EXPERIMENTS, *super().list_commands(context)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command by its name."""
        if name not in EXPERIMENTS:
            return super().get_command(context, name)
        return _summary(EXPERIMENTS[name]) if _LISTED in context.meta else experiment_command(EXPERIMENTS[name])

    def get_help(self, context: click.Context) -> str:
        """The commands with their summaries; the options of the experiments are not made for it."""
        context.meta[_LISTED] = True
        return super().get_help(context)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that a line names; of an unknown one the nearest is said."""
        if self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], self.list_commands(context))}")
        return super().resolve_command(context, args)


def _summary(experiment: Experiment[Any]) -> click.Command:
    return click.RichCommand(name=experiment.name, help=f"{experiment.summary}\n\n{experiment.details}")


@lru_cache(maxsize=64)
def experiment_command(experiment: Experiment[Any]) -> click.Command:
    """The command of an experiment: an option for each of its settings, and how to run and show it."""
    fields = experiment.spec.model_fields
    click.rich_click.OPTION_GROUPS[f"stresstest {experiment.name}"] = option_groups(fields)

    @click.command(experiment.name, help=f"{experiment.summary}\n\n{experiment.details}")
    @run_options(fields, experiment.name, shares=experiment.shares_search)
    @OUTPUT
    @click.pass_context
    def command(context: click.RichContext, /, **options: Any) -> int:
        return run_experiment(line_request(experiment.name, context, options))

    return command
