"""A chart or map of a report as an object of Python: a Vega-Lite specification that notebooks draw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError, path_given
from stresstest.registry import did_you_mean
from stresstest.reports.charts import is_empty
from stresstest.reports.document import Document, Picture
from stresstest.reports.palette import DARK, LIGHT
from stresstest.reports.vega import plot_of

_MIME = "application/vnd.vegalite.v6+json"
_SUFFIXES = ("svg", "png", "pdf", "html", "json")
_ABOVE_BELOW = 220  # pixels that a page has for title, keys and buttons beside a chart


class Figure(Mapping[str, Any]):
    """A chart of a report: its Vega-Lite specification with its data, which it is a mapping of."""

    def __init__(self, name: str, picture: Picture, beside: Document) -> None:
        self.name = name
        self.title = picture.title
        self._picture = picture
        self._beside = beside

    def to_dict(self, dark: bool = False) -> dict[str, Any]:
        """The specification with its data, for a light or a dark page."""
        return plot_of(self._picture).whole(DARK if dark else LIGHT)

    def save(self, path: str | Path, dark: bool = False) -> Path:
        """Write it as SVG, PNG or PDF (with the extra `charts`), as a page, or as its specification, by the suffix.

        Another suffix, a folder that cannot be written, or a package that is missing is a `ConfigError`.
        """
        file = path_given(path, "path", "the path of a file")
        kind = file.suffix.lower().removeprefix(".")
        if kind not in _SUFFIXES:
            raise ConfigError(f"{file} cannot hold a chart; end it in .svg, .png, .pdf, .html or .json")
        content = self._bytes(kind, dark)
        try:
            file.write_bytes(content)
        except OSError as error:
            raise ConfigError(f"{file} cannot be written ({error.strerror}); give another path") from None
        return file

    def _bytes(self, kind: str, dark: bool) -> bytes:
        if kind == "html":
            return self._page().encode()
        if kind == "json":
            return (json.dumps(self.to_dict(dark), indent=1) + "\n").encode()
        from stresstest.reports.output import check_installed
        from stresstest.reports.pictures import picture_bytes

        check_installed(kind)
        return picture_bytes(self.to_dict(dark), "svg" if kind == "svg" else "png" if kind == "png" else "pdf")

    def _page(self) -> str:
        from stresstest.reports.html import render

        return render(Document(self._beside.name, self._beside.title, blocks=(self._picture,)))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """For notebooks: the specification, and beside it HTML for those that do not know it."""
        return {_MIME: self.to_dict(), "text/html": self._repr_html_(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        """A static chart, in whose place scripts put the interactive one, in a frame of its own."""
        from stresstest.reports.html import fragment, framed

        static = fragment(Document("", "", blocks=(self._picture,)))
        return framed(static, self._page(), _ABOVE_BELOW + _height(self._spec))

    @cached_property
    def _spec(self) -> dict[str, Any]:
        return self.to_dict()

    def __repr__(self) -> str:
        """Its name and title."""
        return f"Figure({self.name!r}, {self.title!r})"

    def __getitem__(self, key: str) -> Any:
        """A part of the specification."""
        return self._spec[key]

    def __iter__(self) -> Iterator[str]:
        """The names of its parts."""
        return iter(self._spec)

    def __len__(self) -> int:
        """How many parts it has."""
        return len(self._spec)


def figures_of(document: Document) -> dict[str, Figure]:
    """The charts and maps of a page that have something to draw, by the names of their files."""
    return {name: Figure(name, each, document) for name, each in document.pictures("html") if not is_empty(each)}


def figure_named(document: Document, name: str) -> Figure:
    """One of them, or the first; a name that there is not is a `ConfigError`."""
    found = figures_of(document)
    if not found:
        raise ConfigError("this report has no chart")
    if name and name not in found:
        raise ConfigError(f"no chart is named '{name}'{did_you_mean(name, found)}")
    return found[name] if name else next(iter(found.values()))


def _height(spec: Mapping[str, Any]) -> int:
    """Pixels of the views, one under the other."""
    views = spec.get("vconcat", [spec])
    return sum(int(view.get("height", 0)) for view in views) + 40 * len(views)
