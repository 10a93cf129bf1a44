"""The commands that train: an option for each setting, and how to run and show it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import rich_click as click
from click.core import ParameterSource

from stresstest.cli.experiments import RUN_SUMMARY
from stresstest.cli.options import all_fields, option_groups, run_options
from stresstest.cli.outputs import OUTPUT
from stresstest.experiments.base import Experiment


@lru_cache(maxsize=64)
def experiment_command(experiment: Experiment[Any]) -> click.Command:
    """The command of an experiment."""
    fields = experiment.spec.model_fields
    click.rich_click.OPTION_GROUPS[f"stresstest {experiment.name}"] = option_groups(fields)

    @click.command(experiment.name, help=f"{experiment.summary}\n\n{experiment.details}")
    @run_options(fields, experiment.name, shares=experiment.shares_search)
    @OUTPUT
    @click.pass_context
    def command(context: click.RichContext, /, **options: Any) -> int:
        from stresstest.cli.sources import line_request
        from stresstest.commands.run import run_experiment

        return run_experiment(line_request(experiment.name, context, options))

    return command


def run_command() -> click.Command:
    """`stresstest run`, which has the settings of every experiment."""
    fields = all_fields()
    click.rich_click.OPTION_GROUPS["stresstest run"] = option_groups(fields)

    @click.command("run", help=f"{RUN_SUMMARY}\n\nOptions override the file, in every experiment that has the setting.")
    @click.argument("scenario", metavar="FILE|NAME")
    @run_options(fields, "NAME/EXPERIMENT", more=("cpu",))
    @click.pass_context
    def command(context: click.RichContext, /, scenario: str, **options: Any) -> int:
        from stresstest.cli.sources import line_settings
        from stresstest.commands.run import run_scenario
        from stresstest.scenario.request import open_scenario, scenario_requests

        loaded = open_scenario(scenario, _typed_profile(context))
        return run_scenario(loaded, scenario_requests(scenario, loaded, line_settings(context), options))

    return command


def _typed_profile(context: click.Context) -> str | None:
    """The profile that the line or the environment names."""
    source = context.get_parameter_source("profile")
    given = source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return str(context.params["profile"]) if given else None
