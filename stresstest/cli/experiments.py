"""All commands, those of the experiments first; what only lists them makes the options of none that trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rich_click as click
from click.shell_completion import CompletionItem

from stresstest.experiments.table import EXPERIMENTS
from stresstest.registry import did_you_mean

RUN_SUMMARY = "Run every experiment of a scenario file, or of a shipped one: `stresstest run smoke`."
_LISTED = f"{__name__}.listed"
_FIND = [*EXPERIMENTS, "run", "papers"]
click.rich_click.COMMAND_GROUPS["stresstest"] = [
    {"name": "Find", "commands": _FIND},
    {"name": "Gate", "commands": ["check", "compare", "baseline"]},
    {"name": "Look", "commands": ["report", "status", "list", "show", "schema"]},
    {"name": "Set up", "commands": ["init", "doctor", "validate", "merge", "completion"]},
]


class Commands(click.RichGroup):
    """The commands of stresstest: those that train, made when they are asked for, and those that are written out."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The experiments first."""
        _FIND[:] = [*EXPERIMENTS, "run", "papers"]
        return [*EXPERIMENTS, *sorted(["run", *super().list_commands(context)])]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command by its name."""
        if name != "run" and name not in EXPERIMENTS:
            return super().get_command(context, name)
        if _LISTED in context.meta:
            summary = RUN_SUMMARY if name == "run" else EXPERIMENTS.entries[name].summary
            return click.RichCommand(name=name, help=summary)
        from stresstest.cli.training import experiment_command, run_command

        return run_command() if name == "run" else experiment_command(EXPERIMENTS[name])

    def get_help(self, context: click.Context) -> str:
        """The commands with their summaries."""
        with _listing(context):
            return super().get_help(context)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that a line may go on with, with their summaries."""
        with _listing(context):
            return super().shell_complete(context, incomplete)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that a line names; of an unknown one the nearest is said."""
        if args[0] not in self.list_commands(context) and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], self.list_commands(context))}")
        return super().resolve_command(context, args)


@contextmanager
def _listing(context: click.Context) -> Iterator[None]:
    """While commands are named, and none is called."""
    context.meta[_LISTED] = True
    try:
        yield
    finally:
        del context.meta[_LISTED]
