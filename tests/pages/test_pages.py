"""Pages in a real browser: every experiment's, at three widths, light and dark, without scripts, by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stresstest.experiments.result_views import document_of
from stresstest.reports.document import (
    Axis,
    Chart,
    Column,
    Details,
    Document,
    Fact,
    HeatCell,
    Heatmap,
    Paragraph,
    Series,
    Table,
    Value,
)
from stresstest.reports.html import render
from tests.reports.scale_results import two_variants

CURVE = tuple((10.0 ** (-4 + i / 10), 3.0 - i / 20) for i in range(40))
NAMES = [f"dynamic-tanh:alpha=0.{i}" for i in range(6)]
CHART = Chart(
    "Loss against LR",
    Axis("LR"),
    Axis("loss", log=False),
    tuple(Series(name, CURVE[i:]) for i, name in enumerate(NAMES)),
    reference=("constant predictor", 2.0),
    below=Chart(
        "Held",
        Axis("LR"),
        Axis("", names=tuple(NAMES)),
        tuple(
            Series(n, ((1e-3, float(i)), (1e-2, float(i))), kind="dots", tones=("good", "bad"))
            for i, n in enumerate(NAMES)
        ),
    ),
)
PLACES = tuple(HeatCell("2.31", "x", "bad", "seed 0 exploded") for _ in range(7))
MAP = Heatmap("Warm-up", "peak LR", "warm-up", tuple(f"0.00{i}" for i in range(1, 8)), (("0", PLACES), ("100", PLACES)))
TABLE = Table(
    (Column("variant", "left"), Column("max_stable_lr"), Column("n")),
    tuple(
        (Value(name), Value(lr), Value(str(n))) for name, lr, n in (("b", "0.5", 9), ("a", "> 2", 10), ("c", "-", 1))
    ),
    caption="What each variant takes",
)
DOCUMENT = Document(
    "stresstest lr-range",
    "A title",
    "a subtitle",
    (TABLE, CHART, MAP),
    ("a finding",),
    (Fact("again", "stresstest lr-range"),),
)


@pytest.fixture
def page_of(browser: Any, tools: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    def of(document: Document, **context: Any) -> Any:
        (tmp_path / "page.html").write_text(render(document))
        return tools.opened(browser, tmp_path / "page.html", 800, "light", **context)

    return of


def test_a_page_has_nothing_to_complain_about(complaints: Callable[[str], list[str]]) -> None:
    assert complaints(render(DOCUMENT)) == []


def test_the_page_of_a_law_with_its_band_and_target_has_nothing_to_complain_about(
    complaints: Callable[[str], list[str]],
) -> None:
    assert complaints(render(document_of(two_variants()))) == []


def test_a_page_that_overlaps_asks_the_network_or_is_too_wide_is_complained_about(
    complaints: Callable[[str], list[str]],
) -> None:
    bad = (
        render(DOCUMENT)
        .replace("<h1>", '<h1 style="width: 3000px">')
        .replace("</main>", '<img src="http://localhost:9/x"></main>')
    )
    found = " ".join(complaints(bad))
    assert "the page is 3" in found
    assert "asks for http://localhost:9/x" in found
    assert "image-alt" in found


def test_where_scripts_are_blocked_a_static_picture_stands_there(page_of: Callable[..., Any]) -> None:
    with page_of(DOCUMENT, java_script_enabled=False) as (page, said):
        assert page.locator("figure .static svg[role=img]").count() == 2
        assert page.locator("figure .static svg[role=img]").first.is_visible()
        assert page.locator("figure .static table.map").is_visible()
        assert page.locator("button").count() == 0, "what needs a script is not offered"
        assert said == []


def test_a_page_is_printed_light_and_folded_out_without_what_can_be_clicked(page_of: Callable[..., Any]) -> None:
    folded = replace(DOCUMENT, blocks=(*DOCUMENT.blocks, Details("more", (Paragraph("words"),))))
    with page_of(folded) as (page, _):
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert [page.locator(f"details{which}").count() for which in ("", "[open]")] == [1, 1]
        assert page.locator("figure .static svg[role=img]").first.is_visible()
        assert [each for each in page.locator(".live, .tools, code + button").all() if each.is_visible()] == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_series_is_put_off_and_on_by_its_key(page_of: Callable[..., Any]) -> None:
    with page_of(DOCUMENT) as (page, _):
        page.wait_for_selector("figure.drawn")
        lines = page.locator("figure").first.locator(".live g.mark-line path")
        before = lines.count()
        key = page.get_by_role("button", name=NAMES[0], exact=True).first
        key.press("Enter")
        page.wait_for_timeout(100)
        assert (lines.count(), key.get_attribute("aria-pressed")) == (before - 1, "false")
        key.press("Enter")
        page.wait_for_timeout(100)
        assert lines.count() == before


def test_a_value_is_shown_when_the_pointer_is_over_it(page_of: Callable[..., Any]) -> None:
    with page_of(DOCUMENT) as (page, _):
        page.wait_for_selector("figure.drawn")
        page.locator("figure").first.locator(".live g.mark-symbol path").nth(1).hover(force=True)
        tip = page.locator(".tip")
        tip.wait_for(state="visible")
        assert "LR: " in tip.inner_text()
        assert "loss: " in tip.inner_text()


def test_a_table_is_sorted_by_number_with_what_is_missing_last(page_of: Callable[..., Any]) -> None:
    with page_of(DOCUMENT) as (page, _):
        head = page.get_by_role("button", name="max_stable_lr")
        first = page.locator("table.sortable tbody tr th")
        head.click()
        assert first.all_inner_texts() == ["b", "a", "c"]
        head.click()
        assert first.all_inner_texts() == ["a", "b", "c"]
        assert page.locator("th[aria-sort=descending]").inner_text().startswith("max_stable_lr")


@pytest.mark.parametrize("kind", ["SVG", "PNG", "CSV"])
def test_a_chart_can_be_downloaded(page_of: Callable[..., Any], kind: str) -> None:
    with page_of(DOCUMENT) as (page, _):
        page.wait_for_selector("figure.drawn")
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"download Loss against LR as {kind}").click()
        stored = Path(waiting.value.path()).read_bytes()
        assert waiting.value.suggested_filename == f"loss-against-lr.{kind.lower()}"
        start = {"SVG": b"<svg", "PNG": b"\x89PNG", "CSV": b"part,x,y,series"}[kind]
        assert stored.startswith(start)
        if kind == "CSV":
            assert b"p0,0.0001,3,dynamic-tanh:alpha=0.0" in stored


def test_a_command_is_copied_by_a_click(page_of: Callable[..., Any]) -> None:
    with page_of(DOCUMENT) as (page, _):
        button = page.get_by_role("button", name="copy stresstest lr-range")
        button.click()
        page.wait_for_timeout(100)
        assert button.inner_text() in ("copied", "selected: press Ctrl + C")
