"""Where a result goes: the terminal, and FORMAT:PATH, or the format of a path's suffix."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean
from stresstest.results.records import Result

FORMATS = {"html": (".html", ".htm"), "json": (".json",), "md": (".md", ".markdown")}

Output = tuple[str, Path]  # a format and where to


def console(stderr: bool = False) -> Console:
    """A console of the terminal's width, or 120 columns into a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Console(stderr=stderr, width=width, highlight=False)


def parse_output(text: str) -> Output:
    """(format, path) of an `--output`; an unknown format is a `ConfigError`."""
    kind, colon, rest = text.partition(":")
    if colon and kind in FORMATS and rest:
        return kind, _in_a_folder(Path(rest))
    suffix = Path(text).suffix.lower()
    for name, suffixes in FORMATS.items():
        if suffix in suffixes:
            return name, _in_a_folder(Path(text))
    asked = kind if colon else suffix.removeprefix(".")
    raise ConfigError(f"unknown format of output '{text}'{did_you_mean(asked, FORMATS)}")


def _in_a_folder(path: Path) -> Path:
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"output {path} cannot be written: {path.parent} is not a folder, or {path} is one")
    return path


def render(result: Result, kind: str) -> str:
    """The text of a result in one format."""
    if kind == "json":
        return result.to_json()
    if kind == "html":
        from stresstest.reports.html import render_html

        return render_html(result)
    from stresstest.reports.markdown import render_markdown

    return render_markdown(result)


def write_outputs(result: Result, outputs: Sequence[Output]) -> None:
    """Write every output; a path that cannot be written is a `ConfigError`."""
    for kind, path in outputs:
        write_output(path, render(result, kind))


def write_output(path: Path, text: str) -> None:
    """Write one; a path that cannot be written is a `ConfigError`."""
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"output {path} cannot be written ({error.strerror}); give another path") from None
