"""What the user gave, and where: command line > environment > scenario file > pyproject.toml > built in."""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource

from stresstest.choices import exact
from stresstest.errors import ConfigError
from stresstest.options import flag
from stresstest.running import Request
from stresstest.scenario import Experiment
from stresstest.specs import MODELS, PROFILES, SPECS, RunSettings, resolve
from stresstest.tables import did_you_mean

_GIVEN = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "pyproject.toml",
}


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
        raise ConfigError(f"{path}: tool.stresstest is {table!r}; make it a table, [tool.stresstest]")
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


_RUN_SETTINGS = ("profile", "jobs", "run_dir")


def _check_known(path: Path, where: str, settings: Mapping[str, Any], fields: set[str]) -> None:
    known = sorted(fields) + list(_RUN_SETTINGS)
    for key in settings:
        if key.replace("-", "_") not in known:
            raise ConfigError(f"{path}: unknown setting '{key}' in [{where}]{did_you_mean(key, known)}")


def _as_typed(key: str, value: Any) -> Any:
    """A value of TOML as it would stand on the command line."""
    text = _plain(value)
    return [text] if key == "variant" else text


@dataclasses.dataclass
class Given:
    """The settings of one experiment that somebody gave, and who."""

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    origins: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, values: Mapping[str, Any], origin: str) -> None:
        """Give these on top of what was given before."""
        self.values |= values
        self.origins |= dict.fromkeys(values, origin)


def line_request(command: str, context: click.Context, options: Mapping[str, Any]) -> Request:
    """What a line of one experiment's command asks for."""
    given = Given()
    for name, (value, origin) in _on_line(context, options, {"profile", *SPECS[command].model_fields}).items():
        given.add({name: value}, origin)
    return _request(command, given, options)


def scenario_requests(
    name: str, experiments: Sequence[Experiment], file: str, context: click.Context, options: Mapping[str, Any]
) -> list[Request]:
    """What `stresstest run` asks for: the experiments of a file, with the settings of the line on top."""
    project = context.find_root().default_map or {}
    on_line = _on_line(context, options, {"profile", *(n for kind in SPECS.values() for n in kind.model_fields)})
    found = []
    for experiment in experiments:
        fields = {"profile", *SPECS[experiment.command].model_fields}
        given = Given()
        settings = project.get(experiment.command, {}).items()
        given.add({n: _plain(value) for n, value in settings if n in fields}, "pyproject.toml")
        given.add(experiment.given, file)
        if experiment.profile is not None:
            given.add({"profile": experiment.profile}, file)
        for setting, (value, origin) in on_line.items():
            if setting in fields:
                given.add({setting: value}, origin)
        resume = ["stresstest", "run", shlex.quote(name)]
        for setting, (value, origin) in on_line.items():
            resume += _words(setting, value) if origin == "command line" else []
        found.append(_request(experiment.command, given, options, " ".join(resume)))
    unused = {n for n, (_, origin) in on_line.items() if origin == "command line"} - {"profile"}
    unused -= {n for experiment in experiments for n in SPECS[experiment.command].model_fields}
    if unused:
        raise ConfigError(f"no experiment of {name} has the setting {flag(min(unused))}; leave it out")
    return found


def _on_line(context: click.Context, options: Mapping[str, Any], names: set[str]) -> dict[str, tuple[Any, str]]:
    """The settings that the line, the environment or the project gave: the value and who."""
    sources = {name: context.get_parameter_source(name) for name in options if name in names}
    return {
        name: (_plain(options[name]), _GIVEN[source])
        for name, source in sources.items()
        if source in _GIVEN and options[name] not in (None, ())
    }


def _request(command: str, given: Given, options: Mapping[str, Any], resume: str = "") -> Request:
    values = {name: value for name, value in given.values.items() if name != "profile"}
    profile = given.values.get("profile", "quick")
    spec = resolve(SPECS[command], profile, values)
    if options["shard"][1] > 1 and values.get("bisect"):
        raise ConfigError("--bisect asks for cells as others end, and a shard knows only its own; leave out --shard")
    words = ["stresstest", command]
    for name in ("profile", *SPECS[command].model_fields):
        if name in given.values and given.values[name] not in (None, ""):
            words += _words(name, given.values[name])
    in_model = MODELS[spec.model].defaults
    sources = {
        name: f"profile {profile}"
        if name in PROFILES[profile]
        else f"model {spec.model}"
        if name in in_model
        else "built in"
        for name in SPECS[command].model_fields
    }
    return Request(
        command=command,
        spec=spec,
        sources=sources | {name: given.origins[name] for name in values},
        reproduce=" ".join(words),
        resume=resume,
        settings=RunSettings(**{field.name: options[field.name] for field in dataclasses.fields(RunSettings)}),
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
