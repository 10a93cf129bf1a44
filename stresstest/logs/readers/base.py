"""What a reader is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile


class Reader(Protocol):
    """Reads one family of formats. `name` is printed; `reads` is one line for the list of formats."""

    name: str
    reads: str

    def fits(self, file: LogFile) -> bool:
        """Whether a file looks like one, by its name and its first bytes alone."""
        ...

    def read(self, file: LogFile) -> Iterable[RawLog]:
        """The runs in it; none without a number in it. A damaged file is a `ConfigError`."""
        ...
