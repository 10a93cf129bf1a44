"""`trainer_state.json` of transformers' Trainer (seen with 4.x and 5.24)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from stresstest.logs.columns import curves_of
from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.files import LogFile


class TrainerState:
    """The `log_history` of a checkpoint: train rows, evaluations, and a summary that is no row."""

    name = "Hugging Face trainer_state.json"
    reads = "trainer_state.json of transformers' Trainer"

    def fits(self, file: LogFile) -> bool:
        """A JSON object that holds a `log_history`."""
        return file.head_text.lstrip().startswith("{") and (
            '"log_history"' in file.head_text or file.path.name == "trainer_state.json"
        )

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        state = json.loads(file.path.read_text())
        rows = state.get("log_history", [])
        facts = FormatFacts(
            roles={"step": "step", "loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm"},
            row_kind="mean",
            zero_for_nan=True,
            planned_steps=state.get("max_steps"),
        )
        yield RawLog(self.name, curves_of(rows, "step"), facts)
