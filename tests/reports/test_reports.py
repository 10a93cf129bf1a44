"""Renderings and findings of small hand-made results."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.lr_range.findings import lr_range_findings
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.reports.output import FORMATS, JSON
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Finding, Result, Status
from stresstest.results.summary import ranked_rows
from stresstest.specs.profiles import make_spec

END_LR = 10.0
OPEN = Bracket(low=END_LR, high=None)


def trial(lr: float, outcome: str) -> dict[str, Any]:
    return {"lr": lr, "outcome": outcome, "validation_loss": 1.5 if outcome == "stable" else None}


def cell(
    variant: str,
    seed: int,
    stable: float | None,
    onset: float | None = None,
    above: str = "relapsed",
    status: Status = "done",
    **ramp: Any,
) -> Cell:
    """A cell whose largest stable LR is `stable` (None: nothing trained; 8: the top of the range)."""
    if status != "done":
        return Cell(key=f"{variant}{seed}", variant=variant, depth=6, seed=seed, status=status, error="Traceback\nboom")
    if stable is None:
        bracket, held = Bracket(low=None, high=None), [trial(lr, above) for lr in (2**-6, 2**-5)]
    else:
        bracket = Bracket(low=stable, high=None if stable == 8 else 2 * stable)
        held = [trial(stable, "stable"), *([trial(2 * stable, above)] if stable != 8 else [])]
    broke = OPEN if onset is None else Bracket.exactly(onset)
    explosion = OPEN if onset is None else Bracket.exactly(2 * onset)
    metrics = {"explosion_lr": explosion, "steps_survived": Bracket.exactly(100 + seed), "max_stable_lr": bracket}
    learned = ramp.pop("learned", stable is not None)
    facts = {"outcome": "exploded", "learned": learned, "hold_monotone": True, "clip_fraction": 0.0, "skipped_steps": 0}
    curve = [[1e-4, 5.5], [1e-2, 2.5], [onset or END_LR, 2.0], [END_LR, 6.5]]
    return Cell(
        key=f"{variant}{seed}",
        variant=variant,
        depth=6,
        seed=seed,
        status="done",
        metrics=metrics | ({"onset_lr": broke} if learned else {}),
        ramp={**facts, "curve": curve, **ramp},
        hold=held,
    )


def result_of(cells: Sequence[Cell], **settings: Any) -> Result:
    seeds = ",".join(str(seed) for seed in sorted({cell.seed for cell in cells})) + ","
    variants = ",".join(dict.fromkeys(cell.variant for cell in cells))
    spec = make_spec(LrRangeSpec, "quick", {"seeds": seeds, "variant": variants} | settings).model_dump(mode="json")
    rows = ranked_rows(cells, spec["optimizer"])
    return Result(
        schema_=RESULT_SCHEMA,
        command="lr-range",
        reproduce="stresstest lr-range",
        spec=spec,
        rules={"level_window": 5},
        environment={"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0"},
        data={"name": "synthetic", "bytes": 1 << 20, "hash": "abc", "baseline_loss": 3.18, "chance_loss": 5.55},
        cells=list(cells),
        summary=rows,
        findings=lr_range_findings(rows, cells, spec),
    )


def variant_cells(variant: str, stable: float | None, onset: float | None = None, **more: Any) -> list[Cell]:
    return [cell(variant, seed, stable, onset, **more) for seed in range(3)]


PLAIN = variant_cells("plain", None)
POST_LN = [cell("post-ln", seed, 2.0**-k, 3 * 2.0**-k, "failed-to-train") for seed, k in enumerate((4, 5, 4))]
PRE_LN = variant_cells("pre-ln", 2.0, 3.0, above="nonfinite")
NORMFORMER = variant_cells("normformer", 8.0)
EVERY_KIND = [*PLAIN, *NORMFORMER, *POST_LN, *PRE_LN]


def terminal(result: Result, width: int = 120, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_result(result, Console(file=file, width=width, highlight=False, color_system=None), "runs/one", verbose=True)
    file.seek(0)
    return file.read()


def table_rows(out: str) -> dict[str, list[str]]:
    """The first line of each variant's row, split into its columns."""
    table = out.split("Median over")[0]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows if row[0] in {cell.variant for cell in EVERY_KIND}}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("lr_window", [False, True])
