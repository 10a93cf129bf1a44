"""The pictures of a document as SVG, PNG and PDF files, light and dark, without a browser or a network."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stresstest.errors import ConfigError
from stresstest.reports.charts import is_empty
from stresstest.reports.document import Document
from stresstest.reports.palette import DARK, LIGHT
from stresstest.reports.vega import plot_of

PictureKind = Literal["svg", "png", "pdf"]
KINDS: Sequence[PictureKind] = ("svg", "png", "pdf")
_PAGE = "html"  # the pictures are those of the page
_VEGA_LITE = "6.4"  # the version of the page's own bundle
_PNG_SCALE = 2.0


def check_pictures() -> None:
    """A `ConfigError` where what draws them is not installed."""
    if importlib.util.find_spec("vl_convert") is None:
        raise ConfigError("SVG, PNG and PDF need vl-convert; install it: pip install 'train-stresstest[charts]'")


def write_pictures(document: Document, kind: PictureKind, folder: Path) -> list[Path]:
    """Write NAME.KIND and NAME-dark.KIND of every picture into a folder; a `ConfigError` if it cannot be written."""
    check_pictures()
    written: list[Path] = []
    try:
        folder.mkdir(exist_ok=True)
        for name, picture in document.pictures(_PAGE):
            if is_empty(picture):
                continue
            for palette, suffix in ((LIGHT, ""), (DARK, "-dark")):
                path = folder / f"{name}{suffix}.{kind}"
                path.write_bytes(picture_bytes(plot_of(picture).whole(palette), kind))
                written.append(path)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); give another folder") from None
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
