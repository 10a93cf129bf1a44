"""The browser that the tests of pages share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages_browser", Path(__file__).with_name("browser.py"))
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