@pytest.mark.parametrize("name", ["rezero", "normformer:res_scale=true"])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int, lr_window: bool, name: str) -> None:
    out = terminal(result_of([*EVERY_KIND, *variant_cells(name, 0.25, 0.5)], lr_window=lr_window), width)
    assert [line for line in out.splitlines() if cell_len(line) > width] == []
    assert "\u2026" not in out
    table, rest = out.split("Median over")
    assert name in (rest if width == 80 and lr_window else table), "a name too long for the table is folded there"
    chart = out.split("median over seeds\n")[1].split("\n\n")[0].splitlines()
    assert len(chart) == 4 * 5 + 2, "three lines and the marks a variant, and the axis"


@pytest.mark.parametrize("width", [80, 120])
def test_variants_stand_in_order_of_strength(width: int) -> None:
    out = terminal(result_of(EVERY_KIND), width)
    assert list(table_rows(out)) == ["normformer", "pre-ln", "post-ln", "plain"]
    charts = re.findall(r"^(normformer|pre-ln|post-ln|plain) ", out.split("against the ramp's LR")[1], re.MULTILINE)
    assert charts == ["normformer", "pre-ln", "post-ln", "plain"]


def test_a_boundary_beyond_the_range_is_printed_as_such_and_never_as_a_number() -> None:
    rows = table_rows(terminal(result_of(EVERY_KIND)))
    stable, _, onset, explosion, _ = rows["normformer"]
    assert (stable, onset, explosion) == ("> 8", "> 10", "> 10")
    assert rows["plain"][0] == "none", "where nothing trained there is no boundary to name"
    assert rows["pre-ln"][:4] == ["2", "32", "3", "6"]


def test_an_explosion_at_the_first_step_is_below_the_range() -> None:
    first = [
        c.model_copy(update={"metrics": c.metrics | {"explosion_lr": Bracket(low=None, high=1e-4)}}) for c in PRE_LN
    ]
    assert table_rows(terminal(result_of(first)))["pre-ln"][3] == "< 0.0001"


def test_a_terminal_without_unicode_gets_a_chart_of_ascii() -> None:
    out = terminal(result_of(EVERY_KIND), 80, encoding="ascii")
    assert out.isascii()
    assert re.search(r"^pre-ln +\*+", out.split("against the ramp's LR")[1], re.MULTILINE)
    assert max(terminal(result_of(EVERY_KIND), 80)) > "\u2800"


@pytest.mark.parametrize("start_lr", [0.0, 1e-4])
@pytest.mark.parametrize("cells", [EVERY_KIND, PLAIN, [cell("pre-ln", 0, None, status="crashed")]])
def test_every_format_renders_whatever_came_out(cells: list[Cell], start_lr: float) -> None:
    result = result_of(cells, start_lr=start_lr, ramp="linear")
    for text in [terminal(result), *(result_text(result, kind) for kind in (*FORMATS, *JSON))]:
        assert all(each.variant in text for each in cells)
        assert result.reproduce in text


def test_the_terminal_report_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert terminal(result_of([*POST_LN, *PRE_LN]), 80) == snapshot


def test_the_markdown_report_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert result_text(result_of([*POST_LN, *PRE_LN]), "md") == snapshot


