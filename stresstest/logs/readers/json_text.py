"""A file that is one JSON document, loaded with a line for what can go wrong."""

from __future__ import annotations

import json
import re

from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile, NoLossError

MAX_BYTES = 200_000_000
_DECODER = json.JSONDecoder()
_FIRST_ROW = re.compile(r"\[\s*(?=\{)")
_BETWEEN_ROWS = re.compile(r"\s*,\s*")


def loaded(file: LogFile) -> tuple[object, tuple[str, ...]]:
    """The document and a sentence about what it lacks; of one cut short, its first list of rows up to the cut.

    A `ConfigError` where it is too large, nested too deeply, or no JSON.
    """
    size = file.path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(
            f"{file.shown}: {size / 1e6:.0f} MB of JSON in one piece, at most {MAX_BYTES / 1e6:.0f} are read;"
            " write its rows as JSON lines (jq -c '.[]')"
        )
    text = file.path.read_bytes().decode(file.encoding, "replace").lstrip("\ufeff")
    try:
        return json.loads(text), ()
    except json.JSONDecodeError as error:
        rows = _rows_before(text, error.pos)
        if len(rows) < 2:
            several = error.msg == "Extra data"  # objects without numbers: what a program says of itself
            raise (NoLossError if several else ConfigError)(
                f"{file.shown}: no whole JSON: {error.msg} in line {error.lineno}"
            ) from error
        where = "is cut short" if error.pos >= len(text.rstrip()) - 1 else f"breaks in line {error.lineno}"
        return rows, (f"the JSON {where}; the {len(rows)} rows before that were read",)
    except RecursionError as error:
        raise ConfigError(f"{file.shown}: its JSON is nested too deeply for a log") from error
    except ValueError as error:
        raise ConfigError(f"{file.shown}: a number in it has too many digits") from error


def _rows_before(text: str, end: int) -> list[object]:
    """The objects of the first list of objects that end before a place."""
    rows: list[object] = []
    begin = _FIRST_ROW.search(text)
    at = len(text) if begin is None else begin.end()
    while at < end:
        try:
            row, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        rows.append(row)
        comma = _BETWEEN_ROWS.match(text, at)
        if comma is None:
            break
        at = comma.end()
    return rows
