"""The line of Python that gives a result again: what it imports, every setting, and what cannot be imported."""

from __future__ import annotations

import builtins
import functools
import math
import re
import sys
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

_MANY = 100  # values in a list: with more it is data, and no setting
_BRACKETS = {list: ("[", "]"), tuple: ("(", ")"), set: ("set([", "])"), frozenset: ("frozenset([", "])")}


def call_line(command: str, model: object, settings: Mapping[str, object]) -> str:
    """The call of an experiment's function, which `exec` takes.

    A function or class stands there by its module's name. What no module has (a lambda, a function of a script or
    notebook, an object) stands there by the name of its setting, and a comment says what it was.
    """
    words = _Words()
    given = [words.of(model, "model"), *(f"{name}={words.of(value, name)}" for name, value in settings.items())]
    call = f"stresstest.{command.replace('-', '_')}({', '.join(given)})"
    imports = f"import {', '.join(sorted({'stresstest', *words.modules}))}; " if words.modules else ""
    said = ", ".join(f"{name} ({what})" for name, what in words.absent.items())
    return f"{imports}{call}{f'  # define first: {said}' if said else ''}"


def is_call(line: str) -> bool:
    """Whether a line that gives a result again is Python, and no command."""
    return re.match(r"(import [\w., ]+; )?stresstest\.\w+\(", line) is not None


class _Words:
    """Values as Python, with the modules that they need and what has to be there under a name."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.absent: dict[str, str] = {}

    def of(self, value: object, name: str) -> str:
        """The text of a value, which has this name where nothing else stands for it; a dictionary is one by entries."""
        if type(value) is dict:
            pairs = (f"{self.of(key, name)}: {self.of(each, _inside(name, key))}" for key, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        found = self._expression(value)
        return self._named(value, name) if found is None else found

    def _expression(self, value: object) -> str | None:
        """The text of a value that is made of constants and of what can be imported."""
        if type(value) in _BRACKETS:
            return self._several(value)  # type: ignore[arg-type]  # its type is one of the collections in _BRACKETS
        if isinstance(value, functools.partial):
            return self._partial(value)
        constant = _constant(value)
        return self._imported(value) if constant is None else constant

    def _several(self, values: Collection[object]) -> str | None:
        words = []
        for value in values if len(values) <= _MANY else ():
            words.append(self._expression(value))
            if words[-1] is None:
                return None
        if len(words) < len(values):
            return None
        begin, end = _BRACKETS[type(values)]
        return f"{begin}{', '.join(filter(None, words))}{',' * (type(values) is tuple and len(words) == 1)}{end}"

    def _partial(self, value: functools.partial[Any]) -> str | None:
        names = ["", *("" for _ in value.args), *(f"{key}=" for key in value.keywords)]
        words = [self._expression(each) for each in (value.func, *value.args, *value.keywords.values())]
        if None in words:
            return None
        self.modules.add("functools")
        return f"functools.partial({', '.join(f'{name}{word}' for name, word in zip(names, words, strict=True))})"

    def _imported(self, value: object) -> str | None:
        """MODULE.NAME, where that is what it is; a member of an enumeration is one of its class."""
        if isinstance(value, Enum):
            of_class = self._imported(type(value))
            return of_class and f"{of_class}.{value.name}"
        module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if str(type(value)) == "<class 'torch.dtype'>":
            module, path = "torch", str(value).removeprefix("torch.")
        if not isinstance(module, str) or not isinstance(path, str) or module == "__main__":
            return None
        if module == "builtins":
            return path if getattr(builtins, path, None) is value else None
        found = _shortest(module, path, value)
        if found is not None:
            self.modules.add(found)
        return found and f"{found}.{path}"

    def _named(self, value: object, name: str) -> str:
        own = getattr(value, "__name__", "")
        chosen = own if isinstance(own, str) and own.isidentifier() and own != "stresstest" else name
        while self.absent.get(chosen, (said := _said(value))) != said:
            chosen += "_"
        self.absent[chosen] = said
        return chosen


def _shortest(module: str, path: str, value: object) -> str | None:
    """The shortest package that has a value under its name: some delete their modules' names (torch.optim)."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        found: object = sys.modules.get(parts[0])
        for part in (*parts[1:count], *path.split(".")):
            found = getattr(found, part, None)
        if found is value:
            return ".".join(parts[:count])
    return None


def _constant(value: object) -> str | None:
    """A constant as Python; numpy's numbers are those of Python, and a few numbers in a row a list."""
    if type(value).__module__ == "numpy" and callable(listed := getattr(value, "tolist", None)):
        value = listed() if getattr(value, "size", 0) <= _MANY else None
        return _numbers(value)
    if isinstance(value, PurePath):
        return repr(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value) if type(value) in (type(None), bool, int, float, complex, str, bytes, range) else None


def _numbers(value: object) -> str | None:
    if isinstance(value, list):
        return repr(value) if all(type(each) in (bool, int, float) for each in value) else None
    return repr(value) if type(value) in (bool, int, float) else None


def _inside(name: str, key: object) -> str:
    """A name for what stands in a list or dictionary of this name."""
    text = f"{name}_{key}"
    return text if text.isidentifier() else name


def _said(value: object) -> str:
    """What it is and where it was made, in words that hold no text of the user's but names."""
    module = str(getattr(value, "__module__", "")).split("\n")[0]
    path = str(getattr(value, "__qualname__", "")).split("\n")[0]
    if not callable(value) or not path:
        return f"object of {type(value).__module__}.{type(value).__qualname__}"
    return f"{'lambda' if path.endswith('<lambda>') else path} of {module}"
