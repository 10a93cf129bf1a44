"""The curve of a chart, thinned."""

from __future__ import annotations

import numpy as np
import pytest

from stresstest.diagnosis.drawn import kept_rows
from stresstest.logs.curve import Curve


def curve(values: np.ndarray) -> Curve:
    rows = np.arange(len(values))
    return Curve(rows.astype(float), values, rows)


@pytest.mark.parametrize("count", [1, 2, 599, 600, 601, 10_007])
def test_both_ends_and_the_extremes_are_kept_in_order(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    kept = kept_rows(curve(values))
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= 602
    assert (values[kept].max(), values[kept].min()) == (values.max(), values.min())


def test_a_spike_of_one_row_stays_in_a_million() -> None:
    values = np.ones(1_000_000)
    values[123_456] = 9.0
    values[777_777] = np.nan
    kept = kept_rows(curve(values))
    assert 123_456 in kept
    assert len(kept) <= 602
