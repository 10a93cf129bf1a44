"""How records print in Python: on one line, without what is empty, and with what is long cut short."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stresstest.results.bracket import Bracket, Record

_ROOM = 90  # characters for what is in one list or dictionary
_TEXT = 60  # characters of a text within it


class Brief(Record):
    """A record that prints on one line; every field is there by its name."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields that are not empty, each cut short."""
        for name, value in super().__repr_args__():
            if value not in ("", None, {}, [], ()) and not (type(value) is float and value == 0.0):
                yield name, _Text(_field(value))

    def __str__(self) -> str:
        """The same."""
        return repr(self)

    def inside(self) -> str:
        """How it prints within another record."""
        return _cut(repr(self))


class _Text:
    """Something whose repr is this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _field(value: Any) -> str:
    return _inside(value) if isinstance(value, Mapping | list | tuple | Bracket | Brief) else repr(value)


def _inside(value: Any) -> str:
    """A value within another one: a number to four digits, a bracket by its sides, a list as far as there is room."""
    if isinstance(value, Bracket):
        return sides(value.low, value.high)
    if isinstance(value, Brief):
        return value.inside()
    if isinstance(value, Mapping):
        return f"{{{_some(f'{key!r}: {_inside(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        begin, end = "[]" if isinstance(value, list) else "()"
        return f"{begin}{_some(map(_inside, value))}{end}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."


def sides(low: float | None, high: float | None) -> str:
    """A bracket or an interval to four digits: a number, both sides, or that beyond which it lies."""
    if low is None or high is None:
        return "none" if low == high else f"< {high:.4g}" if low is None else f"> {low:.4g}"
    return f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"


def _some(texts: Iterable[str]) -> str:
    every = list(texts)
    shown: list[str] = []
    length = 0
    for text in every:
        length += len(text) + 2
        if length > _ROOM and len(every) - len(shown) > 1:
            break
        shown.append(text)
    left = len(every) - len(shown)
    return ", ".join([*shown, *([f"... {left} more" if shown else f"{left} of them"] if left else [])])
