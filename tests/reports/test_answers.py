"""The answer in a terminal: what the last screenful says, and what it leaves to the report."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import document_of, print_result
from stresstest.results.records import Result
from tests.reports import test_reports as lr_range

DEFAULT_VARIANTS = [
    *lr_range.variant_cells("rmsnorm", 0.25, 0.5),
    *lr_range.PRE_LN,
    *lr_range.POST_LN,
    *lr_range.NORMFORMER,
    *lr_range.PLAIN,
]


def answer(result: Result, width: int = 80, where: str | Path = "runs/one", **console: Any) -> str:
    file = io.StringIO()
    given = {"color_system": None, **console}
    print_result(result, Console(file=file, width=width, highlight=False, **given), str(where))
    return file.getvalue()


def verdicts(result: Result) -> dict[str, tuple[str, str]]:
    """(tone, answer) of each."""
    return {verdict.subject: (verdict.tone, verdict.answer) for verdict in document_of(result).verdicts}


def test_the_answer_of_an_lr_range_test_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert answer(lr_range.result_of(DEFAULT_VARIANTS)) == snapshot


def test_five_variants_fit_one_screen_and_the_report_has_the_rest() -> None:
    out = answer(lr_range.result_of(DEFAULT_VARIANTS))
    assert len(out.splitlines()) <= 24
    for words in ("Median over", "against the ramp's LR", "- pre-ln", "synthetic"):
        assert words not in out


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120])
def test_only_what_is_to_be_copied_may_be_wider_than_the_terminal(width: int) -> None:
    lines = answer(lr_range.result_of(DEFAULT_VARIANTS), width).splitlines()
    wide = [line for line in lines if cell_len(line) > width]
    assert all(line.startswith(("  stresstest ", "again: ", "run: ")) for line in wide)


def test_a_mark_tells_the_tone_of_a_verdict_without_colour() -> None:
    out = answer(lr_range.result_of(DEFAULT_VARIANTS))
    assert re.findall(r"^([+?x-]) (\S+)  ", out, re.MULTILINE) == [
        ("+", "normformer"),
        ("+", "pre-ln"),
        ("+", "rmsnorm"),
        ("+", "post-ln"),
        ("x", "plain"),
    ]
    assert "\x1b[" not in out


def test_the_page_is_a_link_where_a_terminal_takes_it_and_a_path_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] c"
    folder.mkdir()
    page = folder / "report.html"
    page.touch()
    result = lr_range.result_of(lr_range.GOOD)
    assert f"report: {page}\n" in answer(result, where=folder)
    linked = answer(result, where=folder, color_system="standard", force_terminal=True)
    assert f";{page.as_uri()}\x1b\\" in linked
    assert str(page) in linked


def test_a_cell_without_a_result_is_told_of_beside_the_verdicts() -> None:
    out = answer(lr_range.result_of([*lr_range.GOOD, lr_range.cell("rezero", 0, None, status="oom")]))
    assert "x oom: rezero depth 6 seed 0 has no result" in out


def test_what_a_user_names_is_text_and_no_markup() -> None:
    name = "[red]own[/red]"
    assert f"+ {name}  use LR up to 2" in answer(lr_range.result_of(lr_range.variant_cells(name, 2.0, 3.0)))
