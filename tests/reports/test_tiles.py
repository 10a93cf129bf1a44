"""Maps of numbers: every value is in the picture, and what has no colour is said in words."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import vl_convert

from stresstest.reports.document import Axis, Document, Tile, Tiles
from stresstest.reports.html import render
from stresstest.reports.palette import DARK, LIGHT, PALETTES, VALUES
from stresstest.reports.pictures import write_pictures
from stresstest.reports.vega import plot_of


def row(*values: float | None) -> tuple[Tile, ...]:
    return tuple(Tile(float(i), i + 1.0, value, f"block {i + 1}") for i, value in enumerate(values))


def map_of(*rows: tuple[Tile, ...], log: bool = True) -> Tiles:
    named = tuple((f"<row> {i}", tiles) for i, tiles in enumerate(rows))
    return Tiles("Norms", Axis("block", log=False), "variant", named, Axis("norm", log=log))


MIXED = map_of(row(0.0, 0.0, 1e-3, None), row(1e-40, 1e-2, 0.5, 1e30))


def texts(svg: bytes) -> list[str]:
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("text")]


def test_each_tile_has_its_place_and_value() -> None:
    data = plot_of(MIXED).whole(LIGHT)["datasets"]["tiles"]
    assert [(each["row"], each["start"], each["value"]) for each in data] == [
        (name, tile.start, tile.value) for name, tiles in MIXED.rows for tile in tiles
    ]


def test_the_ends_of_the_colours_and_what_has_none_are_said_in_words(tmp_path: Path) -> None:
    write_pictures(Document("d", "d", blocks=(MIXED,)), "svg", tmp_path)
    found = texts((tmp_path / "norms.svg").read_bytes())
    assert {"≤ 1e-06", "1", "≥ 1e06", "norm", "block", "<row> 1", "not finite"} <= set(found)
    assert found.count("zero") == 1


def test_the_static_picture_says_the_same_without_a_script() -> None:
    page = re.sub(r"<script.*?</script>", "", render(Document("d", "d", blocks=(MIXED,))), flags=re.S)
    for words in ("≤ 1e-06", "≥ 1e06", "&lt;row&gt; 1", "not finite", ">zero<"):
        assert words in page
    assert len(re.findall(r'<rect [^>]*class="tile none"', page)) == 3


@pytest.mark.parametrize("picture", [MIXED, map_of(row(0.0, None)), map_of(row(0.2, 0.2, -0.5), log=False)])
def test_the_compiler_of_vega_lite_takes_every_map_without_a_warning(
    picture: Tiles, capfd: pytest.CaptureFixture[str]
) -> None:
    for palette in (LIGHT, DARK):
        assert vl_convert.vegalite_to_svg(plot_of(picture).whole(palette), vl_version="6.4")
    assert "WARN" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("theme", PALETTES)
def test_colours_of_values_stand_out_from_the_page_the_more_the_higher(theme: str) -> None:
    palette = PALETTES[theme]
    contrasts = [_contrast(palette[name], palette["paper"]) for name in VALUES]
    assert contrasts[0] >= 3.0
    assert contrasts == sorted(contrasts)
    assert contrasts[-1] > 4 * contrasts[0]


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
