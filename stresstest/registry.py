"""A table of named entries: one place per fact, read by the CLI, `list`, reports and tests."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from stresstest.errors import ConfigError


class Entry(Protocol):
    """What every table entry can say about itself."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def source(self) -> str: ...


OptionValue = float | bool | str  # of an entry that takes options, NAME[:key=value,...]

E = TypeVar("E", bound=Entry)


class Registry(Mapping[str, E]):
    """Entries by name, in the order they were written; an unknown name is a `ConfigError`."""

    def __init__(self, kind: str, entries: Iterable[E]) -> None:
        self.kind = kind
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> E:
        if name not in self._entries:
            raise ConfigError(f"unknown {self.kind} '{name}'{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The tail of an error line: the nearest choice, or all of them when none is near."""
    known = list(choices)
    if near := nearest(name, known):
        return f"; did you mean '{near}'?"
    return f"; choose from {', '.join(known)}" if known else "; it has none"


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that a misspelt name is most like; None if none is near."""
    return next(iter(difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)), None)
