"""What can become of a run, in words, and which of these count as trained or unharmed."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["stable", "spiked", "flat", "relapsed", "failed-to-train", "exploded", "nonfinite"]
Reason = Literal["loss", "gradient", "parameter"]

TRAINED = frozenset({"stable", "spiked"})  # the outcomes of a run that trained
HARMLESS = TRAINED | {"flat"}  # of one that did not break: where there was too little to learn, it need not train
