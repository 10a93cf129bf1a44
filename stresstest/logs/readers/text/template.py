"""A kind of line, found once by taking one apart and then read by one compiled pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stresstest.logs.readers.text.rows import Rows
from stresstest.logs.readers.text.tokens import Parsed, parse
from stresstest.logs.readers.text.words import Kind
from stresstest.logs.values import number

_ANY = r"(?:[-+]?(?:[\d,]+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?i:nan|inf(?:inity)?))"
_PIECE = re.compile(r"(?P<bar>%\|[^|]*\|)|(?P<line>[█▏▎▍▌▋▊▉━╸╺─═]+|\.{4,}|[=>.]{6,})|(?P<space>\s+)|(?P<digits>\d+)")
_SHAPE_NUMBER = re.compile(r"\s*[-+]?\d[\d.,]*(?:[eE][-+]?\d+)?|\b(?:nan|inf)\b", re.I)
_SHAPE_BAR = re.compile(r"%\|[^|]*\||[█▏▎▍▌▋▊▉━╸╺─═]+|\.{4,}|[=>.]{6,}|\s+")
_PROGRESS = re.compile(r"\d+%\|")

Match = Callable[[str], "re.Match[str] | None"]


@dataclass(frozen=True)
class Field:
    """A number that is kept of such a line."""

    name: str
    kind: Kind


def shape(line: str) -> str:
    """A line without its numbers and bars: the same for lines that one statement printed."""
    return _SHAPE_BAR.sub(" ", _SHAPE_NUMBER.sub("#", line))


class Template:
    """Lines of one shape, and the numbers read from them.

    fields: what is kept of a line. example: the first such line. tool: whose it is, where only the tool explains it.
    rows: the fields' numbers, then step and epoch of the lines above if a line `inherits` one of them, then its rank
    if lines begin with ranks. last: the numbers of the last line.
    """

    def __init__(self, fields: tuple[Field, ...], match: Match, example: str, tool: str = "") -> None:
        self.fields = fields
        self.match = match
        self.example = example
        self.tool = tool
        self.is_bar = _PROGRESS.search(example) is not None
        self.step_at = self._first("step", "batch") if (at := self._counter()) is None else at
        self.epoch_at = self._first("epoch")
        self.inherits = self.step_at is None or self.epoch_at is None
        self.rows = Rows([at for at, field in enumerate(fields) if field.kind in ("loss", "value")], self.step_at)
        self.last: list[float] = []

    def _counter(self) -> int | None:
        """A step that goes on over epochs by its name, beside one that may not."""
        whole = ("global", "num_updates")
        named = (at for at, field in enumerate(self.fields) if field.kind == "step")
        return next((at for at in named if any(word in self.fields[at].name.lower() for word in whole)), None)

    def _first(self, *kinds: Kind) -> int | None:
        return next((at for kind in kinds for at, field in enumerate(self.fields) if field.kind == kind), None)

    def add(self, tokens: Sequence[str], beside: Sequence[float], place: int) -> None:
        """Keep a line's numbers, and those beside them."""
        try:
            self.last = [*map(float, tokens), *beside]
        except ValueError:
            self.last = [_number(token) for token in tokens]
            self.last.extend(beside)
        self.rows.add(self.last, place)


def _number(token: str) -> float:
    value = number(token)
    return float("nan") if value is None else value


def template_of(line: str) -> Template | None:
    """The template of a line's shape; None where it holds nothing that is kept."""
    parsed = parse(line)
    fields = tuple(Field(token.name, token.kind) for token in parsed.tokens if token.kind != "noise")
    if not any(field.kind in ("step", "epoch", "loss", "value", "batch") for field in fields) or len(fields) > 80:
        return None
    pattern = re.compile(_pattern(line, parsed))
    whole = parsed.begin == 0 and parsed.end == len(line)
    match = pattern.fullmatch if whole else pattern.search
    found = match(line)
    if found is None or len(found.groups()) != len(fields):
        return None
    return Template(fields, match, line)


def _pattern(line: str, parsed: Parsed) -> str:
    parts: list[str] = []
    at = parsed.begin
    for token in parsed.tokens:
        parts.append(_literal(line[at : token.start], before_number=True))
        parts.append(_ANY if token.kind == "noise" else f"({_ANY})")
        at = token.end
    parts.append(_literal(line[at : parsed.end], before_number=False))
    return "".join(parts)


def _literal(text: str, before_number: bool) -> str:
    """Text as a pattern: room for padding, any bar for a bar, any digits for digits."""
    parts: list[str] = []
    at = 0
    for piece in _PIECE.finditer(text):
        parts.append(re.escape(text[at : piece.start()]))
        kind = piece.lastgroup
        parts.append(
            {"bar": r"%\|[^|]*\|", "line": r"[█▏▎▍▌▋▊▉━╸╺─═=>. ]*", "space": r"\s*", "digits": r"\d+"}[kind or "space"]
        )
        at = piece.end()
    parts.append(re.escape(text[at:]))
    pattern = "".join(parts)
    return pattern + r"\s*" if before_number and not pattern.endswith(r"\s*") else pattern
