"""Scenario files: several experiments over shared defaults, in YAML, checked as a whole before anything runs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from stresstest.choices import parse_choice, split_choices
from stresstest.errors import ConfigError
from stresstest.model_specs import TrainingSpec, is_own
from stresstest.models.variants import VARIANTS
from stresstest.optimizers import OPTIMIZERS
from stresstest.schedules import DECAYS, WARMUPS
from stresstest.specs import PROFILES, SPECS, violations, with_profile
from stresstest.tables import Table, did_you_mean

SHIPPED = Path(__file__).parent / "scenarios"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FORMAT = (
    "experiments: {NAME: {command: lr-range, SETTING: VALUE, ...}}, with defaults: {SETTING: VALUE, ...} or without"
)


@dataclass(frozen=True)
class Experiment:
    """One experiment of a scenario: the settings that the file gives, and where it stands there."""

    name: str
    command: str
    profile: str | None
    given: Mapping[str, Any]
    where: str  # file:line:col


@dataclass(frozen=True)
class Scenario:
    """A checked file; `name` is the file's, without its suffix."""

    name: str
    source: str
    experiments: tuple[Experiment, ...]


@dataclass(frozen=True)
class Shipped:
    """A scenario that comes with the package: the question that its file opens with."""

    name: str
    summary: str
    source: str
    text: str


def shipped_scenarios() -> Table[Shipped]:
    """The scenarios of the package, by name."""
    paths = sorted(SHIPPED.glob("*.yaml"))
    entries = [(path.stem, path.read_text()) for path in paths]
    return Table("scenario", [Shipped(name, _opening(text), f"{name}.yaml", text) for name, text in entries])


def find_scenario(name: str) -> Path:
    """A file, or a scenario of the package by its name."""
    for path in (Path(name), SHIPPED / f"{name}.yaml"):
        with contextlib.suppress(OSError):  # a name that is too long, say
            if path.is_file():
                return path
    known = did_you_mean(name, shipped_scenarios())
    raise ConfigError(f"no scenario file {name}, and none of that name comes with stresstest{known}")


def load_scenario(path: Path) -> Scenario:
    """Read and check a file.

    All that is wrong with it comes as one `ConfigError`, a line each: file:line:col: path: what.
    """
    reader = _Reader(path)
    experiments = reader.read()
    if reader.wrong:
        number = len(reader.wrong)
        lines = [f"{path}:{line}:{column}: {text}" for line, column, text in sorted(reader.wrong)]
        raise ConfigError("\n".join([*lines, f"{number} error{'s' * (number > 1)} in {path}; nothing was trained"]))
    return Scenario(path.stem, str(path), tuple(experiments))


