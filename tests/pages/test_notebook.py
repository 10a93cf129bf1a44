"""What a notebook shows, in a real browser: within a page of others, light and dark, with scripts and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stresstest.results.records import read_result

RESULT = read_result(Path(__file__).parents[1] / "results" / "stored" / "depth-sweep.json")
NOTEBOOK = """<!doctype html><meta charset="utf-8"><style>table, td {{ border: 3px solid rgb(1, 2, 3); }}</style>
<body data-jp-theme-light="{light}"><p id="theirs">theirs</p><table><tr><td id="cell">1</td></tr></table>{output}"""
DRAWN = "document.querySelector('figure.drawn .live svg') !== null"


@pytest.fixture
def notebook(browser: Any, tools: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    def of(output: str, light: bool, **context: Any) -> Any:
        (tmp_path / "notebook.html").write_text(NOTEBOOK.format(light=str(light).lower(), output=output))
        return tools.opened(browser, tmp_path / "notebook.html", 1000, "light", **context)

    return of


def style(page: Any, selector: str, name: str) -> str:
    return str(page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{name}"))


@pytest.mark.parametrize("light", [True, False])
def test_a_chart_is_drawn_in_a_frame_of_its_own_and_in_the_theme_of_the_notebook(
    notebook: Callable[..., Any], light: bool
) -> None:
    with notebook(RESULT.plot()._repr_html_(), light) as (page, said):
        page.wait_for_selector("iframe[title=chart]")
        frame = page.frames[1]
        frame.wait_for_function(DRAWN)
        page.wait_for_timeout(200)
        paper = frame.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is light
        inside = frame.evaluate("[document.documentElement.scrollHeight, innerHeight]")
        assert inside[0] <= inside[1], "no scroll bar"
        assert page.evaluate("typeof vega") == "undefined", "the notebook's own page has none of its names"
        assert not [each for each in said if not each.startswith("asks for about:srcdoc")]


def test_where_scripts_are_blocked_a_static_chart_stays(notebook: Callable[..., Any]) -> None:
    with notebook(RESULT.plot()._repr_html_(), True, java_script_enabled=False) as (page, _):
        assert page.locator(".stresstest-figure svg").first.bounding_box()["height"] > 100
        assert page.locator("iframe").count() == 0


@pytest.mark.parametrize("light", [True, False])
def test_a_result_changes_no_style_of_a_notebook_and_is_readable_in_its_theme(
    notebook: Callable[..., Any], tools: ModuleType, light: bool
) -> None:
    with notebook("", light) as (page, _):
        before = [style(page, "#cell", name) for name in ("padding", "borderTopWidth", "textAlign", "color")]
    with notebook(RESULT._repr_html_(), light) as (page, said):
        assert [style(page, "#cell", name) for name in ("padding", "borderTopWidth", "textAlign", "color")] == before
        assert (style(page, ".stresstest-result", "backgroundColor") == "rgb(255, 255, 255)") is light
        contrast = tools.Axe().run(page, {"include": [".stresstest-result"]}).response["violations"]
        assert [each["id"] for each in contrast if each["id"] == "color-contrast"] == []
        assert not said
