"""Columns of a table as the log of a format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stresstest.logs.columns import Collector
from stresstest.logs.curve import Curve, Floats, FormatFacts, RawLog
from stresstest.logs.names import VALIDATION
from stresstest.logs.readers.known import Known, with_totals
from stresstest.logs.roles import step_key
from stresstest.logs.values import Bools, numbers

_COUNTERS = ("epoch", "epochs", "round", "index", "iter", "iteration", "batch")
_SPLITS = ("split", "phase", "mode", "stage", "subset", "set", "type", "partition", "dataset")
_SHARED = frozenset({"epoch", "epochs", "iter", "iteration"})

Block = Mapping[str, Sequence[object]]


class Columns:
    """The columns of one run, in blocks that are added in the log's order.

    Where a column says which rows are of validation, their numbers go under `val/...`.
    """

    def __init__(self, names: Sequence[str], step: str | None = None, decimal_comma: bool = False) -> None:
        self._step = step if step is not None and step in names else step_key(names)
        self._decimal_comma = decimal_comma
        self._collector = Collector(self._step)
        self.rows = 0

    def add(self, block: Block) -> None:
        """Rows as columns of one length: a token for each row."""
        values: dict[str, Floats] = {}
        present: dict[str, Bools] = {}
        for name, tokens in self._parted(block).items():
            values[name], there = numbers(tokens, self._decimal_comma)
            if there is not None:
                present[name] = there
        self._collector.add_columns(values, present)
        self.rows += len(next(iter(values.values()), ()))

    def log(self, otherwise: str, known: Known | None = None, name: str = "", notes: Sequence[str] = ()) -> RawLog:
        """All of them as a log; `otherwise` is its format where none is known."""
        notes = (*notes, *self._collector.notes)
        curves = with_totals(self.curves())
        facts = FormatFacts() if known is None else known.facts(curves)
        return RawLog(otherwise if known is None else known.name, curves, facts, name, notes)

    def curves(self) -> dict[str, Curve]:
        """The curves, in the steps of the column that counts them; nothing is left here."""
        curves = self._collector.curves()
        if self._step in curves:
            return curves
        counter = _counter(curves)
        return curves if counter is None else counted_by(curves, counter)

    def _parted(self, block: Block) -> Block:
        split = next((name for name in block if name.lower() in _SPLITS), None)
        if split is None:
            return block
        held_out = [isinstance(token, str) and token.strip().lower() in VALIDATION for token in block[split]]
        if not any(held_out):
            return block
        parted: dict[str, Sequence[object]] = {}
        for name, tokens in block.items():
            if name == self._step or name.lower() in _SHARED:
                parted[name] = tokens
                continue
            parted[name] = [None if out else token for token, out in zip(tokens, held_out, strict=True)]
            parted[f"val/{name}"] = [token if out else None for token, out in zip(tokens, held_out, strict=True)]
        return parted


def counted_by(curves: Mapping[str, Curve], name: str) -> dict[str, Curve]:
    """The curves, each value at the step that this one holds in its row; NaN where it holds none."""
    steps = curves[name]
    return {key: Curve(_at(curve, steps), curve.value, curve.row) for key, curve in curves.items()}


def _at(curve: Curve, steps: Curve) -> Floats:
    places = np.minimum(np.searchsorted(steps.row, curve.row), len(steps) - 1)
    return np.where(steps.row[places] == curve.row, steps.value[places], np.nan)


def _counter(curves: Mapping[str, Curve]) -> str | None:
    """What can count rows where no step is named: an epoch a row, or the index that pandas writes."""
    for key, curve in curves.items():
        if key.lower() in _COUNTERS and np.count_nonzero(np.diff(curve.value) == 0) * 10 <= len(curve):
            return key
    return None
