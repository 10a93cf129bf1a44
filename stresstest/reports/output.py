"""Where a report goes: the terminal, and FORMAT:PATH, or the format of a path's suffix."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean
from stresstest.reports.document import Document


@dataclass(frozen=True)
class Format:
    """The suffixes of its files, and the module whose `render(document)` writes one; imported once it is asked for."""

    suffixes: tuple[str, ...]
    module: str


FORMATS: Mapping[str, Format] = {
    "html": Format((".html", ".htm"), "stresstest.reports.html"),
    "md": Format((".md", ".markdown"), "stresstest.reports.markdown"),
}
JSON: Mapping[str, tuple[str, ...]] = {"json": (".json",)}  # of a result, beside those of its document

Output = tuple[str, Path]  # a format and where to


def console(stderr: bool = False) -> Console:
    """A console of the terminal's width, or 120 columns into a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Console(stderr=stderr, width=width, highlight=False)


def parse_output(text: str, others: Mapping[str, tuple[str, ...]] = JSON) -> Output:
    """(format, path) of an `--output`: a document's, or one of `others`; an unknown one is a `ConfigError`."""
    known = dict(sorted({**{name: each.suffixes for name, each in FORMATS.items()}, **others}.items()))
    kind, colon, rest = text.partition(":")
    if colon and kind in known and rest:
        return kind, _in_a_folder(Path(rest))
    suffix = Path(text).suffix.lower()
    for name, suffixes in known.items():
        if suffix in suffixes:
            return name, _in_a_folder(Path(text))
    asked = kind if colon else suffix.removeprefix(".")
    raise ConfigError(f"unknown format of output '{text}'{did_you_mean(asked, known)}")


def _in_a_folder(path: Path) -> Path:
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"output {path} cannot be written: {path.parent} is not a folder, or {path} is one")
    return path


def render(document: Document, kind: str) -> str:
    """The text of a document in one format."""
    written: Callable[[Document], str] = importlib.import_module(FORMATS[kind].module).render
    return written(document)


def write_output(path: Path, text: str) -> None:
    """Write one; a path that cannot be written is a `ConfigError`."""
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"output {path} cannot be written ({error.strerror}); give another path") from None
