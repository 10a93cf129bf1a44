"""What every test shares: one thread, a model small enough to train in a moment, and a browser."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stresstest.runs.worker_process import THREADS
from stresstest.specs.base import ModelSpec

os.environ.update(THREADS)  # of what tests start: more threads than cores wait for each other
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton; gpu_day.sh sets 0 for a GPU's tests


def pytest_configure() -> None:
    """Look for no garbage in what the tests import: all of it stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on, but not in what is there already."""
    gc.freeze()
    gc.enable()


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


def _tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages_browser", Path(__file__).parent / "pages" / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pages_browser"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """The helpers of browser.py."""
    return _tools()


@pytest.fixture(scope="module")
def browser(tools: ModuleType) -> Iterator[object]:
    """One browser for a file of tests."""
    with tools.chromium() as found:
        yield found


@pytest.fixture
def complaints(tools: ModuleType, browser: object, tmp_path: Path) -> Callable[[str], list[str]]:
    """What a reader of a page would complain about."""

    def of(text: str) -> list[str]:
        path = tmp_path / "page.html"
        path.write_text(text)
        return tools.complaints_of(browser, path)

    return of