def _opening(text: str) -> str:
    """The question that the comment at the top of a file asks, before its cost."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("# ") or line.startswith("# Cost:"):
            break
        lines.append(line.removeprefix("# ").strip())
    return " ".join(lines)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and words: 1e-3 is a number, `no`, `on` and 12:30 are words."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _starts in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", "n~\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    _starting = [start.replace("\0", "") for start in _starts]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _starting)

_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
    "tag:yaml.org,2002:bool": lambda text: text == "true",
    "tag:yaml.org,2002:null": lambda text: None,
}

Located = dict[str, tuple[yaml.Node, yaml.Node]]  # the key and the value of each entry of a mapping, by its name


@dataclass
class _Reader:
    """Reads one file and collects what is wrong with it: line, column, text."""

    path: Path
    text: str = ""
    wrong: list[tuple[int, int, str]] = field(default_factory=list)

    def read(self) -> list[Experiment]:
        root = self._compose()
        if root is None:
            return []
        top = self._mapping(root, "", ("defaults", "experiments"))
        everywhere = {name for kind in SPECS.values() for name in kind.model_fields} | {"profile"}
        shared: Located = {}
        if "defaults" in top:
            shared = self._mapping(top["defaults"][1], "defaults", everywhere)
        if "experiments" not in top:
            if not self.wrong:
                self._complain(root, "", f"has no experiments; write {_FORMAT}")
            return []
        experiments = self._mapping(top["experiments"][1], "experiments", None)
        if not experiments and not self.wrong:
            self._complain(top["experiments"][1], "experiments", f"is empty; write {_FORMAT}")
        found = [self._experiment(name, key, value, shared) for name, (key, value) in experiments.items()]
        return [experiment for experiment in found if experiment is not None]

    def _compose(self) -> yaml.Node | None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read ({error.strerror}); give another file") from None
        try:
            self.text = content.decode("utf-8-sig")
            for token in yaml.scan(self.text, Loader=_Loader):
                if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
                    self._complain(token, "", "anchors and aliases are not read; share settings under defaults")
                    return None
            root = yaml.compose(self.text, Loader=_Loader)
        except UnicodeDecodeError as error:
            self._complain_at(content[: error.start].decode(errors="replace"), "", "is no UTF-8 text")
            return None
        except yaml.MarkedYAMLError as error:
            self._complain(error, "", " ".join(filter(None, (error.context, error.problem))))
            return None
        except yaml.reader.ReaderError as error:
            self._complain_at(
                self.text[: error.position], "", f"has a character that YAML forbids, #x{error.character:04x}"
            )
            return None
        except RecursionError:
            self._complain_at("", "", "is nested too deeply")
            return None
        if root is None:
            self._complain_at("", "", f"is empty; write {_FORMAT}")
        return root

    def _mapping(self, node: yaml.Node, path: str, known: Iterable[str] | None) -> Located:
        """The entries of a mapping by name; hyphens in settings are read as underscores."""
        if not isinstance(node, yaml.MappingNode):
            self._complain(node, path, "is no mapping; write NAME: VALUE lines")
            return {}
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self._complain(key, path, "has a key that is no word")
                continue
            name = key.value if known is None else key.value.replace("-", "_")
            here = f"{path}.{key.value}".lstrip(".")
            if name in entries:
                line = entries[name][0].start_mark.line + 1
                self._complain(key, here, f"is there twice, first on line {line}; keep one")
            elif known is not None and name not in known:
                self._complain(key, here, f"unknown key{did_you_mean(name, sorted(known))}")
            elif known is None and not NAME.fullmatch(name):
                self._complain(key, here, "is no name; use letters, digits, - and _")
            else:
                entries[name] = key, value
        return entries

    def _experiment(self, name: str, key: yaml.Node, node: yaml.Node, shared: Located) -> Experiment | None:
        path, before = f"experiments.{name}", len(self.wrong)
        command = self._command(node, path, key)
        if command is None:
            return None
        kind = SPECS[command]
        own = self._mapping(node, path, {"command", "profile", *kind.model_fields})
        own = self._factory(own, path)
        shared = self._factory(shared, "defaults")
        entries = {n: entry for n, entry in shared.items() if n in {"profile", *kind.model_fields}} | own
        places = {n: f"{path if n in own else 'defaults'}.{entry[0].value}" for n, entry in entries.items()}
        values = {}
        for n, (_, value) in entries.items():
            so_far = len(self.wrong)
            found = None if n == "command" else self._value(kind, n, value, places[n])
            if n != "command" and len(self.wrong) == so_far:
                values[n] = found
        profile = values.pop("profile", None)
        if profile is not None and profile not in PROFILES:
            self._complain(
                entries["profile"][1], places["profile"], f"unknown profile{did_you_mean(str(profile), PROFILES)}"
            )
            profile = None
        given = {n: value for n, value in values.items() if value is not None or _may_be_off(kind, n)}
        for n in values.keys() - given.keys():
            self._complain(entries[n][1], places[n], "has no value; give one or leave it out")
        for setting, text in (*violations(kind, with_profile(kind, profile or "quick", given)), *_unknown_names(given)):
            at, place = (entries[setting][1], places[setting]) if setting in entries else (key, path)
            self._complain(at, place, text)
        where = f"{self.path}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
        return None if len(self.wrong) > before else Experiment(name, command, profile, given, where)

    def _factory(self, entries: Located, path: str) -> Located:
        """`model: {factory: NAME, args: {KEY: VALUE}}` as the settings `model` and `set`."""
        key, node = entries.get("model", (None, None))
        if key is None or not isinstance(node, yaml.MappingNode):
            return entries
        inner = self._mapping(node, f"{path}.model", ("factory", "args"))
        if "factory" not in inner:
            self._complain(node, f"{path}.model", "has no factory; write {factory: FILE.py:NAME, args: {KEY: VALUE}}")
            return {name: entry for name, entry in entries.items() if name != "model"}
        found = entries | {"model": (key, inner["factory"][1])}
        if "args" in inner:
            args = self._mapping(inner["args"][1], f"{path}.model.args", None)
            texts = [(name, value) for name, (_, value) in args.items()]
            wrong = [value for _, value in texts if not isinstance(value, yaml.ScalarNode)]
            for value in wrong:
                self._complain(value, f"{path}.model.args", "is no plain value; build lists in the factory")
            items = [_text_node(value, f"{name}={value.value}") for name, value in texts if value not in wrong]
            found["set"] = inner["args"][0], yaml.SequenceNode("tag:yaml.org,2002:seq", items, node.start_mark)
        return found

    def _command(self, node: yaml.Node, path: str, key: yaml.Node) -> str | None:
        if not isinstance(node, yaml.MappingNode):
            self._complain(key, path, f"is no mapping; write {_FORMAT}")
            return None
        found = [v for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == "command"]
        if not found:
            self._complain(key, path, f"has no command; give command: {' or '.join(SPECS)}")
        elif not isinstance(found[0], yaml.ScalarNode) or found[0].value not in SPECS:
            asked = found[0].value if isinstance(found[0], yaml.ScalarNode) else ""
            self._complain(found[0], f"{path}.command", f"unknown command '{asked}'{did_you_mean(asked, SPECS)}")
        else:
            return str(found[0].value)
        return None

    def _value(self, kind: type[TrainingSpec], name: str, node: yaml.Node, path: str) -> Any:
        """A value as the spec takes it: lists as tuples, and single words where a list may be as text."""
        annotation = kind.model_fields[name].annotation if name in kind.model_fields else str
        many = get_origin(annotation) is tuple
        if isinstance(node, yaml.SequenceNode):
            if many:
                return tuple(self._scalar(item, path) for item in node.value)
            self._complain(node, path, "is a list; give one value")
            return None
        value = self._scalar(node, path)
        if isinstance(value, bool) != (annotation is bool) and value is not None:
            self._complain(
                node,
                path,
                "is no switch; give a value" if isinstance(value, bool) else "is a switch; give true or false",
            )
        return str(value) if many and value is not None else value

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            self._complain(node, path, "is a mapping or a list within one; give a value or a plain list")
            return None
        if node.tag not in _SCALARS:
            self._complain(node, path, f"has a tag, {node.tag}, that is not read; leave it out")
            return None
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            self._complain(node, path, "is no number that fits")
            return None

    def _complain(self, at: Any, path: str, text: str) -> None:
        mark = getattr(at, "start_mark", None) or getattr(at, "problem_mark", None) or getattr(at, "context_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        self._say(line, column, path, text)

    def _complain_at(self, before: str, path: str, text: str) -> None:
        lines = f"{before}|".splitlines()
        self._say(len(lines), len(lines[-1]), path, text)

    def _say(self, line: int, column: int, path: str, text: str) -> None:
        one_line = " ".join(f"{path}: {text}".removeprefix(": ").split())
        if (line, column, one_line) not in self.wrong:
            self.wrong.append((line, column, one_line))


def _text_node(like: yaml.Node, text: str) -> yaml.Node:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, like.start_mark)


def _may_be_off(kind: type[TrainingSpec], name: str) -> bool:
    return type(None) in get_args(kind.model_fields[name].annotation)


def _unknown_names(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that are in no table, or have no such option."""
    tables: dict[str, Table[Any]] = {
        "variant": VARIANTS,
        "optimizer": OPTIMIZERS,
        "warmup": WARMUPS,
        "decay": DECAYS,
    }
    own = is_own(str(given.get("model", "")))
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
