"""The steps of rows that a progress bar tells: transformers' Trainer prints none, and draws its bar behind each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Floats, Ints
from stresstest.logs.readers.text.columns import Column
from stresstest.logs.readers.text.scan import Scan

_ROUNDED = 0.006  # of an epoch, which is printed with two decimals or four digits
_MOST_OFF = 0.1  # share of rows that may disagree


def with_steps_of_bar(scanned: Scan, named: Mapping[str, Column], loss_key: str) -> dict[str, Column]:
    """Columns that go by a rounded epoch, by the step of the bar that comes next; as they are where none agrees.

    A bar agrees where its steps are the same multiple of the epochs all along.
    """
    loss = named.get(loss_key)
    if loss is None or loss.level != "epoch" or len(loss) < 2 or not (loss.epoch % 1).any():
        return dict(named)
    agreed = [bar for bar in _bars(scanned) if _agrees_within(bar, loss)]
    if not agreed:
        return dict(named)
    places, counts = (np.concatenate(part) for part in zip(*agreed, strict=True))  # a resumed run has another total
    order = np.argsort(places, kind="stable")
    places, counts = places[order], counts[order]
    steps, known = _next(places, counts, loss.place)
    if not _agree(steps[known], loss.epoch[known], len(loss)):
        return dict(named)
    rate = float(np.median(steps[known] / loss.epoch[known]))
    return {name: _by_step(column, places, counts, rate) for name, column in named.items()}


def _agrees_within(bar: tuple[Ints, Floats], loss: Column) -> bool:
    """Whether a bar agrees with the rows that were printed while it was drawn."""
    places, counts = bar
    meanwhile = (loss.place >= places[0]) & (loss.place <= places[-1])
    steps, _ = _next(places, counts, loss.place[meanwhile])
    return _agree(steps, loss.epoch[meanwhile], int(meanwhile.sum()))


def _bars(scanned: Scan) -> Iterator[tuple[Ints, Floats]]:
    """Places and counts of each bar, told apart by their totals, the most drawn first."""
    blocks = []
    for template in scanned.templates:
        kinds = [field.kind for field in template.fields]
        if template.is_bar and kinds[:2] == ["batch", "total"] and len(template.rows):
            rows, places = template.rows.table()
            blocks.append(np.column_stack((places, rows[:, :2])))
    if not blocks:
        return
    drawn = np.concatenate(blocks)
    drawn = drawn[np.argsort(drawn[:, 0], kind="stable")]
    totals, times = np.unique(drawn[:, 2], return_counts=True)
    for total in totals[np.argsort(-times, kind="stable")][:8]:
        mine = drawn[drawn[:, 2] == total]
        yield mine[:, 0].astype(np.int64), mine[:, 1]


def _next(places: Ints, counts: Floats, rows: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """What the bar shows next after each row, and whether it comes at all."""
    at = np.searchsorted(places, rows, "left")
    known = at < len(places)
    return np.where(known, counts[np.minimum(at, len(places) - 1)], np.nan), known


def _agree(steps: Floats, epochs: Floats, rows: int) -> bool:
    if len(steps) < max(2, (1 - _MOST_OFF) * rows) or not (epochs > 0).all():
        return False
    if np.mean(np.diff(steps) <= 0) > _MOST_OFF:
        return False
    rate = float(np.median(steps / epochs))
    return rate > 0 and bool(np.mean(np.abs(steps - rate * epochs) > _ROUNDED * rate + 1) <= _MOST_OFF)


def _by_step(column: Column, places: Ints, counts: Floats, rate: float) -> Column:
    if column.level != "epoch":
        return column
    shown, _ = _next(places, counts, column.place)
    reckoned = np.round(rate * column.epoch)
    near = np.abs(shown - reckoned) <= _ROUNDED * rate + 1
    return replace(column, level="step", step_name="step", step=np.where(near, shown, reckoned))
