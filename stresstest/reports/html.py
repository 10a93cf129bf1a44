"""A document as one self-contained HTML page: no network, readable without JavaScript, light and dark.

Charts are drawn by Vega-Lite, which the page holds; where scripts are blocked a static picture stands in their place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from stresstest.reports.charts import MOST_LINES, fewer, is_empty, thinned
from stresstest.reports.document import Block, Chart, Details, Document, Picture, Table, Tiles
from stresstest.reports.palette import DASHES, PALETTES, dashes_text
from stresstest.reports.plot import CONFIG, Columns, Plot
from stresstest.reports.svg import keyed, static_charts
from stresstest.reports.tiles import static_tiles
from stresstest.reports.vega import plot_of

KIND = "html"
_MOST = 2_000_000  # bytes of a page, 0.8 MB of which are the scripts that draw
_MOST_OF_A_FRAGMENT = 400_000  # bytes, of which a notebook keeps a copy for each result that it shows
_NO_SHORTER = 0.98  # of what it was
_LITTLE = 0.1  # of what is no line: where that alone is too long, lines may take so much more
_SAYS_ITS_HEIGHT = (
    "new ResizeObserver(() => parent.postMessage({stresstestHeight: document.documentElement.offsetHeight}, '*'))"
    ".observe(document.body);"
)


def render(document: Document) -> str:
    """The page's text; what comes from a user is text on it, never markup.

    Lines of a page above 2 MB are drawn by fewer points, the lowest and the highest of each stretch, as it then says.
    """
    return _rendered("page.html.j2", document, _MOST)


def fragment(document: Document) -> str:
    """A part of a page of others, such as a notebook: no script, and styles that are its own alone."""
    return _rendered("fragment.html.j2", document, _MOST_OF_A_FRAGMENT)


def framed(static: str, page: str, height: int) -> str:
    """A fragment in whose place a script puts a page, in a frame of its own: so many pixels, until it says how many."""
    grows = page.replace("</body>", f"<script>{_SAYS_ITS_HEIGHT}</script></body>")
    return _template("framed.html.j2").render(static=Markup(static), page=_in_script(grows), height=height)


def _rendered(template: str, document: Document, most: int) -> str:
    """By about as few points less as make it so many bytes at most."""
    blocks = [(name, block) for name, block in document.pictures(KIND) if not is_empty(block)]
    drawn = [fewer(block) if isinstance(block, Chart) else block for _, block in blocks]
    text = _with_points(template, document, blocks, drawn, 1)
    whole = size = len(text.encode())
    every, rest, room = 1, most, 0.0  # of what is no line nothing is known yet
    while size > rest + room:
        before, every = size, max(2 * every, _power_of_two((whole - rest) / room) if room else 1)
        shorter = _with_points(template, document, blocks, drawn, every)
        size = len(shorter.encode())
        if size > _NO_SHORTER * before:
            break  # what is still too long are not the lines
        text = shorter
        if not room:  # half of the points are half of the lines
            rest = 2 * size - whole
            room = most - rest if rest < most else _LITTLE * rest
    return text


def _power_of_two(least: float) -> int:
    return 1 << math.ceil(math.log2(least))


def _with_points(
    template: str, document: Document, blocks: Sequence[tuple[str, Picture]], drawn: Sequence[Picture], every: int
) -> str:
    pictures = [thinned(picture, every) if isinstance(picture, Chart) else picture for picture in drawn]
    places = {id(block): place for place, (_, block) in enumerate(blocks)}
    labels = _labels(document.shown_in(KIND))
    page = _template(template).render(
        document=document,
        blocks=document.shown_in(KIND),
        kind_of=lambda block: type(block).__name__,
        static=[_static(picture) for picture in pictures],
        place_of=lambda block: places.get(id(block)),
        name_of=lambda place: blocks[place][0],
        names=_names,
        label_of=lambda table: labels[id(table)],
        palettes=PALETTES,
        dashes=dashes_text,
        data=lambda: _data([plot_of(picture) for picture in pictures]),
        every=every,
        most_lines=MOST_LINES if any(one is not block for one, (_, block) in zip(drawn, blocks, strict=True)) else 0,
        script=_script,
    )
    return page.lstrip()


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("stresstest", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _static(picture: Picture) -> list[dict[str, Any]]:
    """The coordinates of what stands in a page where scripts are blocked; none of a map, which is a table there."""
    if isinstance(picture, Tiles):
        return [static_tiles(picture)]
    return static_charts(picture) if isinstance(picture, Chart) else []


def _labels(blocks: Sequence[Block]) -> dict[int, str]:
    """What a screen reader calls each table, by the table's id: no two of a page alike."""
    found: dict[int, str] = {}
    for table, within in _tables(blocks, ""):
        name = table.caption or ": ".join(filter(None, (within, table.columns[0].one_line))) or "table"
        found[id(table)] = name if name not in found.values() else f"{name} ({len(found) + 1})"
    return found


def _tables(blocks: Sequence[Block], within: str) -> Iterator[tuple[Table, str]]:
    """(table, what it is folded away under)."""
    for block in blocks:
        if isinstance(block, Details):
            yield from _tables(block.blocks, block.summary)
        elif isinstance(block, Table):
            yield block, within


def _names(block: Block) -> list[str]:
    """Of the series that a key tells apart."""
    return keyed(block) if isinstance(block, Chart) else []


def _data(plots: Sequence[Plot]) -> Markup | str:
    """What the page's script draws; nothing of a page without pictures."""
    if not plots:
        return ""
    palettes = {name: dict(palette) for name, palette in PALETTES.items()}
    keys = [dashes_text(place) for place in range(len(DASHES))]
    sent = [_sent(plot) for plot in plots]
    return _in_script({"charts": sent, "config": CONFIG, "palettes": palettes, "dashes": keys})


def _sent(plot: Plot) -> dict[str, Any]:
    return {
        "spec": plot.spec,
        "data": _packed(plot.data),
        "names": plot.names,
        "least": plot.least,
        "zoom": "zoom_" in json.dumps(plot.spec),
    }


def _packed(data: Mapping[str, Columns]) -> dict[str, dict[str, Any]]:
    """Columns; one that repeats its values as {"runs": [[value, times], ...]}."""
    return {name: {key: _runs(column) for key, column in columns.items()} for name, columns in data.items()}


def _runs(column: list[Any]) -> Any:
    runs = [[value, len(list(same))] for value, same in groupby(column)]
    return {"runs": runs} if 2 * len(runs) < len(column) else column


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _in_script(value: Any) -> Markup:
    """JSON that ends no script element."""
    return Markup(_json(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@cache
def _script(name: str) -> Markup:
    """A script of this folder, as it is."""
    return Markup(resources.files("stresstest.reports").joinpath(name).read_text(encoding="utf-8"))
