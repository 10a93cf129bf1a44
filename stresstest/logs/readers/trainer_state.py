"""`trainer_state.json` of transformers' Trainer (seen with 4.x and 5.24)."""

from __future__ import annotations

from collections.abc import Iterator

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.assembly import Columns
from stresstest.logs.readers.json_rows import block_of, flat
from stresstest.logs.readers.json_text import loaded
from stresstest.logs.readers.trainer_facts import trainer_facts


class TrainerState:
    """The `log_history` of a checkpoint: train rows, evaluations, and a summary, which is left out."""

    name = "Hugging Face trainer_state.json"
    reads = "trainer_state.json of transformers' Trainer"

    def fits(self, file: LogFile) -> bool:
        """A JSON object that holds a `log_history`."""
        return file.head_text.lstrip("\ufeff \t\r\n").startswith("{") and (
            '"log_history"' in file.head_text or file.path.name == "trainer_state.json"
        )

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        document, notes = loaded(file)
        state = {"log_history": document} if notes else document
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(state, dict) or not isinstance(history, list):
            raise ConfigError(f"{file.shown}: it has no `log_history`: transformers' Trainer did not write it")
        rows = flat([row for row in history if isinstance(row, dict)])
        if not rows:
            raise ConfigError(f"{file.shown}: its `log_history` is empty: nothing was logged yet")
        block = block_of(rows)
        columns = Columns(list(block), "step")
        columns.add(block)
        raw = columns.log(self.name)
        planned = state.get("max_steps")
        facts = trainer_facts(raw.curves, planned if isinstance(planned, int) and planned > 0 else None)
        yield RawLog(self.name, raw.curves, facts, notes=(*notes, *raw.notes))
