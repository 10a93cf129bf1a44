"""One verdict, every rendering: none says anything else than the exit code does."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from junitparser import JUnitXml, TestCase
from rich.console import Console

from stresstest.errors import ConfigError, ExitCode
from stresstest.gate.github import ANNOTATIONS, github_annotations, render_markdown
from stresstest.gate.junit import render_junit
from stresstest.gate.records import CheckVerdict, GatedRow, GateLine, LimitLine
from stresstest.gate.report import parse_verdict_output, show_verdict, verdict_document, verdict_text
from stresstest.gate.statistics import TestVerdict
from stresstest.reports.terminal import print_document
from stresstest.results.records import Bracket, summarise

CODES: dict[TestVerdict, int] = {
    "identical": 0,
    "no-change": 0,
    "within-noise": 0,
    "improved": 0,
    "regressed": 99,
    "inconclusive": 3,
    "insufficient-seeds": 3,
    "no-data": 3,
    "no-baseline": 3,
    "incomparable": 3,
    "errored": 4,
}
JUNIT = {0: "", 99: "failure", 3: "skipped", 4: "error"}


def gate_line(verdict: TestVerdict, level: str = "error", variant: str = "pre-ln") -> GateLine:
    summary = summarise("max_stable_lr", {seed: Bracket(low=0.1, high=0.12) for seed in range(6)})
    return GateLine.model_validate(
        {
            "place": GatedRow(experiment="e", variant=variant, depth=4, optimizer="adam"),
            "metric": "max_stable_lr",
            "threshold": "med vs base >= -0.5oct",
            "level": level,
            "verdict": verdict,
            "reason": "a <reason> | with & signs",
            "base": summary,
            "head": summary,
            "unit": "oct",
            "differences": {str(seed): (-1.0, -1.0) for seed in range(6)},
            "median": (-1.0, -1.0),
            "p": 1 / 64,
            "n": 6,
            "tolerance": 0.5,
            "resolution": 0.25,
            "reproduce": "stresstest lr-range --seeds 6",
        }
    )


def limit_line(passed: bool, level: str = "error") -> LimitLine:
    place = GatedRow(experiment="e", variant="pre-ln", depth=4, optimizer="adam")
    return LimitLine.model_validate(
        {
            "place": place,
            "metric": "max_stable_lr",
            "threshold": "med >= 1",
            "level": level,
            "passed": passed,
            "value": "2",
        }
    )


def verdict_of(
    lines: list[GateLine], limits: list[LimitLine] | None = None, failures: tuple[str, ...] = (), lenient: bool = False
) -> CheckVerdict:
    return CheckVerdict(
        scenario="gate",
        mode="base",
        base={"commit": "0123456789", "ref": "origin/main", "cells": 6, "trained": 0},
        head={"commit": "abcdef0123+", "cells": 6, "trained": 6},
        alpha=0.05,
        looks=[6, 12],
        seeds=6,
        lines=lines,
        limits=limits or [],
        failures=list(failures),
        lenient=lenient,
        reproduce="stresstest check gate.yaml --base origin/main",
    )


def terminal(verdict: CheckVerdict, width: int = 120) -> str:
    out = io.StringIO()
    print_document(verdict_document(verdict), Console(file=out, width=width))
    return out.getvalue()


def junit(verdict: CheckVerdict) -> list[TestCase]:
    (suite,) = JUnitXml.fromstring(render_junit(verdict).encode())
    cases = list(suite)
    assert suite.tests == len(cases)
    tags = [type(each).__name__.lower() for case in cases for each in case.result]
    assert (suite.failures, suite.errors, suite.skipped) == tuple(map(tags.count, ("failure", "error", "skipped")))
    return cases


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_every_rendering_agrees_with_the_exit_code(name: TestVerdict, code: int, lenient: bool) -> None:
    verdict = verdict_of([gate_line("no-change", variant="rezero"), gate_line(name)], lenient=lenient)
    expected = 0 if lenient and code == 3 else code
    assert (verdict.exit_code, verdict.verdict) == (expected, "no-change" if name == "identical" else name)
    stored = json.loads(verdict.to_json())
    assert (stored["exit_code"], stored["verdict"]) == (expected, verdict.verdict)
    for text in (terminal(verdict), render_markdown(verdict), verdict_text(verdict, "html")):
        assert f"{verdict.verdict}, exit {expected}: " in text
    assert name.upper() in terminal(verdict)
    assert f"**{name}**" in render_markdown(verdict)
    _, second = junit(verdict)
    assert [type(each).__name__.lower() for each in second.result] == ([JUNIT[code]] if JUNIT[code] else [])
    kinds = [line.partition(" ")[0] for line in github_annotations(verdict)]
    assert kinds == ([] if code == 0 else ["::warning"] if expected == 0 else ["::error"])


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_a_line_at_level_warn_never_turns_anything_red(name: TestVerdict, code: int) -> None:
    verdict = verdict_of([gate_line(name, level="warn")])
    assert verdict.exit_code == ExitCode.OK
    assert not any(line.startswith("::error") for line in github_annotations(verdict))
    tags = [type(each).__name__ for case in junit(verdict) for each in case.result]
    assert "Failure" not in tags
    assert (code == 0) == (tags == [])


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (verdict_of([], [limit_line(True)]), 0),
        (verdict_of([], [limit_line(False)]), 99),
        (verdict_of([], [limit_line(False, "warn")]), 0),
        (verdict_of([gate_line("inconclusive")], [limit_line(False)]), 99),
        (verdict_of([gate_line("regressed")], failures=("e: pre-ln seed 0: crashed",)), 4),
        (verdict_of([gate_line("inconclusive"), gate_line("regressed")]), 99),
        (verdict_of([gate_line("inconclusive"), gate_line("errored")]), 4),
    ],
)
def test_the_worst_decides(verdict: CheckVerdict, code: int) -> None:
    assert verdict.exit_code == code
    assert f"exit {code}:" in terminal(verdict)
    tags = {type(each).__name__.lower() for case in junit(verdict) for each in case.result}
    assert (JUNIT[code] in tags) if code else tags <= {"skipped"}


def test_each_line_has_its_numbers_and_how_to_see_it_again() -> None:
    text = " ".join(terminal(verdict_of([gate_line("regressed")])).split())
    assert "x e.max_stable_lr{variant=pre-ln,depth=4} REGRESSED: 0.1 -> 0.1, -1 oct" in text
    assert "(p=0.016 n=6, limit >= -0.5oct)" in text
    assert "next: e in full, on this commit stresstest lr-range --seeds 6" in text
    assert "again: stresstest check gate.yaml --base origin/main" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_exit_code_stands_below_what_failed_and_passed_lines_are_counted_where_they_are_many(width: int) -> None:
    passing = [gate_line("no-change", variant=f"variant-{k}") for k in range(30)]
    text = terminal(verdict_of([*passing, gate_line("regressed")]), width)
    words = " ".join(text.split())
    assert "variant-7" not in text
    assert "+ 30 more lines passed, named in the report x regressed, exit 99: a gate was crossed: e.max_s" in words
    assert (
        words.index("REGRESSED: 0.1 -> 0.1, -1 oct") < words.index("30 more lines") < words.index("How sure: 6 paired")
    )
    assert len(text.splitlines()) <= 24


@pytest.mark.parametrize(
    ("name", "mode", "line"),
    [
        ("inconclusive", "base", "stresstest check gate.yaml --base origin/main --seeds 24"),
        ("no-baseline", "baseline", "stresstest baseline update gate.yaml --reason TEXT"),
    ],
)
def test_without_a_verdict_the_next_command_makes_one(name: TestVerdict, mode: str, line: str) -> None:
    verdict = verdict_of([gate_line(name)]).model_copy(update={"mode": mode})
    assert [fact.text for fact in verdict_document(verdict).next] == [line]


def test_nothing_but_commands_is_wider_than_the_terminal() -> None:
    for width in (80, 120):
        for line in terminal(verdict_of([gate_line("regressed")], [limit_line(False)]), width).splitlines():
            assert len(line) <= width or "stresstest " in line


def test_github_takes_no_more_than_ten_annotations_and_a_mebibyte() -> None:
    many = verdict_of([gate_line("regressed", variant=f"variant-{k}") for k in range(1500)])
    found = github_annotations(many)
    assert len(found) == ANNOTATIONS
    assert "1491 more" in found[-1]
    for most in (100_000, 65_000):
        text = render_markdown(many, most)
        assert len(text.encode()) <= most < 1 << 20
        assert "### stresstest: regressed" in text
        assert "and 1495 more" in text


def test_a_summary_that_is_too_long_leaves_out_what_passes_first() -> None:
    passing = [gate_line("no-change", variant=f"variant-{k}") for k in range(3000)]
    text = render_markdown(verdict_of([*passing, gate_line("regressed")]), 50_000)
    assert "**regressed**" in text
    assert "variant-7" not in text
    assert "regressed, exit 99: a gate was crossed: e.max_stable_lr{variant=pre-ln,depth=4}" in text


def test_what_would_end_an_annotation_or_a_cell_is_escaped() -> None:
    verdict = verdict_of([], failures=("first\nsecond 100%", "bell \a <tag> | pipe"))
    first, second = github_annotations(verdict)
    assert first == "::error title=stresstest%3A errored::first%0Asecond 100%25"
    assert "\n" not in second
    assert "&lt;tag> \\| pipe" in render_markdown(verdict)
    assert "&lt;tag&gt; | pipe" in verdict_text(verdict, "html")
    assert [case.name for case in junit(verdict)][1] == "bell ? <tag> | pipe"


def test_outputs_and_what_github_reads_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    outputs = [parse_verdict_output(str(tmp_path / name)) for name in ("a.json", "a.xml", "a.md", "a.html")]
    verdict = verdict_of([gate_line("regressed")])
    show_verdict(verdict, tmp_path, outputs, as_json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "a.json").read_text())
    assert shown.err.startswith("::error title=stresstest%3A regressed::")
    assert (tmp_path / "gate.verdict.json").read_text() == (tmp_path / "a.json").read_text()
    assert (tmp_path / "summary").read_text() == (tmp_path / "a.md").read_text()
    assert (tmp_path / "output").read_text() == "verdict=regressed\n"
    JUnitXml.fromfile(str(tmp_path / "a.xml"))
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")


def test_a_page_shows_lines_limits_seeds_and_what_runs_it_again() -> None:
    lines = [gate_line("regressed"), gate_line("no-change", "warn", "rezero")]
    verdict = verdict_of(lines, [limit_line(True), limit_line(False)])
    page = " ".join(verdict_text(verdict, "html").split())
    for words in ("e.max_stable_lr{variant=pre-ln,depth=4}", "0.1 -&gt; 0.1", "-1 oct", "p=0.016 n=6, limit"):
        assert words in page
    assert '<td class="left bad">regressed</td>' in page
    assert '<td class="left good">no-change (warn)</td>' in page
    assert page.count('<td class="left">med &gt;= 1</td>') == 2
    assert "oct: 0: -1, 1: -1, 2: -1" in page
    assert ">stresstest check gate.yaml --base origin/main</code>" in page
    assert ">stresstest lr-range --seeds 6</code>" in page


def test_a_comparison_ends_without_a_verdict() -> None:
    verdict = verdict_of([gate_line("regressed")]).model_copy(update={"mode": "compare"})
    for text in (terminal(verdict), verdict_text(verdict, "html")):
        assert "exit 99" not in text
        assert "again:" not in text
        assert "regressed" in text.lower()


@pytest.mark.parametrize("text", ["a.docx", "xml", "junit:no/such/folder/a.xml"])
def test_an_output_that_cannot_be_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="output"):
        parse_verdict_output(text)
