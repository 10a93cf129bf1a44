"""What a program printed: each kind of line is understood once, by its shape, and then read by one pattern."""

from __future__ import annotations

from collections.abc import Iterator

from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.text.choice import run_of
from stresstest.logs.readers.text.scan import scan


class Text:
    """Lines in which names stand before numbers, tables in print, and what known tools print."""

    name = "printed text"
    reads = "what a program printed, if a loss is named in it"

    def fits(self, file: LogFile) -> bool:
        """Any text."""
        return bool(file.head_text)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        head = file.head_text.splitlines()[:400]
        yield run_of(scan(file.lines(), head))
