"""CSV and its kin: Lightning, Keras, YOLO, one's own."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from stresstest.logs.columns import curves_of
from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.roles import step_key


class Delimited:
    """A header, and rows of the same number of fields."""

    name = "CSV"
    reads = "CSV or TSV with a step and a loss"

    def fits(self, file: LogFile) -> bool:
        """By its suffix."""
        return file.suffix in (".csv", ".tsv")

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        lines = csv.reader(file.lines(), delimiter="\t" if file.suffix == ".tsv" else ",")
        header = [name.strip() for name in next(lines, [])]
        rows = (dict(zip(header, fields, strict=False)) for fields in lines)
        yield RawLog(self.name, curves_of(rows, step_key(header)), FormatFacts())
