"""What every test shares: one thread, and a model small enough to train in a moment."""

from __future__ import annotations

import os

import pytest

from stresstest.specs.base import ModelSpec


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Bit-equality of a replica alone and in a population is promised for one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_terminal() -> None:
    """Reports have the width that they have in a pipe, whatever started pytest."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture
def tiny() -> ModelSpec:
    """Two blocks of width 16 over 12 bytes."""
    return ModelSpec(depth=2, width=16, heads=2, seq_len=12)
