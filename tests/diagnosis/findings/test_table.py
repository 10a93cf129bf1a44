"""The table of findings, and the page that lists it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stresstest.diagnosis.findings.table import KINDS, RUN_KINDS, SEGMENT_KINDS

TESTS = Path(__file__).parent


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len(KINDS) == len(SEGMENT_KINDS) + len(RUN_KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_says_when_it_is_said_and_whence_it_comes(name: str) -> None:
    kind = KINDS[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert kind.when.endswith(".")
    assert kind.source


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_named_in_a_test(name: str) -> None:
    assert any(f'"{name}"' in file.read_text() for file in TESTS.glob("test_*.py"))
