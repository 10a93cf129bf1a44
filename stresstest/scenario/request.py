"""What is asked for, from plain data: one experiment to run, or those of a scenario, and how to run and show them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.runs.ranks import program
from stresstest.runs.settings import RunSettings
from stresstest.scenario.library import find_scenario
from stresstest.scenario.reader import Scenario, ScenarioExperiment, load_scenario
from stresstest.specs.base import TrainingSpec
from stresstest.specs.parsing import exact_text, flag
from stresstest.specs.profiles import PROFILES, make_spec

Sourced = Mapping[str, tuple[Any, str]]  # the settings that somebody gave, and the profile: the value and who
DEFAULT_PROFILE = "quick"


@dataclass(frozen=True)
class Request:
    """One experiment to run: the spec, and how to run and show it."""

    command: str
    spec: TrainingSpec
    sources: Mapping[str, str]
    reproduce: str  # the line that gives this result again
    resume: str = ""  # the line that goes on with the run, where that is another one
    is_call: bool = False  # these lines are Python, and the one that goes on names the run directory
    settings: RunSettings = RunSettings()
    run_dir: str | None = None
    fresh: bool = False
    outputs: Sequence[str] = ()
    logs: Sequence[str] = ()  # trackers that are told of each cell, NAME[:PLACE]
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    dry_run: bool = False

    @classmethod
    def of(
        cls,
        command: str,
        given: Sourced,
        options: Mapping[str, Any],
        reproduce: str = "",
        resume: str = "",
        is_call: bool = False,
    ) -> Request:
        """A request from plain data; what is wrong with it is a `ConfigError`.

        `given` has settings and the profile as the command line, a file or Python gives them. `options` say how to
        run and show it, by the names of the fields of `RunSettings` and of this class; `output` are the outputs,
        `log` the trackers.
        """
        kind = EXPERIMENTS[command].spec
        profile = given["profile"][0] if "profile" in given else DEFAULT_PROFILE
        values = {name: as_setting(kind, name, value) for name, (value, _) in given.items() if name != "profile"}
        try:
            spec = make_spec(kind, profile, values)
        except ConfigError as error:
            raise ConfigError(f"{error}{_set_elsewhere(str(error), given)}") from None
        settings = RunSettings(**_named(options, (field.name for field in dataclasses.fields(RunSettings))))
        _check(command, spec, settings, bool(options.get("fresh")))
        return cls(
            command=command,
            spec=spec,
            sources=_sources(spec, profile, given),
            reproduce=reproduce or _line(command, given),
            resume=resume,
            is_call=is_call,
            settings=settings,
            outputs=options.get("output", ()),
            logs=options.get("log", ()),
            **_named(options, ("run_dir", "fresh", "as_json", "quiet", "verbose", "dry_run")),
        )

    @property
    def again(self) -> str:
        """The command that goes on with this run."""
        return self.going_on(self.run_dir) if self.run_dir else self.line

    def going_on(self, run_dir: str | Path) -> str:
        """The command that goes on with this run in a run directory."""
        return self.line if self.is_call else f"{self.line} --run-dir {shlex.quote(str(run_dir))}"

    @property
    def line(self) -> str:
        """The same without the run directory."""
        run, words = self.settings, [self.resume or self.reproduce]
        if run.executor != "local":
            words += ["--executor", run.executor]
        if run.ray_address:
            words += ["--ray-address", shlex.quote(run.ray_address)]
        for key, value in run.slurm:
            words += ["--slurm", shlex.quote(f"{key}={value}")]
        if run.storage:
            secret = run.storage_has_password  # the line is stored
            storage = '"$STRESSTEST_STORAGE"' if secret else shlex.quote(run.storage)
            words += ["--storage", storage, "--study", shlex.quote(run.study)]
        if run.shard[1] > 1:
            words.append(f"--shard {run.shard[0]}/{run.shard[1]}")
        words += [f"--log {shlex.quote(text)}" for text in self.logs if not self.is_call]
        return " ".join(words)


@dataclass(frozen=True)
class SettingSources:
    """The settings that were given for the experiments of a scenario, the profile among them, by who gave them.

    The line goes before the environment, that before the scenario file, and the file before the project's own
    defaults, which it has by command.
    """

    line: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    project: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by: str = "command line"  # who gave the line

    def of(self, experiment: ScenarioExperiment, file: str) -> Sourced:
        """Those of one experiment, the strongest of each."""
        given: dict[str, tuple[Any, str]] = {}
        given |= _sourced(self.project.get(experiment.command, {}), "pyproject.toml")
        given |= {name: (value, file) for name, value in experiment.given.items()}
        given |= {} if experiment.profile is None else {"profile": (experiment.profile, file)}
        given |= _sourced(self.environment, "environment") | _sourced(self.line, self.by)
        return {name: each for name, each in given.items() if name in _settings_of(experiment.command)}


def scenario_requests(
    name: str, scenario: Scenario, given: SettingSources, options: Mapping[str, Any]
) -> list[Request]:
    """The experiments of a file, with what was given beside it on top; `name` is what the scenario was called by.

    A profile of the file's own has been read with it, and is none of the built-in ones.
    """
    if scenario.profiles:
        given = dataclasses.replace(given, line=_but_profile(given.line), environment=_but_profile(given.environment))
    unused = given.line.keys() - set().union(*(_settings_of(each.command) for each in scenario.experiments))
    if unused:
        raise ConfigError(f"no experiment of {name} has the setting {flag(min(unused))}; leave it out")
    resume = [*program(), "run", shlex.quote(name)]
    resume += ["--profile", scenario.profile] if scenario.profile else []
    for setting, value in given.line.items():
        resume += _words(setting, value)
    return [
        Request.of(each.command, given.of(each, scenario.source), options, resume=" ".join(resume))
        for each in scenario.experiments
    ]


def open_scenario(name: str, profile: str | None) -> Scenario:
    """A file, or a scenario of the package by its name; read with its own profile of this name, if it has some."""
    path = find_scenario(name)
    loaded = load_scenario(path)
    return load_scenario(path, profile) if loaded.profiles and profile else loaded


def plain(value: Any) -> Any:
    """A list as the command line takes it; one number alone keeps a comma, as `seeds 3` would mean three.

    Values by names are KEY=VALUE,...
    """
    if isinstance(value, Mapping):
        return ",".join(f"{name}={each}" for name, each in value.items())
    if not isinstance(value, tuple | list):
        return value
    return ",".join(map(str, value)) + "," * (len(value) == 1 and isinstance(value[0], int))


def as_setting(kind: type[TrainingSpec], name: str, value: Any) -> Any:
    """A value as the spec takes it: a single one where a list may be is its text, as in `seeds: 3`."""
    annotation = kind.model_fields[name].annotation if name in kind.model_fields else None
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    if get_origin(annotation) is tuple and not many:
        return str(value)
    return tuple(value) if many else value


def _settings_of(command: str) -> set[str]:
    return {"profile", *EXPERIMENTS[command].spec.model_fields}


def _sourced(settings: Mapping[str, Any], who: str) -> dict[str, tuple[Any, str]]:
    return {name: (plain(value), who) for name, value in settings.items()}


def _but_profile(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "profile"}


def _named(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _check(command: str, spec: TrainingSpec, settings: RunSettings, fresh: bool) -> None:
    if settings.shard[1] > 1 and (asking := EXPERIMENTS[command].asks_for_more(spec)):
        raise ConfigError(
            f"leave out --shard: {asking} asks for cells depending on other results, and a shard knows only its own"
        )
    if fresh and settings.storage:
        raise ConfigError("--fresh cannot clear a shared storage; give another --study")


def _sources(spec: TrainingSpec, profile: str, given: Sourced) -> dict[str, str]:
    """Where each setting comes from."""
    names = type(spec).model_fields
    sources = dict.fromkeys(names, "built in")
    sources |= dict.fromkeys(spec.defaults_of(spec.model), f"model {spec.model}")
    sources |= dict.fromkeys(PROFILES[profile], f"profile {profile}")
    return {name: given[name][1] if name in given else sources[name] for name in names}


def _set_elsewhere(complaint: str, given: Sourced) -> str:
    """Where settings that a complaint names were set, if not on the line or in the file that was named."""
    named = set(re.findall(r"\w+", complaint))
    places = {"pyproject.toml": "pyproject.toml", "environment": "the environment"}
    found = [
        f"{name} is set in {places[by]}" for name, (_, by) in sorted(given.items()) if name in named and by in places
    ]
    return f" ({', '.join(found)})" if found else ""


def _line(command: str, given: Sourced) -> str:
    """The line of the experiment's own command that means the same."""
    words = [*program(), command]
    for name in ("profile", *EXPERIMENTS[command].spec.model_fields):
        if name in given and given[name][0] not in (None, ""):
            words += _words(name, given[name][0])
    return " ".join(words)


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag(name) if value else f"--no-{flag(name)[2:]}"]
    text = plain(value)
    return [flag(name), shlex.quote(exact_text(text) if isinstance(text, float) else str(text))]
