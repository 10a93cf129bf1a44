"""YAML as this project reads it: YAML 1.2's numbers and words, no repeated keys, and every complaint with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


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
class YamlReader:
    """Reads one file and collects what is wrong with it: line, column, text. `layout` shows what a file looks like."""

    path: Path
    layout: str
    text: str = ""
    wrong: list[tuple[int, int, str]] = field(default_factory=list)

    def compose(self) -> yaml.Node | None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read ({error.strerror}); give another file") from None
        try:
            self.text = content.decode("utf-8-sig")
            for token in yaml.scan(self.text, Loader=_Loader):
                if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
                    self.complain(token, "", "anchors and aliases are not supported; share settings under defaults")
                    return None
            root = yaml.compose(self.text, Loader=_Loader)
        except UnicodeDecodeError as error:
            self.complain_at(content[: error.start].decode(errors="replace"), "", "is not UTF-8 text")
            return None
        except yaml.MarkedYAMLError as error:
            self.complain(error, "", " ".join(filter(None, (error.context, error.problem))))
            return None
        except yaml.reader.ReaderError as error:
            self.complain_at(
                self.text[: error.position], "", f"has a character that YAML forbids, #x{error.character:04x}"
            )
            return None
        except RecursionError:
            self.complain_at("", "", "is nested too deeply")
            return None
        if root is None:
            self.complain_at("", "", f"is empty; write {self.layout}")
        return root

    def mapping(self, node: yaml.Node, path: str, known: Iterable[str] | None) -> Located:
        """The entries of a mapping by name; hyphens in settings are read as underscores."""
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, path, "is not a mapping; write NAME: VALUE lines")
            return {}
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self.complain(key, path, "has a key that is not a word")
                continue
            name = key.value if known is None else key.value.replace("-", "_")
            here = f"{path}.{key.value}".lstrip(".")
            if name in entries:
                line = entries[name][0].start_mark.line + 1
                self.complain(key, here, f"appears twice, first on line {line}; keep one")
            elif known is not None and name not in known:
                self.complain(key, here, f"unknown key{did_you_mean(name, sorted(known))}")
            elif known is None and not NAME.fullmatch(name):
                self.complain(key, here, "is not a name; use letters, digits, - and _")
            else:
                entries[name] = key, value
        return entries

    def scalar(self, node: yaml.Node, path: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            self.complain(node, path, "is a mapping or a nested list; give a value or a plain list")
            return None
        if node.tag not in _SCALARS:
            self.complain(node, path, f"has the tag {node.tag}, which is not supported; leave it out")
            return None
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            self.complain(node, path, "is a number out of range")
            return None

    def complain(self, at: Any, path: str, text: str) -> None:
        mark = getattr(at, "start_mark", None) or getattr(at, "problem_mark", None) or getattr(at, "context_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        self._say(line, column, path, text)

    def complain_at(self, before: str, path: str, text: str) -> None:
        lines = f"{before}|".splitlines()
        self._say(len(lines), len(lines[-1]), path, text)

    def _say(self, line: int, column: int, path: str, text: str) -> None:
        one_line = " ".join(f"{path}: {text}".removeprefix(": ").split())
        if (line, column, one_line) not in self.wrong:
            self.wrong.append((line, column, one_line))