class Balanced(HTMLParser):
    """Fails on a tag that is closed without having been opened, or left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_network() -> None:
    page = result_text(result_of(EVERY_KIND), "html")
    tags = Balanced(page).tags
    assert page.count('role="img"') == 2
    assert not {"link", "img", "iframe"} & set(tags)
    text = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "://" not in text
    assert "url(" not in text


def test_a_malicious_name_is_text_on_the_page() -> None:
    page = result_text(result_of(variant_cells('<script>alert("1")</script>', 2.0, 3.0)), "html")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_the_page_of_a_large_result_stays_small() -> None:
    curve = [[1e-4 * 1.155**i, 5.123456789 - i / 50] for i in range(80)]
    held = [trial(2.0**k, "stable") for k in range(-16, 4)]
    cells = [
        each.model_copy(update={"ramp": each.ramp | {"curve": curve}, "hold": held})
        for each in (cell(f"variant-{i}", seed, 2.0, 3.0) for i in range(15) for seed in range(8))
    ]
    assert 800_000 < len(result_text(result_of(cells), "html").encode()) < 1_600_000


GOOD = [*PRE_LN, *POST_LN]
TRIGGERS: dict[str, list[Cell]] = {
    "never-trained": variant_cells("plain", None),
    "no-onset": [*variant_cells("rezero", 1.0, 2.0)[:2], cell("rezero", 2, 1.0, learned=False)],
    "ramp-flatters": variant_cells("rezero", 1.0, 4.1),
    "not-monotone": variant_cells("rezero", 1.0, 2.0, hold_monotone=False),
    "clipped": [*variant_cells("rezero", 1.0, 2.0)[:2], cell("rezero", 2, 1.0, 2.0, clip_fraction=0.25)],
    "skipped": variant_cells("rezero", 1.0, 2.0, skipped_steps=2),
    "oom": [cell("rezero", 0, None, status="oom")],
    "crashed": [cell("rezero", 1, None, status="crashed")],
    "timeout": [cell("rezero", 2, None, status="timeout")],
}


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


@pytest.mark.parametrize("kind", TRIGGERS)
def test_a_finding_is_made_where_it_holds_and_only_there(kind: str) -> None:
    always = {"highest", "boundary", "plateau"}  # post-ln's first LR above its boundary failed to train
    assert kinds(result_of(GOOD).findings) == always
    [found] = [each for each in result_of([*GOOD, *TRIGGERS[kind]]).findings if each.kind not in always]
    assert found.kind == kind
    assert TRIGGERS[kind][0].variant in found.text


def test_a_flattering_ramp_is_four_times_the_hold_or_more() -> None:
    assert "ramp-flatters" not in kinds(result_of([*GOOD, *variant_cells("rezero", 1.0, 3.9)]).findings)
    assert "ramp-flatters" in kinds(result_of([*GOOD, *variant_cells("rezero", 1.0, 4.0)]).findings)


def test_where_nothing_trained_no_variant_is_the_highest() -> None:
    assert kinds(result_of(PLAIN).findings) == {"never-trained"}


def test_findings_say_who_holds_most_how_the_weakest_breaks_and_the_paired_factor() -> None:
    highest, weakest, _ = result_of([*POST_LN, *PRE_LN]).findings
    assert (highest.kind, highest.subject, weakest.kind, weakest.subject) == (
        "highest",
        "pre-ln",
        "boundary",
        "post-ln",
    )
    assert "2 trains, 4 does not (median of 3 seeds)" in highest.text
    assert "32x (32x to 64x over seeds)" in highest.text
    assert "0.062 trains, 0.12 does not" in weakest.text
    assert "never beats the best constant predictor" in weakest.text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("relapsed", "loses what it had learned (relapsed)"),
        ("exploded", "ends above its initial loss (exploded)"),
        ("nonfinite", "becomes NaN or infinite (nonfinite)"),
        ("failed-to-train", "never beats"),
    ],
)
def test_a_boundary_says_how_training_broke_just_above_it(outcome: str, words: str) -> None:
    findings = result_of([*NORMFORMER, *variant_cells("pre-ln", 2.0, 3.0, above=outcome)]).findings
    [found] = [each for each in findings if each.kind == "boundary"]
    assert found.subject == "pre-ln"
    assert words in found.text
    assert ("plateau" in kinds(findings)) == (outcome == "failed-to-train")


def test_a_variant_that_held_the_top_of_the_range_is_not_said_to_break() -> None:
    findings = result_of([*NORMFORMER, *variant_cells("pre-ln", 8.0)]).findings
    assert [each.subject for each in findings if "breaks" in each.text] == []
