"""The colours of pages and pictures, light and dark: text at a contrast of 4.5 or more, lines and marks at 3 (WCAG)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Palette = Mapping[str, str]

LIGHT: Palette = MappingProxyType(
    {
        "ink": "#1b1f24",
        "dim": "#5c6670",
        "line": "#d5dae0",
        "paper": "#ffffff",
        "good": "#1a7f4b",
        "mixed": "#8a5a00",
        "bad": "#b3261e",
        "dull": "#5c6670",
        "good-fill": "#cde4d8",
        "mixed-fill": "#f1dbb3",
        "bad-fill": "#eecfcd",
        "dull-fill": "#dbdee0",
        "c0": "#2456b3",
        "c1": "#b3520a",
        "c2": "#00798c",
        "c3": "#c2477f",
        "c4": "#7a3fa0",
        "c5": "#1a7f4b",
        "c6": "#b3261e",
        "c7": "#5c6670",
        "v0": "#229f8a",
        "v1": "#258f8e",
        "v2": "#288091",
        "v3": "#2a7094",
        "v4": "#2d6098",
        "v5": "#2e4c88",
        "v6": "#303879",
        "v7": "#32246a",
        "v8": "#33105a",
    }
)
DARK: Palette = MappingProxyType(
    {
        "ink": "#e6e9ec",
        "dim": "#98a2ad",
        "line": "#39414a",
        "paper": "#14181c",
        "good": "#5ec58d",
        "mixed": "#e0b354",
        "bad": "#ff8a80",
        "dull": "#98a2ad",
        "good-fill": "#243e35",
        "mixed-fill": "#4c3914",
        "bad-fill": "#483132",
        "dull-fill": "#31363c",
        "c0": "#82aaff",
        "c1": "#f5a35c",
        "c2": "#4fc3d4",
        "c3": "#ff7eb6",
        "c4": "#b794f6",
        "c5": "#5ec58d",
        "c6": "#ff8a80",
        "c7": "#98a2ad",
        "v0": "#33709a",
        "v1": "#328196",
        "v2": "#319293",
        "v3": "#30a490",
        "v4": "#2fb58c",
        "v5": "#63c180",
        "v6": "#97cc74",
        "v7": "#cbd868",
        "v8": "#ffe45c",
    }
)
PALETTES: Mapping[str, Palette] = MappingProxyType({"light": LIGHT, "dark": DARK})
COLORS = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7")  # of series: the first ones are no outcome's
VALUES = tuple(f"v{i}" for i in range(9))  # of numbers, the low ones nearest to the paper
DASHES: tuple[tuple[int, ...], ...] = ((), (8, 3), (2, 2), (8, 3, 2, 3), (14, 4))  # of series beside their colour


def dashes(place: int) -> tuple[int, ...]:
    """Dash and gap lengths of the line at a place in the order of series; none of a solid one."""
    return DASHES[place % len(DASHES)]


def dashes_text(place: int) -> str:
    """The same as SVG writes it."""
    return " ".join(map(str, dashes(place))) or "none"
