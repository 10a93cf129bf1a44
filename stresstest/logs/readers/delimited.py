"""CSV and its kin: Lightning, Keras, YOLO, exports of W&B, TensorBoard and MLflow, catboost, one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.files import LogFile, NoLossError
from stresstest.logs.readers.assembly import Columns
from stresstest.logs.readers.dialect import Dialect, is_row, sniff
from stresstest.logs.readers.exports import chart_runs, is_chart, is_long, is_runs_table, long_runs, run_column
from stresstest.logs.readers.known import Known, of_catboost, recognised
from stresstest.logs.readers.table_rows import TableRows
from stresstest.logs.values import number

_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".dat"})
_HEAD_LINES = 200
_TAG_IN_NAME = re.compile(r"-tag-(.+)$")


class Delimited:
    """Rows of the same number of fields, with a header or without."""

    name = "CSV"
    reads = "CSV, TSV or any table in columns: Lightning, Keras, YOLO, catboost, exports of W&B, TensorBoard, MLflow"

    def fits(self, file: LogFile) -> bool:
        """By its suffix, or where nearly all first lines are rows of numbers below a header."""
        if not file.head_text:
            return False
        dialect = _dialect(file.head_text, file.suffix)
        if file.suffix in _SUFFIXES:
            return dialect is not None or bool(file.head_text.strip())
        return dialect is not None and dialect.share >= 0.9 and _is_numeric(file.head_text, dialect)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run, or those of an export that holds several."""
        dialect = _dialect(file.head_text, file.suffix)
        if dialect is None:
            raise NoLossError(f"{file.shown}: not a table: its lines have no columns in common")
        if is_runs_table(dialect.header):
            raise ConfigError(
                f"{file.shown}: a table of runs, one row each, holds no curve; export a chart or the history of a run"
            )
        table = TableRows(file, dialect)
        kind = "CSV" if dialect.delimiter == "," else "TSV" if dialect.delimiter == "\t" else "table"
        if is_long(dialect.header):
            yield from long_runs(table, kind)
        elif (column := run_column(dialect.header)) is not None:
            yield from self._runs_in(table, column, kind)
        elif is_chart(dialect.header):
            yield from chart_runs(table)
        else:
            known = _known(file, dialect)
            columns = Columns(dialect.header, None if known is None else known.step, dialect.decimal_comma)
            for block in table.blocks():
                columns.add(block)
            if not columns.rows:
                raise ConfigError(f"{file.shown}: a header ({', '.join(dialect.header[:8])}) and no row below it")
            raw = columns.log(kind, known, notes=(*table.damage.notes(), *_notes(dialect)))
            yield replace(raw, curves=_tagged(raw.curves, dialect.header, file))

    def _runs_in(self, table: TableRows, column: str, kind: str) -> Iterator[RawLog]:
        """The runs that a column tells apart."""
        runs: dict[str, Columns] = {}
        names = tuple(name for name in table.dialect.header if name != column)
        known = recognised(names, of_csv=True)
        step = None if known is None else known.step
        for block in table.blocks():
            owners = block[column]
            for owner in dict.fromkeys(owners):
                at = [place for place, other in enumerate(owners) if other == owner]
                part = {key: [tokens[place] for place in at] for key, tokens in block.items() if key != column}
                if owner.strip() not in runs:
                    runs[owner.strip()] = Columns(names, step, table.dialect.decimal_comma)
                runs[owner.strip()].add(part)
        for owner, columns in runs.items():
            yield columns.log(kind, known, owner if len(runs) > 1 else "", table.damage.notes())


@lru_cache(maxsize=4)
def _dialect(head: str, suffix: str) -> Dialect | None:
    lines = head.splitlines()
    if len(lines) > 3:
        lines = lines[: min(_HEAD_LINES, len(lines) - 1)]  # the last one of the head may be cut
    dialect = sniff(lines)
    if dialect is None and suffix in _SUFFIXES:
        return _one_column(lines)
    return dialect


def _one_column(lines: list[str]) -> Dialect | None:
    rows = [place for place, line in enumerate(lines) if is_row(line)]
    values = [number(lines[place]) for place in rows]
    if len(rows) < 2 or any(value is None for value in values[1:]):
        return None
    if values[0] is None:
        return Dialect(",", (lines[rows[0]].strip().strip("\ufeff\"'"),), rows[0])
    return Dialect(",", ("column 1",), None)


def _is_numeric(head: str, dialect: Dialect) -> bool:
    rows = [dialect.split(line) for line in head.splitlines()[:-1][:_HEAD_LINES] if is_row(line)]
    body = rows[1:] if dialect.header_line is not None else rows
    fields = [field for row in body for field in row if field.strip()]
    numeric = sum(number(field) is not None for field in fields)
    return len(body) >= 2 and numeric >= 0.8 * len(fields) and len(dialect.header) < 200


def _known(file: LogFile, dialect: Dialect) -> Known | None:
    catboost = of_catboost(dialect.header, file.path.name) if dialect.delimiter == "\t" else None
    return catboost or recognised(dialect.header, of_csv=True, file_name=file.path.name)


def _notes(dialect: Dialect) -> tuple[str, ...]:
    notes = []
    if dialect.header_line is None and dialect.header[0].startswith("column "):
        notes.append("it has no header: its columns are named by position")
    if dialect.decimal_comma:
        notes.append("its decimal mark is a comma")
    return tuple(notes)


def _tagged(curves: Mapping[str, Curve], header: tuple[str, ...], file: LogFile) -> Mapping[str, Curve]:
    """TensorBoard's download of a scalar has its tag in the name of the file."""
    tag = _TAG_IN_NAME.search(file.path.stem)
    if tag is None or tuple(name.lower() for name in header) != ("wall time", "step", "value"):
        return curves
    return {tag.group(1) if name == header[2] else name: curve for name, curve in curves.items()}
