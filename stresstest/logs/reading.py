"""What was read, in short sentences, and what its rows are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from stresstest.logs.curve import Curve, FormatFacts, RawLog, RowKind
from stresstest.logs.names import words
from stresstest.logs.steps import Stepped, spacing_of
from stresstest.logs.thinning import rows_merged

READ = frozenset(("seconds", "tokens", "samples", "examples", "images", "sequences", "instances"))  # not steps

_GAP = 10.0  # times the usual spacing
_FEWEST = 10
_FEW = 1000
_WINDOWS = frozenset("running smoothed smooth ema window moving".split())
_KINDS = {
    "mean": "each the mean of the steps since the row before",
    "window": "each the mean of a window that overlaps the next",
    "sample": "each of one step",
    "unknown": "",
}


class Stretch(Protocol):
    """What is said of a segment needs its loss alone."""

    @property
    def loss(self) -> Curve: ...

    @property
    def row_kind(self) -> RowKind: ...


def row_kind(facts: FormatFacts, loss_key: str, unit: str, notes: Sequence[str]) -> RowKind:
    """What a row is: by the format, else by its name; unknown where neither tells."""
    fixed = facts.roles.get("loss")
    if facts.row_kind != "unknown" and fixed in (None, loss_key):
        return facts.row_kind
    if rows_merged(notes) > 1:
        return "mean"
    said = set(words(loss_key))
    if said & _WINDOWS:
        return "window"
    if "epoch" in said or unit == "epochs":
        return "mean"
    return "sample" if {"step", "batch"} & said else "unknown"


def read_note(loss_key: str, steps: Stepped, segments: Sequence[Stretch], row_note: str = "", merged: int = 1) -> str:
    """Rows, keys, and how many steps a row of the log stands for.

    row_note: what the format says that a row is. merged: how many rows of the log are one of these.
    """
    rows = sum(len(segment.loss) for segment in segments)
    spacing = spacing_of(segments[0].loss.step) if segments else 1.0
    stretches = f", {len(segments)} segments" if len(segments) > 1 else ""
    if merged > 1:
        logged = max(1.0, spacing / merged)
        had = f"a row every {logged:.6g} {steps.unit}" if logged != 1 else f"a row for each of the {steps.unit}"
        clause = f", each {row_note}" if row_note and logged != 1 else ""
        return f"{loss_key!r} by {steps.key!r}, {had}{clause}; judged on {rows} rows{stretches}"
    every = f"one every {spacing:.6g} {steps.unit}" if spacing != 1 else f"one for each of the {steps.unit}"
    kind = f"each {row_note}" if row_note else _KINDS[segments[0].row_kind] if segments else ""
    clause = f", {kind}" if kind and spacing != 1 else ""
    return f"{rows} rows of {loss_key!r} by {steps.key!r}, {every}{clause}{stretches}"


def without_loss(raw: RawLog, loss: Curve, step_key: str) -> str:
    """How many rows of the log have no loss."""
    if raw.facts.one_value_a_row or rows_merged(raw.notes) > 1:
        return ""
    curves = [curve for key, curve in raw.curves.items() if len(curve) and key != step_key]
    end = max(int(curve.row.max()) for curve in curves) + 1
    there = np.zeros(end, dtype=bool)
    last = None
    for curve in curves:
        if curve.row is not last:
            there[curve.row] = True
        last = curve.row
    beside = sum(int(np.isin(loss.row[:_FEW], curve.row).any()) for curve in curves)
    often = sum(2 * len(curve) > len(loss) for curve in curves)
    if often > 1 and beside < 2:
        return ""  # each number has a row of its own
    there[loss.row] = False
    count = int(there.sum())
    if count == 1:
        return "1 other row has no loss"
    return f"{count} other rows have no loss" if count else ""


def gaps(segments: Sequence[Stretch], unit: str) -> tuple[str, ...]:
    """Stretches of steps that are missing within a segment."""
    said = []
    for segment in segments:
        steps = segment.loss.step
        if len(steps) < _FEWEST or unit == "rows":
            continue
        wide = np.flatnonzero(np.diff(steps) > _GAP * spacing_of(steps))
        if 0 < len(wide) <= 3:
            said += [f"nothing is logged between {unit[:-1]} {steps[i]:.10g} and {steps[i + 1]:.10g}" for i in wide]
    return tuple(said)
