"""Scenario files: several experiments over shared defaults, in YAML, checked as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.schedules import DECAYS, WARMUPS
from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.models.variants import VARIANTS
from stresstest.registry import Registry, did_you_mean
from stresstest.scenario.claims import Claim
from stresstest.scenario.claims_reader import ClaimSeeds, read_claims, read_seeds
from stresstest.scenario.thresholds import Threshold, parse_threshold
from stresstest.scenario.yaml_nodes import Located, YamlReader
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model
from stresstest.specs.parsing import parse_choice, split_choices
from stresstest.specs.profiles import PROFILES, violations, with_profile

_TOP = ("paper", "seeds", "defaults", "experiments", "profiles", "claims", "thresholds", "gate")
_FORMAT = (
    "experiments: {NAME: {command: lr-range, SETTING: VALUE, ...}}, with defaults: {SETTING: VALUE, ...} or without"
)


@dataclass(frozen=True)
class ScenarioExperiment:
    """One experiment of a scenario: the settings that the file gives, and where it stands there."""

    name: str
    command: str
    profile: str | None
    given: Mapping[str, Any]
    where: str  # file:line:col


@dataclass(frozen=True)
class Gate:
    """How a scenario is compared with a base: the error rate over all lines and looks, and the most seeds."""

    alpha: float = 0.05
    max_seeds: int | None = None  # None: twice as many as the scenario has


@dataclass(frozen=True)
class Scenario:
    """A checked file; `name` is the file's, without its suffix. Thresholds and claims come with their file:line:col.

    `profile`: which of the file's own `profiles` was read, where it has some; the first, if none was asked for.
    """

    name: str
    source: str
    experiments: tuple[ScenarioExperiment, ...]
    thresholds: tuple[tuple[str, Threshold], ...] = ()
    gate: Gate = Gate()
    claims: tuple[tuple[str, Claim], ...] = ()
    paper: str = ""
    profile: str = ""
    profiles: tuple[str, ...] = ()
    seeds: ClaimSeeds | None = None  # of the claims, and so of every experiment

    def with_seeds(self, seeds: ClaimSeeds, number: int) -> Scenario:
        """The same with the first so many confirming seeds."""
        given = {"seeds": seeds.confirming(number)}
        experiments = tuple(replace(each, given={**each.given, **given}) for each in self.experiments)
        return replace(self, experiments=experiments, seeds=seeds)

    def only(self, experiments: Collection[str], claims: Sequence[tuple[str, Claim]]) -> Scenario:
        """The same with these experiments and claims alone."""
        kept = tuple(each for each in self.experiments if each.name in experiments)
        return replace(self, experiments=kept, claims=tuple(claims))


def load_scenario(path: Path, profile: str | None = None) -> Scenario:
    """Read and check a file, with the settings of one of its own profiles on top where it has some.

    All that is wrong with it comes as one `ConfigError`, a line each: file:line:col: path: what.
    """
    reader = _Reader(path, _FORMAT, profile=profile or "")
    experiments = reader.read()
    if reader.wrong:
        number = len(reader.wrong)
        lines = [f"{path}:{line}:{column}: {text}" for line, column, text in sorted(reader.wrong)]
        raise ConfigError("\n".join([*lines, f"{number} error{'s' * (number > 1)} in {path}; nothing was trained"]))
    if profile and not reader.profiles:
        raise ConfigError(f"{path} defines no profiles; leave out --profile {profile}")
    found = Scenario(
        path.stem,
        str(path),
        tuple(experiments),
        tuple(reader.thresholds),
        reader.gate,
        tuple(reader.claims),
        reader.paper,
        reader.profile,
        tuple(reader.profiles),
    )
    return found if reader.seeds is None else found.with_seeds(reader.seeds, reader.seeds.look)


@dataclass
class _Reader(YamlReader):
    """Reads one file and collects what is wrong with it: line, column, text."""

    thresholds: list[tuple[str, Threshold]] = field(default_factory=list)
    gate: Gate = Gate()
    claims: list[tuple[str, Claim]] = field(default_factory=list)
    paper: str = ""
    seeds: ClaimSeeds | None = None
    profile: str = ""
    profiles: Located = field(default_factory=dict)

    def read(self) -> list[ScenarioExperiment]:
        root = self.compose()
        if root is None:
            return []
        top = self.mapping(root, "", _TOP)
        if "paper" in top:
            self.paper = str(self.scalar(top["paper"][1], "paper"))
        if "claims" in top:
            self.claims += read_claims(self, top["claims"][1])
        if "seeds" in top:
            self.seeds = read_seeds(self, top["seeds"][1])
            if "claims" not in top:
                self.complain(top["seeds"][0], "seeds", "are those of claims, and there are none; use defaults.seeds")
        if "gate" in top:
            self._gate(top["gate"][1])
        if "thresholds" in top:
            self._thresholds(top["thresholds"][1])
        everywhere = {name for kind in EXPERIMENTS.specs.values() for name in kind.model_fields} | {"profile"}
        shared: Located = {}
        if "defaults" in top:
            shared = self.mapping(top["defaults"][1], "defaults", everywhere)
        if "experiments" not in top:
            if not self.wrong:
                self.complain(root, "", f"has no experiments; write {_FORMAT}")
            return []
        experiments = self.mapping(top["experiments"][1], "experiments", None)
        if not experiments and not self.wrong:
            self.complain(top["experiments"][1], "experiments", f"is empty; write {_FORMAT}")
        over = self._profile(top["profiles"][1], experiments) if "profiles" in top else {}
        if self.profiles and self.profile not in self.profiles:
            return []  # whatever the experiments lack without it follows from this one fault
        found = [
            self._experiment(name, key, value, shared | over.get("defaults", {}), over.get(name, {}))
            for name, (key, value) in experiments.items()
        ]
        return [experiment for experiment in found if experiment is not None]

    def _profile(self, node: yaml.Node, experiments: Located) -> dict[str, Located]:
        """The settings of the profile that was asked for, or of the first, by experiment, and its own defaults."""
        self.profiles = self.mapping(node, "profiles", None)
        if not self.profiles:
            return {}
        self.profile = self.profile or next(iter(self.profiles))
        if self.profile not in self.profiles:
            self.complain(node, "profiles", f"has no '{self.profile}'{did_you_mean(self.profile, self.profiles)}")
            return {}
        path = f"profiles.{self.profile}"
        named = self.mapping(self.profiles[self.profile][1], path, None)
        found = {}
        for name, (key, value) in named.items():
            if name not in (*experiments, "defaults"):
                self.complain(key, f"{path}.{name}", f"unknown experiment{did_you_mean(name, experiments)}")
            else:
                every = {setting for kind in EXPERIMENTS.specs.values() for setting in kind.model_fields} | {"profile"}
                found[name] = self.mapping(value, f"{path}.{name}", every)
        return found

    def _thresholds(self, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, "thresholds", "is not a mapping; write METRIC: [EXPRESSION, ...] lines")
            return
        written: set[str] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            path = f"thresholds.{name}"
            if name in written:
                self.complain(key, path, "appears twice; put its thresholds into one list")
            written.add(name)
            for item in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self._threshold(name, key, item, path)

    def _threshold(self, name: str, key: yaml.Node, node: yaml.Node, path: str) -> None:
        level = "error"
        if isinstance(node, yaml.MappingNode):
            inner = self.mapping(node, path, ("expr", "level"))
            if "expr" not in inner:
                self.complain(node, path, "has no expr; write {expr: 'med >= 0.003', level: warn}")
                return
            level = str(self.scalar(inner["level"][1], path)) if "level" in inner else level
            node = inner["expr"][1]
        if not isinstance(node, yaml.ScalarNode):
            self.complain(node, path, "is not an expression; write e.g. 'med >= 0.003'")
            return
        try:
            threshold = parse_threshold(name, node.value, level)
        except ConfigError as error:
            self.complain(node, path, str(error))
            return
        if threshold.level != "off":
            self.thresholds.append((f"{self.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}", threshold))

    def _gate(self, node: yaml.Node) -> None:
        entries = self.mapping(node, "gate", ("alpha", "max_seeds"))
        values = {name: self.scalar(value, f"gate.{name}") for name, (_, value) in entries.items()}
        alpha, most = values.get("alpha", self.gate.alpha), values.get("max_seeds")
        if not isinstance(alpha, float) or not 0.0 < alpha < 0.5:
            self.complain(entries["alpha"][1], "gate.alpha", "is not an error rate; give a number between 0 and 0.5")
        elif "max_seeds" in values and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            self.complain(entries["max_seeds"][1], "gate.max_seeds", "is not a number of seeds; give 1 or more")
        else:
            self.gate = Gate(alpha, most)

    def _experiment(
        self, name: str, key: yaml.Node, node: yaml.Node, shared: Located, over: Located
    ) -> ScenarioExperiment | None:
        path, before = f"experiments.{name}", len(self.wrong)
        command = self._command(node, path, key)
        if command is None:
            return None
        kind = EXPERIMENTS[command].spec
        own = self.mapping(node, path, {"command", "profile", *kind.model_fields})
        own = self._factory(own | over, path)
        for setting, (at, _) in over.items():
            if setting not in {"profile", *kind.model_fields}:
                self.complain(at, f"profiles.{self.profile}.{name}", f"{command} has no setting {setting}")
        shared = self._factory(shared, "defaults")
        entries = {n: entry for n, entry in shared.items() if n in {"profile", *kind.model_fields}} | own
        if self.seeds is not None and "seeds" in entries:
            self.complain(entries["seeds"][0], f"{path}.seeds", "are those of the claims, seeds: above; leave them out")
        places = {n: f"{path if n in own else 'defaults'}.{entry[0].value}" for n, entry in entries.items()}
        values = {}
        for n, (_, value) in entries.items():
            so_far = len(self.wrong)
            found = None if n == "command" else self._value(kind, n, value, places[n])
            if n != "command" and len(self.wrong) == so_far:
                values[n] = found
        profile = values.pop("profile", None)
        if profile is not None and profile not in PROFILES:
            self.complain(
                entries["profile"][1], places["profile"], f"unknown profile{did_you_mean(str(profile), PROFILES)}"
            )
            profile = None
        given = {n: value for n, value in values.items() if value is not None or _may_be_off(kind, n)}
        for n in values.keys() - given.keys():
            self.complain(entries[n][1], places[n], "has no value; give one or leave it out")
        for setting, text in (*violations(kind, with_profile(kind, profile or "quick", given)), *_unknown_names(given)):
            at, place = (entries[setting][1], places[setting]) if setting in entries else (key, path)
            self.complain(at, place, text)
        where = f"{self.path}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
        return None if len(self.wrong) > before else ScenarioExperiment(name, command, profile, given, where)

    def _factory(self, entries: Located, path: str) -> Located:
        """`model: {factory: NAME, args: {KEY: VALUE}}` as the settings `model` and `set`."""
        key, node = entries.get("model", (None, None))
        if key is None or not isinstance(node, yaml.MappingNode):
            return entries
        inner = self.mapping(node, f"{path}.model", ("factory", "args"))
        if "factory" not in inner:
            self.complain(node, f"{path}.model", "has no factory; write {factory: FILE.py:NAME, args: {KEY: VALUE}}")
            return {name: entry for name, entry in entries.items() if name != "model"}
        found = entries | {"model": (key, inner["factory"][1])}
        if "args" in inner:
            args = self.mapping(inner["args"][1], f"{path}.model.args", None)
            texts = [(name, value) for name, (_, value) in args.items()]
            wrong = [value for _, value in texts if not isinstance(value, yaml.ScalarNode)]
            for value in wrong:
                self.complain(value, f"{path}.model.args", "is not a plain value; build lists in the factory")
            items = [_text_node(value, f"{name}={value.value}") for name, value in texts if value not in wrong]
            found["set"] = inner["args"][0], yaml.SequenceNode("tag:yaml.org,2002:seq", items, node.start_mark)
        return found

    def _command(self, node: yaml.Node, path: str, key: yaml.Node) -> str | None:
        if not isinstance(node, yaml.MappingNode):
            self.complain(key, path, f"is not a mapping; write {_FORMAT}")
            return None
        found = [v for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == "command"]
        if not found:
            self.complain(key, path, f"has no command; give command: {' or '.join(EXPERIMENTS)}")
        elif not isinstance(found[0], yaml.ScalarNode) or found[0].value not in EXPERIMENTS:
            asked = found[0].value if isinstance(found[0], yaml.ScalarNode) else ""
            self.complain(found[0], f"{path}.command", f"unknown command '{asked}'{did_you_mean(asked, EXPERIMENTS)}")
        else:
            return str(found[0].value)
        return None

    def _value(self, kind: type[TrainingSpec], name: str, node: yaml.Node, path: str) -> Any:
        """A value as the spec takes it: lists as tuples, and single words where a list may be as text."""
        annotation = kind.model_fields[name].annotation if name in kind.model_fields else str
        many = get_origin(annotation) is tuple
        if isinstance(node, yaml.SequenceNode):
            if many:
                return tuple(self.scalar(item, path) for item in node.value)
            self.complain(node, path, "is a list; give one value")
            return None
        value = self.scalar(node, path)
        if isinstance(value, bool) != (annotation is bool) and value is not None:
            self.complain(
                node,
                path,
                "expects a value, not true or false" if isinstance(value, bool) else "expects true or false",
            )
        return str(value) if many and value is not None else value


def _text_node(like: yaml.Node, text: str) -> yaml.Node:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, like.start_mark)


def _may_be_off(kind: type[TrainingSpec], name: str) -> bool:
    return type(None) in get_args(kind.model_fields[name].annotation)


def _unknown_names(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that are in no table, or have no such option."""
    tables: dict[str, Registry[Any]] = {
        "variant": VARIANTS,
        "optimizer": OPTIMIZERS,
        "warmup": WARMUPS,
        "decay": DECAYS,
    }
    own = is_user_model(str(given.get("model", "")))
    for setting, table in tables.items():
        if own and setting in ("variant", "optimizer"):
            continue  # its factory knows
        texts = given.get(setting, ())
        for text in split_choices(texts) if isinstance(texts, str) else texts:
            if isinstance(text, str) and text != "all":
                try:
                    parse_choice(text, table)
                except ConfigError as error:
                    yield setting, str(error)
