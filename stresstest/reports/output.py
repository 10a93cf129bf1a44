"""Where a report goes: the terminal, and FORMAT:PATH, or the format of a path's suffix; PATH is a file or a folder."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from stresstest.reports.document import Document

Tables = Mapping[str, Mapping[str, Sequence[Any]]]  # by name, columns of one length by name


@dataclass(frozen=True)
class Format:
    """The suffixes of its files, and the module whose `render(document)` writes one; imported once it is asked for."""

    suffixes: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class FolderFormat(Format):
    """A format of several files: its module has `function(what, folder)`, and `of` says what it takes.

    needs, extra: the package without which nothing can be written, and the extra that brings it.
    """

    of: Literal["document", "tables"] = "tables"
    needs: str = ""
    extra: str = ""
    function: str = "write"


def _pictures(kind: str) -> FolderFormat:
    module = "stresstest.reports.pictures"
    return FolderFormat((f".{kind}",), module, "document", "vl_convert", "charts", f"write_{kind}")


FORMATS: Mapping[str, Format] = {
    "html": Format((".html", ".htm"), "stresstest.reports.html"),
    "md": Format((".md", ".markdown"), "stresstest.reports.markdown"),
}
FOLDERS: Mapping[str, FolderFormat] = {
    "csv": FolderFormat((".csv",), "stresstest.reports.csv_tables"),
    "parquet": FolderFormat((".parquet",), "stresstest.reports.parquet_tables", needs="pyarrow", extra="parquet"),
    "svg": _pictures("svg"),
    "png": _pictures("png"),
    "pdf": _pictures("pdf"),
}
JSON: Mapping[str, tuple[str, ...]] = {"json": (".json",)}  # of a result, beside those of its document

Output = tuple[str, Path]  # a format and where to


def console(stderr: bool = False) -> Console:
    """A console of the terminal's width, or 120 columns into a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 120
    return Console(stderr=stderr, width=width, highlight=False)


@dataclass(frozen=True)
class Made:
    """What outputs are made of, each once it is asked for; `texts` are formats that a command has of its own."""

    document: Callable[[], Document]
    tables: Callable[[], Tables]
    texts: Mapping[str, Callable[[], str]]


def parse_output(text: str, others: Mapping[str, tuple[str, ...]] = JSON) -> Output:
    """(format, path) of an `--output`: one of ours, or one of `others`.

    One that is unknown or cannot be written is a `ConfigError`.
    """
    formats = {name: each.suffixes for name, each in {**FORMATS, **FOLDERS}.items()}
    known = dict(sorted({**formats, **others}.items()))
    kind, colon, rest = text.partition(":")
    if colon and kind in known and rest:
        return kind, _checked(kind, Path(rest))
    if colon and kind in known:
        raise ConfigError(f"output '{text}' has no path; write {kind}:{'FOLDER' if kind in FOLDERS else 'PATH'}")
    suffix = Path(text).suffix.lower()
    for name, suffixes in known.items():
        if suffix in suffixes:
            return name, _checked(name, Path(text))
    asked = kind if colon else suffix.removeprefix(".")
    raise ConfigError(f"unknown format of output '{text}'{did_you_mean(asked, known)}")


def formats_help(*others: str) -> str:
    """What an `--output` may be, for its help."""
    files = _either([*FORMATS, *others], "PATH")
    tables, pictures = (
        _either([name for name, each in FOLDERS.items() if each.of == of], "FOLDER") for of in ("tables", "document")
    )
    return f"{files}, or a path that ends so; {tables} (tables); {pictures} (charts)"


def _either(names: Sequence[str], where: str) -> str:
    *first, last = (f"{name}:{where}" for name in sorted(set(names)))
    return f"{', '.join(first)} or {last}"


def write_outputs(outputs: Sequence[Output], made: Made) -> None:
    """Write all that was asked for; a path that cannot be written is a `ConfigError`."""
    for kind, path in outputs:
        if kind in FOLDERS:
            _write_folder(path, FOLDERS[kind], made)
        else:
            _write_output(path, text_of(made, kind))


def text_of(made: Made, kind: str) -> str:
    """The text of one format that is a file."""
    return made.texts[kind]() if kind in made.texts else render(made.document(), kind)


def _checked(kind: str, path: Path) -> Path:
    return _folder(kind, FOLDERS[kind], path) if kind in FOLDERS else _in_a_folder(path)


def _folder(kind: str, each: FolderFormat, path: Path) -> Path:
    if path.suffix.lower() in each.suffixes and not path.is_dir():
        raise ConfigError(f"{kind} writes a folder of files; name one: {kind}:{path.with_suffix('')}")
    last = path if path.exists() else path.parent
    if not last.is_dir():
        raise ConfigError(f"output {kind}:{path} cannot be written: {last} is not a folder; give another")
    try:
        if path.is_dir():
            tempfile.TemporaryFile(dir=path).close()
        else:
            path.mkdir()
            path.rmdir()
    except OSError as error:
        raise ConfigError(f"output {kind}:{path} cannot be written ({error.strerror}); give another folder") from None
    check_installed(kind)
    return path


def check_installed(kind: str) -> None:
    """A `ConfigError` where the package is missing without which a format of folders cannot be written."""
    each = FOLDERS[kind]
    if each.needs:
        try:
            importlib.import_module(each.needs)
        except ImportError:
            from stresstest.installation import install_hint

            raise ConfigError(f"output {kind}: needs {each.needs}; {install_hint(each.extra)}") from None


def _write_folder(path: Path, each: FolderFormat, made: Made) -> None:
    write: Callable[[Document | Tables, Path], None] = getattr(importlib.import_module(each.module), each.function)
    try:
        path.mkdir(exist_ok=True)
        write(made.document() if each.of == "document" else made.tables(), path)
    except OSError as error:
        raise ConfigError(f"output {path} cannot be written ({error.strerror}); give another folder") from None


def _in_a_folder(path: Path) -> Path:
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"output {path} cannot be written: {path.parent} is not a folder, or {path} is one")
    return path


def render(document: Document, kind: str) -> str:
    """The text of a document in one format."""
    written: Callable[[Document], str] = importlib.import_module(FORMATS[kind].module).render
    return written(document)


def _write_output(path: Path, text: str) -> None:
    """Write one; a path that cannot be written is a `ConfigError`."""
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"output {path} cannot be written ({error.strerror}); give another path") from None
