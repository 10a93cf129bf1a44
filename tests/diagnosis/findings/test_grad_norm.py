"""A gradient norm that climbs for good, and the usual ones that do not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.diagnosis.findings.building import falling, said, segment

ROWS = 300
NOISE = np.exp(0.3 * np.random.default_rng(3).normal(size=ROWS))
X = np.linspace(0, 1, ROWS)


@pytest.mark.parametrize("shape", [20**X, 1 + 19 * X, np.where(X < 0.3, 1, 20 ** ((X - 0.3) / 0.7))])
def test_a_norm_that_climbs_twentyfold_is_named(shape: np.ndarray) -> None:
    finding = said(segment(falling(ROWS), grad_norm=shape * NOISE))["grad-norm-climbs"]
    assert finding.severity == "warning"
    assert float(finding.evidence["times"] or 0) > 10


@pytest.mark.parametrize(
    "shape",
    [np.ones(ROWS), 4**X, 10 * np.exp(-5 * X), 1 + 30 * (np.abs(X - 0.5) < 0.02), 1 + 30 * (X > 0.99), 30 * X + 10],
    ids=["level", "fourfold", "falling", "burst", "burst at the end", "fourfold, straight"],
)
def test_a_usual_norm_is_not_named(shape: np.ndarray) -> None:
    assert "grad-norm-climbs" not in said(segment(falling(ROWS), grad_norm=shape * NOISE))


def test_few_rows_are_not_judged() -> None:
    assert "grad-norm-climbs" not in said(segment(falling(15), grad_norm=20 ** np.linspace(0, 1, 15)))
