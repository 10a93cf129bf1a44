"""One JSON object a line: detectron2, mmengine, LLaMA-Factory, W&B histories, one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator

from stresstest.logs.columns import curves_of
from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.roles import step_key


class JsonLines:
    """Each line is a row."""

    name = "JSON lines"
    reads = "JSON lines with a step and a loss"

    def fits(self, file: LogFile) -> bool:
        """The first line is a whole object."""
        first = file.head_text.lstrip().partition("\n")[0]
        return first.startswith("{") and first.rstrip().endswith("}")

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        rows = [json.loads(line) for line in file.lines() if line.strip()]
        keys = {key for row in rows for key in row}
        yield RawLog(self.name, curves_of(rows, step_key(keys)), FormatFacts())
