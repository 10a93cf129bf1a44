"""What the user gave, and where: command line > environment > scenario file > pyproject.toml > built in."""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from stresstest.cli.options import ALL_FIELDS, flag
from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS, SPECS
from stresstest.pipeline import Request
from stresstest.registry import did_you_mean
from stresstest.runs.settings import RunSettings
from stresstest.scenario.reader import Scenario
from stresstest.specs.base import kind_of
from stresstest.specs.parsing import exact
from stresstest.specs.profiles import PROFILES, resolve

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
        if command not in SPECS:
            raise ConfigError(f"{path}: unknown table [tool.stresstest.{command}]{did_you_mean(command, SPECS)}")
    everywhere = {name for spec in SPECS.values() for name in spec.model_fields}
    _check_known(path, "tool.stresstest", shared, everywhere)
    everyones = {key.replace("-", "_"): value for key, value in shared.items()}
    defaults = {"run": {key: value for key, value in everyones.items() if key == "jobs"}}
    for command, spec in SPECS.items():
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
    text = _plain(value)
    return [text] if key == "variant" else text


Given = dict[str, tuple[Any, str]]  # the settings that somebody gave: the value and who


def line_request(command: str, context: click.Context, options: Mapping[str, Any]) -> Request:
    """What a line of one experiment's command asks for."""
    return _request(command, _on_line(context, options, SPECS[command].model_fields), options)


def scenario_requests(
    name: str, scenario: Scenario, context: click.Context, options: Mapping[str, Any]
) -> list[Request]:
    """What `stresstest run` asks for: the experiments of a file, with the settings of the line on top.

    A profile of the file's own has been read with it, and is none of the built-in ones.
    """
    experiments, file = scenario.experiments, scenario.source
    options = {name: value for name, value in options.items() if name != "profile" or not scenario.profiles}
    fields = {experiment.command: {"profile", *SPECS[experiment.command].model_fields} for experiment in experiments}
    on_line = _on_line(context, options, ALL_FIELDS)
    typed = {setting: value for setting, (value, origin) in on_line.items() if origin == "command line"}
    unused = typed.keys() - set().union(*fields.values())
    if unused:
        raise ConfigError(f"no experiment of {name} has the setting {flag(min(unused))}; leave it out")
    resume = ["stresstest", "run", shlex.quote(name)]
    resume += ["--profile", scenario.profile] if scenario.profile else []
    for setting, value in typed.items():
        resume += _words(setting, value)
    found = []
    for experiment in experiments:
        project = (context.find_root().default_map or {}).get(experiment.command, {})
        given: Given = {setting: (_plain(value), "pyproject.toml") for setting, value in project.items()}
        given |= {setting: (value, file) for setting, value in experiment.given.items()}
        given |= {} if experiment.profile is None else {"profile": (experiment.profile, file)}
        given = {setting: each for setting, each in (given | on_line).items() if setting in fields[experiment.command]}
        found.append(_request(experiment.command, given, options, " ".join(resume)))
    return found


def _on_line(
    context: click.Context, options: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """What the line, the environment or the project gave of these settings and of the profile."""
    sources = {name: context.get_parameter_source(name) for name in options if name in fields or name == "profile"}
    return {
        name: (_plain(options[name]), _GIVEN[source])
        for name, source in sources.items()
        if source in _GIVEN and options[name] not in (None, ())
    }


def _request(command: str, given: Given, options: Mapping[str, Any], resume: str = "") -> Request:
    values = {name: value for name, (value, _) in given.items() if name != "profile"}
    profile = given["profile"][0] if "profile" in given else "quick"
    spec = resolve(SPECS[command], profile, values)
    if options["shard"][1] > 1 and (asking := EXPERIMENTS[command].asks_for_more(spec)):
        raise ConfigError(
            f"leave out --shard: {asking} asks for cells depending on other results, and a shard knows only its own"
        )
    if options["fresh"] and options.get("storage"):
        raise ConfigError("--fresh cannot clear a shared storage; give another --study")
    words = ["stresstest", command]
    for name in ("profile", *SPECS[command].model_fields):
        if name in given and given[name][0] not in (None, ""):
            words += _words(name, given[name][0])
    sources = dict.fromkeys(SPECS[command].model_fields, "built in")
    sources |= dict.fromkeys(kind_of(spec.model).defaults, f"model {spec.model}")
    sources |= dict.fromkeys(PROFILES[profile], f"profile {profile}")
    return Request(
        command=command,
        spec=spec,
        sources={name: given[name][1] if name in given else sources[name] for name in SPECS[command].model_fields},
        reproduce=" ".join(words),
        resume=resume,
        settings=RunSettings(**{f.name: options[f.name] for f in dataclasses.fields(RunSettings) if f.name in options}),
        **{name: options[name] for name in ("run_dir", "fresh", "as_json", "quiet", "verbose", "dry_run")},
        outputs=options.get("output", ()),
    )


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag(name) if value else f"--no-{flag(name)[2:]}"]
    plain = _plain(value)
    return [flag(name), shlex.quote(exact(plain) if isinstance(plain, float) else str(plain))]


def _plain(value: Any) -> Any:
    """A list as the command line takes it; one number alone keeps a comma, as `seeds 3` would mean three."""
    if not isinstance(value, tuple | list):
        return value
    return ",".join(map(str, value)) + "," * (len(value) == 1 and isinstance(value[0], int))
