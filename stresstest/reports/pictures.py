"""The pictures of a document as SVG, PNG and PDF files, light and dark, without a browser or a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from stresstest.errors import ConfigError
from stresstest.reports.charts import is_empty
from stresstest.reports.document import Document
from stresstest.reports.palette import DARK, LIGHT
from stresstest.reports.vega import plot_of

PictureKind = Literal["svg", "png", "pdf"]
_PAGE = "html"  # the pictures are those of the page
_VEGA_LITE = "6.4"  # the version of the page's own bundle
_PNG_SCALE = 2.0


def write_svg(document: Document, folder: Path) -> list[Path]:
    """Write NAME.svg and NAME-dark.svg of every picture of a document into a folder."""
    return write_pictures(document, "svg", folder)


def write_png(document: Document, folder: Path) -> list[Path]:
    """Write NAME.png and NAME-dark.png of every picture of a document into a folder."""
    return write_pictures(document, "png", folder)


def write_pdf(document: Document, folder: Path) -> list[Path]:
    """Write NAME.pdf and NAME-dark.pdf of every picture of a document into a folder."""
    return write_pictures(document, "pdf", folder)


def write_pictures(document: Document, kind: PictureKind, folder: Path) -> list[Path]:
    """Write NAME.KIND and NAME-dark.KIND of every picture; a `ConfigError` where a document has none."""
    pictures = [(name, picture) for name, picture in document.pictures(_PAGE) if not is_empty(picture)]
    if not pictures:
        raise ConfigError(f"this report has no pictures to write as {kind}; html, md and csv have what it shows")
    written: list[Path] = []
    for name, picture in pictures:
        for palette, suffix in ((LIGHT, ""), (DARK, "-dark")):
            path = folder / f"{name}{suffix}.{kind}"
            path.write_bytes(picture_bytes(plot_of(picture).whole(palette), kind))
            written.append(path)
    return written


def picture_bytes(spec: dict[str, object], kind: PictureKind) -> bytes:
    """A whole Vega-Lite specification as a picture."""
    import vl_convert

    text = json.dumps(spec)
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(text, vl_version=_VEGA_LITE)).encode()
    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(text, vl_version=_VEGA_LITE, scale=_PNG_SCALE))
    return bytes(vl_convert.vegalite_to_pdf(text, vl_version=_VEGA_LITE))
