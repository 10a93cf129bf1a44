"""Exported pictures, opened again by readers that did not write them, and their numbers beside result.json's.

    python -m tests.benchmarks.pictures_read RUN...

Each picture of a run is written as SVG and PNG. An XML parser reads the SVG: points of lines and dots are turned back
into values by the ticks of the axes alone, the tiles of maps give what is written in them; all are looked up among the
numbers of result.json. Pillow reads the PNG.
"""

from __future__ import annotations

import bisect
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from stresstest.commands.show_result import document_of
from stresstest.reports.pictures import write_png, write_svg
from stresstest.results.records import read_result

_AWAY, _SLANT = 0.6, 0.002  # pixels that a value may lie beside its place, and share of its distance from a tick
_FIVE_DIGITS = 5.1e-5  # relative: half a unit of the fifth
_LARGEST_POWER = 30  # of ten, that an axis of logarithms may have
_NAME = re.compile(r"translate\(([-\d.e]+),([-\d.e]+)\)")
_WRITTEN = re.compile(r"value: (-?\d+(?:\.\d+)?)(?:e([-+]?\d+))?(?![\d/])")
_CORNER = re.compile(r"[ML]([-\d.e]+),([-\d.e]+)")

Element = ElementTree.Element
Place = tuple[float, float]


def main() -> None:
    """Print a line a picture."""
    print("| run | picture | SVG: points read | of these in result.json | PNG |")
    print("|---|---|---:|---:|---|")
    for run in map(Path, sys.argv[1:]):
        stored = sorted({abs(x) for x in numbers(json.loads((run / "result.json").read_text())) if x})
        document = document_of(read_result(run / "result.json"))
        with tempfile.TemporaryDirectory() as folder:
            write_png(document, Path(folder))
            for path in write_svg(document, Path(folder)):
                if path.stem.endswith("-dark"):
                    continue
                root = ElementTree.parse(path).getroot()
                read = [*values_of(root), *written_in(root)]
                known = [each for each in read if is_stored(*each, stored)]
                with Image.open(path.with_suffix(".png")) as image:
                    image.load()
                    size = f"{image.width} x {image.height}"
                print(f"| {run.name} | {path.stem} | {len(read)} | {len(known)} | {size} |")


def numbers(value: Any) -> Iterator[float]:
    """Every number of a JSON value, keys that are numbers too."""
    if isinstance(value, dict):
        for key, each in value.items():
            if re.fullmatch(r"\d+", key):
                yield float(key)
            yield from numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield float(value)


def is_stored(value: float, away: float, stored: list[float]) -> bool:
    """Whether a number of result.json lies within so much of a value, or of what it is the logarithm of."""
    spans = [(abs(value) - away, abs(value) + away)]
    if abs(value) < _LARGEST_POWER:
        spans.append((10.0 ** (value - away), 10.0 ** (value + away)))
    return any(
        place < len(stored) and stored[place] <= high
        for low, high in spans
        for place in [bisect.bisect_left(stored, low)]
    )


def values_of(root: Element) -> Iterator[tuple[float, float]]:
    """(value, what a pixel is worth there) of each point of lines and dots, in both directions that have numbers."""
    for view in root.iter():
        if not re.search(r"role-(scope|frame)", view.get("class", "")) or view.tag.split("}")[-1] != "g":
            continue
        for frame in view:
            across, up = axes_of(frame)
            for mark in frame.iter():
                if re.search(r"mark-(symbol|line) role-mark", mark.get("class", "")):
                    for x, y in places_of(mark):
                        yield from (across(x),) if across else ()
                        yield from (up(y),) if up else ()


def written_in(root: Element) -> Iterator[tuple[float, float]]:
    """(value, half a unit of its last digit, of five at most) of each tile of a map that has a number."""
    for mark in root.iter():
        if "mark-rect role-mark" in mark.get("class", ""):
            for tile in mark:
                if found := _WRITTEN.search(tile.get("aria-label", "").replace("\u2212", "-")):
                    digits, power = found[1].partition(".")[2], int(found[2] or 0)
                    value = float(found[0].removeprefix("value: "))
                    yield value, max(0.51 * 10.0 ** (power - len(digits)), _FIVE_DIGITS * abs(value))


def places_of(mark: Element) -> Iterator[Place]:
    for path in mark:
        if "mark-symbol" in mark.get("class", ""):
            if found := _NAME.search(path.get("transform", "")):
                yield float(found[1]), float(found[2])
        else:
            yield from ((float(x), float(y)) for x, y in _CORNER.findall(path.get("d", "")))


def axes_of(frame: Element) -> tuple[Callable[[float], tuple[float, float]] | None, ...]:
    """How pixels become values, across and up; `None` for an axis of names."""
    found: list[Callable[[float], tuple[float, float]] | None] = [None, None]
    for axis in frame.iter():
        parts = {part.get("class", "").split()[-1]: part for part in axis if "role-axis-" in part.get("class", "")}
        if not {"role-axis-tick", "role-axis-label"} <= parts.keys():
            continue
        marks = [_NAME.search(tick.get("transform", "")) for tick in parts["role-axis-tick"]]
        ticks = [(at, text.text) for at, text in zip(marks, parts["role-axis-label"], strict=True) if at and text.text]
        for direction in (0, 1):
            places = [float(at[direction + 1]) for at, _ in ticks]
            if len(set(places)) > 1:
                found[direction] = reader(places, [text for _, text in ticks])
    return tuple(found)


def reader(places: list[float], labels: list[str]) -> Callable[[float], tuple[float, float]] | None:
    """The axis through its first and last label, linear or logarithmic as those between them say."""
    try:
        values = [float(label.replace("\u2212", "-")) for label in labels]
    except ValueError:
        return None
    at, to = places[0], places[-1]

    def room(pixel: float) -> float:
        return _AWAY + _SLANT * abs(pixel - at)  # ticks lie at whole pixels

    low, high = values[0], values[-1]
    middle = len(values) // 2
    share = (places[middle] - at) / (to - at)
    straight = low + share * (high - low)
    curved = low * (high / low) ** share if low > 0 < high else math.inf
    if abs(curved - values[middle]) < abs(straight - values[middle]):
        per_pixel = math.log(high / low) / (to - at)
        return lambda pixel: (value := low * math.exp(per_pixel * (pixel - at)), abs(per_pixel) * value * room(pixel))
    slope = (high - low) / (to - at)
    return lambda pixel: (low + slope * (pixel - at), abs(slope) * room(pixel))


if __name__ == "__main__":
    main()
