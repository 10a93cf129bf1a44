"""What a program printed: lines in which names stand before numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stresstest.logs.columns import curves_of
from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.roles import step_key

_PAIR = re.compile(
    r"([A-Za-z][\w/.\- ]*?)['\"]?\s*[:=]?\s*['\"]?([-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|nan|inf(?:inity)?))\b", re.I
)


class Text:
    """Each line with a loss is a row."""

    name = "text"
    reads = "text in which a loss is named"

    def fits(self, file: LogFile) -> bool:
        """Any text."""
        return bool(file.head_text)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        rows = [found for line in file.lines() if "loss" in line.lower() and (found := dict(_PAIR.findall(line)))]
        rows = [{key.strip(): value for key, value in row.items()} for row in rows]
        keys = {key for row in rows for key in row}
        yield RawLog(self.name, curves_of(rows, step_key(keys)), FormatFacts())
