"""Jupyter notebooks: what their cells printed, each cell a run of its own."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile, NoLossError
from stresstest.logs.readers.json_text import loaded
from stresstest.logs.readers.text.choice import run_of
from stresstest.logs.readers.text.scan import scan

_ROW = re.compile(r"<tr.*?>(.*?)</tr>", re.S | re.I)
_FIELD = re.compile(r"<t[hd].*?>(.*?)</t[hd]>", re.S | re.I)
_TAG = re.compile(r"<.*?>", re.S)
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_HEAD_LINES = 400


class Notebook:
    """The text and the tables below each cell; cells without a loss are passed over."""

    name = "Jupyter notebook"
    reads = "Jupyter notebooks: what their cells printed"

    def fits(self, file: LogFile) -> bool:
        """By its suffix, and an object at its beginning."""
        return file.suffix == ".ipynb" and file.head_text.lstrip().startswith("{")

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """A run for each cell that printed a loss."""
        document, _ = loaded(file)
        cells = document.get("cells") if isinstance(document, Mapping) else None
        found = 0
        for number, cell in enumerate(cells if isinstance(cells, list) else [], 1):
            lines = _lines(cell)
            raw = run_of(scan(lines, lines[:_HEAD_LINES])) if lines else None
            if raw is not None and "loss" in raw.facts.roles:
                found += 1
                yield replace(raw, format=f"{raw.format} in a notebook", name=_shown(cell, number))
        if not found:
            raise NoLossError(f"{file.shown}: a notebook of which no cell printed a loss")


def _shown(cell: Mapping[str, object], number: int) -> str:
    """What the user sees before a cell."""
    run = cell.get("execution_count")
    return f"In [{run}]" if isinstance(run, int) else f"cell {number}"


def _lines(cell: object) -> list[str]:
    outputs = cell.get("outputs") if isinstance(cell, Mapping) else None
    if not isinstance(outputs, list):
        return []
    text = "\n".join(_text(output) for output in outputs if isinstance(output, Mapping))
    return _ESCAPES.sub("", text).replace("\r", "\n").split("\n")


def _text(output: Mapping[str, object]) -> str:
    """What an output shows: what was printed, else a table of HTML, else its plain text."""
    if output.get("output_type") == "stream":
        return _whole(output.get("text"))
    data = output.get("data")
    if not isinstance(data, Mapping):
        return ""
    return _table(_whole(data.get("text/html"))) or _whole(data.get("text/plain"))


def _whole(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else text if isinstance(text, str) else ""


def _table(page: str) -> str:
    """The rows of a table, as the lines of a table in print."""
    rows = ([_TAG.sub("", field).strip() for field in _FIELD.findall(row)] for row in _ROW.findall(page))
    return "\n".join("\t".join(html.unescape(field) or "-" for field in row) for row in rows if row)
