"""From what a user names to the files that are read: files, folders, patterns, a pipe."""

from __future__ import annotations

import glob
import itertools
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.logs.joining import grouped
from stresstest.registry import nearest

LARGEST = 2 * 1000**3  # bytes of a file that is read
_MOST_ENTRIES, _MOST_LOGS = 200_000, 20_000  # of one folder that is walked
_NOT_ENTERED = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "env"})
_SUFFIXES = frozenset(".csv .tsv .json .jsonl .ndjson .log .txt .out .err .wandb .db .sqlite .sqlite3 .ipynb".split())
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # also what turns text around
_PIPE = "-"


@dataclass(frozen=True)
class Found:
    """A file to read. `named`: by the user, and not met in a folder, where what holds no loss is passed over."""

    file: LogFile
    named: bool = True


@dataclass(frozen=True)
class Unread:
    """What cannot be read, and why, in a line."""

    shown: str
    why: str


@contextmanager
def found_logs(names: Iterable[str]) -> Iterator[Iterator[Found | Unread]]:
    """The files that names lead to, each once; what was spooled from a pipe is removed at the end."""
    with ExitStack() as spooled:
        yield _joined(_once(found for name in names for found in _found(name, spooled)))


def printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def _once(found: Iterable[Found | Unread]) -> Iterator[Found | Unread]:
    seen: set[Path] = set()
    for each in found:
        if isinstance(each, Found):
            path = each.file.path.absolute()
            if path in seen:
                continue
            seen.add(path)
        yield each


def _joined(found: Iterable[Found | Unread]) -> Iterator[Found | Unread]:
    """Those of one run as one; what cannot be read comes first."""
    named: dict[Path, bool] = {}
    files: list[LogFile] = []
    for each in found:
        if isinstance(each, Found):
            named[each.file.path] = each.named
            files.append(each.file)
        else:
            yield each
    for file in grouped(files):
        yield Found(file, any(named[part.path] for part in (file, *file.more)))


def _found(name: str, spooled: ExitStack) -> Iterator[Found | Unread]:
    if name == _PIPE:
        piped = sys.stdin is not None  # it may be closed
        yield _spooled(sys.stdin.buffer, "stdin", spooled) if piped else Unread("stdin", "closed: nothing can be read")
        return
    if not name:
        yield Unread("''", "an empty name; give a file, a folder, or - for a pipe")
        return
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        yield from _of_pattern(name) if glob.has_magic(name) else [Unread(printable(name), _missing(path))]
    except (OSError, ValueError) as error:
        yield Unread(printable(name), _reason(error))
    else:
        if stat.S_ISDIR(mode):
            yield from _of_folder(path)
        elif stat.S_ISFIFO(mode):
            with path.open("rb") as stream:
                yield _spooled(stream, printable(name), spooled)
        elif stat.S_ISREG(mode):
            yield _of_file(path)
        else:
            yield Unread(printable(name), "a device or socket; give a file, a folder, or - for a pipe")


def _missing(path: Path) -> str:
    """What is said of a file that is not there; a near name beside it is offered."""
    if path.is_symlink():
        return "a link to a file that is not there"
    try:
        beside = [entry.name for entry in os.scandir(path.parent)] if path.parent.is_dir() else []
    except OSError:
        beside = []
    near = nearest(path.name, beside)
    return f"no such file; did you mean '{printable(str(path.with_name(near)))}'?" if near else "no such file or folder"


def _of_pattern(pattern: str) -> Iterator[Found | Unread]:
    found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 (that of Path refuses absolute patterns)
    names = list(itertools.islice(found, _MOST_LOGS + 1))  # links that lead up would never end
    if len(names) > _MOST_LOGS:
        yield Unread(printable(pattern), f"more than {_MOST_LOGS} files fit this pattern; name a part of them")
        return
    paths = [Path(name) for name in sorted(names)]
    files = [path for path in paths if path.is_file()]
    if not paths:
        yield Unread(printable(pattern), "no file fits this pattern")
    for path in files or paths:
        if path.is_dir():
            yield from _of_folder(path)
        elif path in files:
            yield _of_file(path)
        else:
            yield Unread(printable(str(path)), "a pipe, device or socket; name a pipe without a pattern")


def _of_file(path: Path, named: bool = True) -> Found | Unread:
    shown = printable(str(path))
    try:
        size = path.stat().st_size
    except OSError as error:
        return Unread(shown, _reason(error))
    if size == 0:
        return Unread(shown, "empty: nothing was logged yet")
    if size >= LARGEST:
        return Unread(shown, f"{size / 1e9:.1f} GB, and {LARGEST / 1e9:.0f} GB is the most; cut it, or thin its rows")
    if not os.access(path, os.R_OK):
        return Unread(shown, "no permission to read it")
    return Found(LogFile(path, shown), named)


def _of_folder(folder: Path) -> Iterator[Found | Unread]:
    """What may be a log in a folder and those under it, by its name; of a run's checkpoints only the last."""
    paths, complete = _walked(folder)
    found = [_of_file(path, named=False) for path in _without_prefixes(paths)]
    logs = [each for each in found if isinstance(each, Found) or not each.why.startswith("empty")]
    if not logs:
        yield Unread(printable(str(folder)), "a folder without logs; name the file, if one has another suffix")
    yield from logs
    if not complete:
        yield Unread(printable(str(folder)), f"too large to walk: {_MOST_LOGS} files were looked at; name a part of it")


def _walked(folder: Path) -> tuple[list[Path], bool]:
    paths: list[Path] = []
    entries = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NOT_ENTERED)
        entries += len(files) + len(folders)
        paths += [Path(parent, name) for name in sorted(files) if _may_be_log(Path(parent), name)]
        if entries > _MOST_ENTRIES or len(paths) > _MOST_LOGS:
            return paths[:_MOST_LOGS], False
    return paths, True


def _may_be_log(parent: Path, name: str) -> bool:
    if name.startswith("."):
        return False
    return Path(name).suffix.lower() in _SUFFIXES or "tfevents" in name or "metrics" in parent.parts[-3:]


def _without_prefixes(paths: list[Path]) -> list[Path]:
    """Each checkpoint's `trainer_state.json` holds the rows of those before it."""
    last: dict[Path, int] = {}
    for path in paths:
        if (number := _checkpoint(path)) is not None:
            last[path.parent.parent] = max(number, last.get(path.parent.parent, 0))
    whole = {path.parent for path in paths if path.name == "trainer_state.json" and _checkpoint(path) is None}
    return [
        path
        for path in paths
        if (number := _checkpoint(path)) is None
        or (number == last[path.parent.parent] and path.parent.parent not in whole)
    ]


def _checkpoint(path: Path) -> int | None:
    found = _CHECKPOINT.fullmatch(path.parent.name)
    return int(found[1]) if found and path.name == "trainer_state.json" else None


def _spooled(stream: BinaryIO, shown: str, spooled: ExitStack) -> Found | Unread:
    """A pipe's bytes in a file of a folder that only this user can enter."""
    try:
        folder = tempfile.mkdtemp(prefix="stresstest-")
        spooled.callback(shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder, "pipe")
        with path.open("wb") as copy:
            while part := stream.read(1 << 20):
                copy.write(part)
                if copy.tell() >= LARGEST:
                    return Unread(shown, f"{LARGEST / 1e9:.0f} GB or more; thin its rows")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be kept in {tempfile.gettempdir()} ({error.strerror})") from None
    return Found(LogFile(path, shown)) if path.stat().st_size else Unread(shown, "empty: nothing came through the pipe")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"
