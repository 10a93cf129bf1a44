"""What pytest loads where stresstest is installed: the marker of tests that train."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker: `pytest -m "not stresstest"` leaves such tests out."""
    config.addinivalue_line("markers", "stresstest: trains a model to see whether it is stable (stresstest.testing)")
