"""What a reader gives: the curves of one run, as they were logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RowKind = Literal["mean", "window", "sample", "unknown"]
Role = Literal[
    "step", "epoch", "batch", "loss", "validation", "lr", "grad_norm", "loss_scale", "skipped", "rank", "time"
]


@dataclass(frozen=True)
class Curve:
    """One number over a run, a row for each time it was logged; a missing value has no row.

    step: [n] as logged, NaN where the log names none. value: [n], in which NaN and infinity were logged as such.
    row: [n] the position in the log, which orders the rows of several curves.
    """

    step: Floats
    value: Floats
    row: Ints

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True)
class FormatFacts:
    """What is known of a format beyond its numbers.

    roles: the keys of what the format fixes; others are found by their names. row_kind: what a logged loss is, the
    mean of the steps since the row before, of a window that overlaps, or of the one step. zero_for_nan: whether the
    tool writes 0.0 where the loss was not finite. planned_steps: of the whole run, where the log says it. step_base:
    the number of the first step, where the format fixes it. loss_decimals: digits to which the loss was rounded.
    row_note: what else a row is, as a clause ("the median of the last 20 steps"). one_value_a_row: whether each number
    is a record of its own, so that a row without a loss says nothing. loss_unit: "bits" where the format fixes it,
    whatever the name says.
    """

    roles: Mapping[Role, str] = field(default_factory=dict)
    row_kind: RowKind = "unknown"
    zero_for_nan: bool = False
    planned_steps: int | None = None
    step_base: int | None = None
    loss_decimals: int | None = None
    row_note: str = ""
    one_value_a_row: bool = False
    loss_unit: str = ""


@dataclass(frozen=True)
class RawLog:
    """One run as read. `name` tells runs of one file apart; `notes` are sentences about what was dropped or mended.

    seams: the rows at which a further file of the run begins, where several were joined. source: the file that it is
    from, where it is not the one that was asked for.
    """

    format: str
    curves: Mapping[str, Curve]
    facts: FormatFacts = FormatFacts()
    name: str = ""
    notes: tuple[str, ...] = ()
    seams: tuple[int, ...] = ()
    source: str = ""
