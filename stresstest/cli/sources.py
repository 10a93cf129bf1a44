"""What the user gave, and where: command line > environment > scenario file > pyproject.toml > built in."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from stresstest.cli.options import ALL_FIELDS, REPEATED
from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.registry import did_you_mean
from stresstest.scenario.request import Request, SettingSources, plain

_GIVEN = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "pyproject.toml",
}
_RUN_SETTINGS = ("profile", "jobs", "run_dir")


def project_defaults(path: Path) -> dict[str, Any]:
    """[tool.stresstest]: settings for every command, and a table of the command's name for its own."""
    if not path.is_file():
        return {}
    try:
        tool = tomllib.loads(path.read_text()).get("tool", {})
        table = tool.get("stresstest", {}) if isinstance(tool, dict) else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.stresstest is {table!r}; write a table, [tool.stresstest]")
    own = {key: value for key, value in table.items() if isinstance(value, dict)}
    shared = {key: value for key, value in table.items() if key not in own}
    for command in own:
        if command not in EXPERIMENTS:
            raise ConfigError(f"{path}: unknown table [tool.stresstest.{command}]{did_you_mean(command, EXPERIMENTS)}")
    everywhere = {name for spec in EXPERIMENTS.specs.values() for name in spec.model_fields}
    _check_known(path, "tool.stresstest", shared, everywhere)
    everyones = {key.replace("-", "_"): value for key, value in shared.items()}
    defaults = {"run": {key: value for key, value in everyones.items() if key == "jobs"}}
    for command, spec in EXPERIMENTS.specs.items():
        _check_known(path, f"tool.stresstest.{command}", own.get(command, {}), set(spec.model_fields))
        mine = {key.replace("-", "_"): value for key, value in {**shared, **own.get(command, {})}.items()}
        accepted = {*spec.model_fields, *_RUN_SETTINGS}
        defaults[command] = {key: _as_typed(key, value) for key, value in mine.items() if key in accepted}
    return defaults


def _check_known(path: Path, where: str, settings: Mapping[str, Any], fields: set[str]) -> None:
    known = sorted(fields) + list(_RUN_SETTINGS)
    for key in settings:
        if key.replace("-", "_") not in known:
            raise ConfigError(f"{path}: unknown setting '{key}' in [{where}]{did_you_mean(key, known)}")


def _as_typed(key: str, value: Any) -> Any:
    """A value of TOML as it would stand on the command line."""
    text = plain(value)
    return [text] if key in REPEATED else text


def line_request(command: str, context: click.Context, options: Mapping[str, Any]) -> Request:
    """What a line of one experiment's command asks for."""
    names = {"profile", *EXPERIMENTS[command].spec.model_fields}
    given = {name: (plain(value), who) for who in _GIVEN.values() for name, value in _by(who, context, names).items()}
    return Request.of(command, given, options)


def line_settings(context: click.Context) -> SettingSources:
    """What a line of `stresstest run` gives of the settings, and who else does."""
    names = {"profile", *ALL_FIELDS}
    return SettingSources(
        line=_by("command line", context, names),
        environment=_by("environment", context, names),
        project=_project(context),
    )


def settings_beside(context: click.Context, line: Mapping[str, Any]) -> tuple[SettingSources, dict[str, Any]]:
    """What another command that reads scenarios is given for them: settings, and how to run and show them.

    The environment counts as it does for `stresstest run`; `line` are the settings of the command's own line.
    """
    found = _environment(context)
    given = {name: value for name, value in found.items() if name in ALL_FIELDS or name == "profile"}
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
