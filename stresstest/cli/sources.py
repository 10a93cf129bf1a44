"""What the user gave, and where: command line > environment > scenario file > pyproject.toml > built in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import rich_click as click
from click.core import ParameterSource

from stresstest.cli.options import all_fields
from stresstest.experiments.table import EXPERIMENTS
from stresstest.scenario.request import Request, SettingSources, plain

_GIVEN = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "pyproject.toml",
}


def line_request(command: str, context: click.Context, options: Mapping[str, Any]) -> Request:
    """What a line of one experiment's command asks for."""
    names = {"profile", *EXPERIMENTS[command].spec.model_fields}
    given = {name: (plain(value), who) for who in _GIVEN.values() for name, value in _by(who, context, names).items()}
    return Request.of(command, given, options)


def line_settings(context: click.Context) -> SettingSources:
    """What a line of `stresstest run` gives of the settings, and who else does."""
    names = {"profile", *all_fields()}
    return SettingSources(
        line=_by("command line", context, names),
        environment=_by("environment", context, names),
        project=_project(context),
    )


def settings_beside(context: click.Context, line: Mapping[str, Any]) -> tuple[SettingSources, dict[str, Any]]:
    """What another command that reads scenarios is given for them: settings, and how to run and show them.

    The environment counts as it does for `stresstest run`; `line` are the settings of the command's own line.
    """
    found, fields = _environment(context), all_fields()
    given = {name: value for name, value in found.items() if name in fields or name == "profile"}
    options = {name: value for name, value in found.items() if name not in given}
    return SettingSources(line=line, environment=given, project=_project(context)), options


def _by(who: str, context: click.Context, names: Collection[str]) -> dict[str, Any]:
    """What somebody gave of these options."""
    return {
        name: value
        for name, value in context.params.items()
        if name in names
        and value not in (None, ())
        and (source := context.get_parameter_source(name)) is not None
        and _GIVEN.get(source) == who
    }


def _environment(context: click.Context) -> dict[str, Any]:
    """What the environment says of the options of `stresstest run`, as these read it."""
    root = context.find_root().command
    assert isinstance(root, click.Group), "the root is stresstest itself"
    command = root.get_command(context, "run")
    assert command is not None, "it is one of its commands"
    texts = {option: option.value_from_envvar(context) for option in command.params}
    return {str(option.name): option.process_value(context, text) for option, text in texts.items() if text is not None}


def _project(context: click.Context) -> Mapping[str, Mapping[str, Any]]:
    return context.find_root().default_map or {}
