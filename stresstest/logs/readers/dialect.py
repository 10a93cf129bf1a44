"""How a table is written: its delimiter, its header, its decimal mark."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stresstest.logs.values import number

_DELIMITERS = ("\t", ";", ",", "|", None)  # None: any run of blanks
_MARKS = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")
_COMMENTS = ("#", "%", "//")
_RULE = re.compile(r"[\s|:+=-]+")  # below the header of a Markdown table
_COMMA_IS_DECIMAL = re.compile(r"[-+]?(0,\d+|\d+,(\d{1,2}|\d{4,}))([eE][-+]?\d+)?")
_PANDAS_INDEX = re.compile(r"|Unnamed: 0|index", re.I)


@dataclass(frozen=True)
class Dialect:
    """A way to write a table. The header stands at `header_line`; None: without a header."""

    delimiter: str | None
    header: tuple[str, ...]
    header_line: int | None = None
    decimal_comma: bool = False
    share: float = 1.0  # of the first lines that have its number of fields

    def split(self, line: str) -> list[str]:
        """The fields of a line."""
        return split(line, self.delimiter)

    def names(self, fields: Sequence[str]) -> tuple[str, ...]:
        """Fields of a header as the names of columns, each once."""
        fields = fields[: next((n for n in range(len(fields), 0, -1) if fields[n - 1].strip()), 0)]
        nameless = len(fields) == len(self.header) - 1 and self.header[0] == "index"
        return _names(fields, len(fields) + nameless)


def is_row(line: str) -> bool:
    """Whether a line may hold a row or a header."""
    text = line.strip()
    return bool(text) and not text.startswith(_COMMENTS + _MARKS) and not _RULE.fullmatch(text)


def split(line: str, delimiter: str | None) -> list[str]:
    """The fields of a line, quotes and the outer bars of a Markdown table off."""
    if delimiter is None:
        return line.split()
    if delimiter == "|" and line.strip().startswith("|"):
        line = line.strip().strip("|")
    if '"' in line:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return line.split(delimiter)


def is_header(fields: Sequence[str]) -> bool:
    """Whether fields are names: no number among them."""
    return any(field.strip() for field in fields) and all(number(field) is None for field in fields)


def sniff(lines: Sequence[str]) -> Dialect | None:
    """The dialect of a table's first lines; None where they have no two columns."""
    places = [place for place, line in enumerate(lines) if is_row(line)]
    rows = [lines[place] for place in places]
    if not rows:
        return None
    best = max((_fit(rows, delimiter) for delimiter in _DELIMITERS), key=lambda fit: fit[0])
    share, width, delimiter = best
    if width < 2 or share < 0.5:
        return None
    fields = [split(row, delimiter) for row in rows]
    width = _without_last_hole(fields, width)
    at = next((i for i, row in enumerate(fields) if _may_head(row, width)), None)
    if at is None:
        return None
    body = [row for row in fields[at + 1 :] if len(row) >= width]
    comma = delimiter != "," and _has_decimal_comma(body)
    if _heads(fields[at], body):
        in_conflict = any(line.startswith(_MARKS[0]) for line in lines[: places[at]])
        start = 0 if in_conflict else places[at]  # the marks are taken out later, and must be seen
        return Dialect(delimiter, _names(fields[at], width), start, comma, share)
    named = _commented_header(lines[: places[at]], delimiter, width)
    return Dialect(delimiter, named or tuple(f"column {i + 1}" for i in range(width)), None, comma, share)


def _fit(rows: Sequence[str], delimiter: str | None) -> tuple[float, int, str | None]:
    """The share of rows with the commonest number of fields, that number, and the delimiter."""
    counts = [len(split(row, delimiter)) for row in rows]
    width, _ = Counter(counts[1:] or counts).most_common(1)[0]
    nameless = counts[0] == width - 1 and len(counts) > 1  # pandas' and R's column of row names
    share = (sum(count == width for count in counts) + nameless) / len(counts)
    return (share if width > 1 else 0.0), width, delimiter


def _without_last_hole(fields: Sequence[Sequence[str]], width: int) -> int:
    """One column less where each row ends with a delimiter."""
    full = [row for row in fields if len(row) == width]
    return width - 1 if width > 2 and all(not row[-1].strip() for row in full) else width


def _may_head(row: Sequence[str], width: int) -> bool:
    if len(row) in (width, width + 1):
        return True
    return len(row) == width - 1 and is_header(row)  # R names its rows in a column without a name


def _heads(first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Whether a first row names the columns: text where the rows below have numbers."""
    if is_header(first):
        return True
    if not first[0].strip() and body and body[0][0].strip() == "0":
        return True  # pandas' Series.to_csv: ",0"
    texts = [i for i, field in enumerate(first) if field.strip() and number(field) is None]
    below = [any(i < len(row) and number(row[i]) is not None for row in body[:20]) for i in texts]
    return any(below)


def _names(fields: Sequence[str], width: int) -> tuple[str, ...]:
    names = [field.strip().strip("'\"").lstrip("\ufeff").strip("'\" ") for field in fields]
    names = ["", *names] if len(names) == width - 1 else names[:width]
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        name = "index" if _PANDAS_INDEX.fullmatch(name) else name
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(unique)


def _commented_header(lines: Sequence[str], delimiter: str | None, width: int) -> tuple[str, ...] | None:
    """The names in the comment above the first row (numpy.savetxt writes them there)."""
    comments = [line.strip().lstrip("#%/ ") for line in lines if line.strip().startswith(_COMMENTS)]
    for comment in reversed(comments):
        fields = split(comment, delimiter)
        if len(fields) == width and is_header(fields):
            return _names(fields, width)
    return None


def _has_decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    fields = [field.strip() for row in rows for field in row if "," in field]
    return any(_COMMA_IS_DECIMAL.fullmatch(field) for field in fields) and not any("." in field for field in fields)
