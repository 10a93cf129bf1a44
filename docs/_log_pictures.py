"""Pictures of logs for the guides: `python docs/_log_pictures.py NAME=LOG...` writes images/log-NAME.svg of each.

The curve and its marks are those of a report's page. The colours stand out from a light page and from a dark one, since
a picture does not know which of them it is on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import stresstest
from stresstest.diagnosis.document import page_of
from stresstest.reports.charts import svg_charts
from stresstest.reports.document import PAGE, Chart

_IMAGES = Path(__file__).parent / "images"
_LINES = ("#3b82d6", "#c77d1e", "#2f9e6e", "#b05fb8", "#8a7a3a")
_MARKS = {"bad": "#d9483b", "mixed": "#c98a10"}
_TEXT, _GRID = "#7f8894", "#9aa3ad"
_STYLE = (
    f"text{{font:11px sans-serif;fill:{_TEXT}}}.grid{{stroke:{_GRID};stroke-opacity:.35}}"
    ".line{fill:none;stroke-width:1.8}.mark{stroke-dasharray:4 3;stroke-width:1.4}"
)


def picture(log: str) -> str:
    """The loss of the first run of a log, as SVG."""
    run = stresstest.diagnose(log)[0]
    chart = next(block for block in page_of(run).blocks if isinstance(block, Chart) and block.formats == PAGE)
    return "\n".join(_lines(svg_charts(chart)[0], f"The loss of {Path(log).name}: {run.outcome}")) + "\n"


def _lines(c: dict[str, Any], label: str) -> list[str]:
    size = f'viewBox="0 0 {c["width"]} {c["height"]}" width="{c["width"]}" height="{c["height"]}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(label)}>',
        f"<style>{_STYLE}</style>",
        *(_rule(c["left"], at["at"], c["right"], at["at"], "grid") for at in c["y_ticks"]),
        *(_text(c["left"] - 6, at["at"] + 4, at["label"], "end") for at in c["y_ticks"]),
        *(_text(at["at"], c["bottom"] + 15, at["label"], "middle") for at in c["x_ticks"]),
        _text(c["right"], c["bottom"] + 30, f"{c['y_label']} over {c['x_label']}s", "end"),
        *(_curve(i, curve["points"]) for i, curve in enumerate(c["curves"])),
        *(_legend(i, curve["name"], c) for i, curve in enumerate(c["curves"]) if len(c["curves"]) > 1),
        *(part for mark in c["marks"] for part in _mark(mark, c)),
        "</svg>",
    ]


def _curve(index: int, points: str) -> str:
    return f'<polyline class="line" stroke="{_LINES[index % len(_LINES)]}" points="{points}"/>'


def _legend(index: int, name: str, c: dict[str, Any]) -> str:
    color = _LINES[index % len(_LINES)]
    return _text(c["right"], c["top"] + 24 + 13 * index, name, "end").replace("<text", f'<text style="fill:{color}"')


def _mark(mark: dict[str, Any], c: dict[str, Any]) -> tuple[str, str]:
    """A line across, with its name on the side that has room."""
    color = _MARKS.get(mark["tone"], _TEXT)
    left = mark["x"] > (c["left"] + c["right"]) / 2
    name = _text(mark["x"] + (-5 if left else 5), c["top"] + 10, mark["label"], "end" if left else "start")
    return _rule(mark["x"], c["top"], mark["x"], c["bottom"], "mark", f' stroke="{color}"'), name


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str, more: str = "") -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"{more}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    for name, log in (given.split("=", 1) for given in sys.argv[1:]):
        (_IMAGES / f"log-{name}.svg").write_text(picture(log))
