"""The run directory: a manifest, one durable line per finished cell, curves, the result.

Only the driver writes, but for the workers' own `checkpoints` and `live`, and a finished cell is on the disk before
the next one is taken. Cells are found by their key, so that a run takes over what another one, or its own other
settings, finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from stresstest.engine.machine import keep_out_of_git
from stresstest.errors import ConfigError, StorageError
from stresstest.results.sums import DamagedError, Summed, digest, sealed_json, sum_of
from stresstest.runs import cell_lines
from stresstest.runs.directory import read_manifest

if TYPE_CHECKING:
    from stresstest.results.progress import Progress
    from stresstest.results.records import Cell

LOGGED = "logged.jsonl"  # which cells trackers were told of
DAMAGED = "damaged.jsonl"  # lines of cells that are not what was written
_LOCK_ATTEMPTS = 5


class RunStore:
    """One run directory, held by one driver; `others` are runs whose finished cells may be taken over."""

    def __init__(
        self,
        path: Path,
        manifest: Mapping[str, Any],
        others: Sequence[Path] = (),
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = path
        self._others = others
        self._tell = tell
        self._checked = False  # whether the curves of what was there were looked at
        self._lock = _claim(path)
        try:
            self._write("manifest.json", json.dumps(sealed_json(manifest), indent=1) + "\n")
            self._write("progress.json", "{}\n")
        except BaseException:
            self.close()
            raise

    def finished(self, wanted: Collection[str] = ()) -> dict[str, Cell]:
        """The cells on the disk by key, with those of `wanted` that another run has.

        A last line cut short by a crash is dropped. A line or curves that are not what was written are set aside and
        told of: their cells are missing then. A line of another version is a `ConfigError`.
        """
        cells = self._read()
        missing = set(wanted) - cells.keys()
        return self._read() if missing and self.take_over(missing, self._others, {"done"}) else cells

    def _read(self) -> dict[str, Cell]:
        path = self.path / cell_lines.NAME
        try:
            found = cell_lines.read_cells(self.path, check_curves=not self._checked)
        except cell_lines.ForeignCellError as error:
            raise ConfigError(f"{path}:{error}; the file was not changed: use --fresh, or another --run-dir") from None
        self._checked = True
        if found.damaged:
            self._set_lines_aside(found)
        elif found.cut:
            os.truncate(path, path.stat().st_size - found.cut)
        elif not found.ends:
            with path.open("a") as file:  # whole but for its end: the next cell starts a line of its own
                file.write("\n")
        return found.cells

    def _set_lines_aside(self, found: cell_lines.CellLines) -> None:
        """Keep the damaged lines in another file, and the others where they were."""
        path = self.path / cell_lines.NAME
        with _written(self.path):
            with (self.path / DAMAGED).open("ab") as aside:
                aside.writelines(line.rstrip(b"\n") + b"\n" for line in found.damaged.values())
                _sync(aside)
            draft = path.with_suffix(".part")
            with draft.open("wb") as file:
                file.writelines(cell_lines.kept_lines(self.path, found))
                _sync(file)
            draft.replace(path)
            _sync_folder(self.path)
        lines = ", ".join(map(str, found.damaged))
        one = len(found.damaged) == 1
        self._tell(
            f"{path}:{lines}: damaged since {'it was' if one else 'they were'} written (the checksum does not fit); "
            f"set aside in {DAMAGED}, and what is missing is trained again"
        )

    def append(self, cell: Cell, curves: Mapping[str, Any]) -> Cell:
        """Make a finished cell durable: its curves first, then its line, each flushed and synced.

        Returns the cell as it is stored, with the checksum of its curves.
        """
        with _written(self.path):
            if curves:
                import numpy as np

                packed = io.BytesIO()
                np.savez_compressed(packed, **curves)
                cell = cell.model_copy(update={"curves_sum": digest(packed.getvalue())})
                self._write_curves(cell.key, packed.getvalue())
            if "\n" in cell.error:
                (self.path / "errors").mkdir(exist_ok=True)
                (self.path / "errors" / f"{cell.key}.txt").write_text(cell.error + "\n")
            self._append_lines([cell_lines.line_of(cell)])
        return cell

    def _write_curves(self, key: str, content: bytes) -> None:
        folder = self.path / "curves"
        folder.mkdir(exist_ok=True)
        with (folder / f"{key}.npz").open("wb") as file:
            file.write(content)
            _sync(file)
        _sync_folder(folder)  # or a power cut may forget the file's name

    def _append_lines(self, lines: Iterable[bytes]) -> None:
        path = self.path / cell_lines.NAME
        new = not path.exists()
        with path.open("ab") as file:
            file.writelines(lines)
            _sync(file)
        if new:
            _sync_folder(self.path)

    def take_over(self, keys: Collection[str], sources: Sequence[Path], statuses: Collection[str]) -> int:
        """Copy cells of these statuses, with their curves, from other run directories; returns how many."""
        wanted, taken = set(keys), 0
        for source in sources:
            theirs = {
                key: line
                for key, status, line in cell_lines.whole_lines(source)
                if key in wanted and status in statuses and _fits(source, line)
            }
            with _written(self.path):
                for key in theirs:
                    curves = source / "curves" / f"{key}.npz"
                    if curves.exists():  # if they are lost with the power, their checksum tells
                        (self.path / "curves").mkdir(exist_ok=True)
                        shutil.copyfile(curves, self.path / "curves" / curves.name)
                if theirs:
                    self._append_lines(theirs.values())
            wanted -= theirs.keys()
            taken += len(theirs)
        return taken

    def write_plan(self, keys: Sequence[str], mine: Sequence[str]) -> None:
        """The cells that belong to the run, for `merge`, and those of them that are this shard's, for `status`."""
        self._write("plan.json", json.dumps(sealed_json({"cells": keys, "mine": mine})) + "\n")

    def write_progress(self, progress: Progress) -> None:
        """How far the run is now, for `status`."""
        self._write("progress.json", progress.to_json(), durable=False)

    def set_aside(self, *names: str) -> None:
        """Keep these files under another name, out of the way of what is written now."""
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        for path in (self.path / name for name in names):
            if path.exists():
                path.rename(_unused(path, now))

    def write_result(self, parts: Iterable[str]) -> Path:
        """Write `result.json` at once or not at all, and its checksum beside it: its text is what `--json` prints."""
        with _written(self.path):
            sum_of(self.path / "result.json").unlink(missing_ok=True)  # or it would not fit for a moment
        summed = Summed(parts)
        path = self._write("result.json", summed)
        self._write("result.sum", summed.digest + "\n")
        return path

    def write_report(self, text: str) -> Path:
        """Write `report.html` at once or not at all."""
        return self._write("report.html", text)

    def last_day(self) -> str:
        """The day on which a cell was last finished, e.g. 29 November 2026."""
        cells = self.path / cell_lines.NAME
        when = datetime.fromtimestamp(cells.stat().st_mtime if cells.exists() else time.time())
        return f"{when.day} {when:%B %Y}"

    def write_answer(self, verdicts: Sequence[str]) -> Path:
        """The verdicts of the result, for who lists many runs."""
        return self._write("answer.json", json.dumps(sealed_json({"verdicts": list(verdicts)})) + "\n")

    def close(self) -> None:
        """Let another driver in."""
        self._lock.close()

    def _write(self, name: str, text: str | Iterable[str], durable: bool = True) -> Path:
        """At once or not at all, and unless it is soon written again, so that a power cut leaves it whole."""
        path = self.path / name
        draft = path.with_suffix(".part")
        with _written(self.path):
            with draft.open("w", encoding="utf-8") as file:
                file.writelines([text] if isinstance(text, str) else text)
                if durable:
                    _sync(file)
            draft.replace(path)
            if durable:
                _sync_folder(self.path)
        return path


@contextlib.contextmanager
def open_run(
    path: Path,
    manifest: Mapping[str, Any],
    fresh: bool = False,
    others: Sequence[Path] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[RunStore]:
    """Hold a run directory; one that another command's run lies in is a `ConfigError`. `tell` hears of damage.

    A run of the same command with other settings goes on in it: what is the same cell is found by its
    key, and the result of the other settings is set aside.
    """
    theirs, damaged = None, False
    try:
        theirs = read_manifest(path)
    except DamagedError as error:
        damaged = True
        tell(str(error))
    if theirs is None and any(path.glob("*/manifest.json")):
        raise ConfigError(f"run directory {path} holds the runs of a scenario; give another --run-dir")
    leftovers = ("result.json", "report.html", cell_lines.NAME)
    if theirs is None and not damaged and any((path / name).exists() for name in leftovers):
        held = "files that are not a run of this version"
        raise ConfigError(f"run directory {path} holds {held}; give another --run-dir")
    if theirs is not None and theirs.get("command") != manifest.get("command"):
        raise ConfigError(f"run directory {path} holds a run of {theirs.get('command')}; give another --run-dir")
    store = RunStore(path, manifest, others, tell)
    try:
        if fresh:
            store.set_aside(cell_lines.NAME, "study.journal", LOGGED)
            shutil.rmtree(path / "checkpoints", ignore_errors=True)
        if fresh or damaged or (theirs is not None and theirs["identity"] != manifest["identity"]):
            store.set_aside("result.json", "result.sum", "report.html", "answer.json")
        yield store
    finally:
        store.close()


def _claim(path: Path) -> TextIO:
    try:
        path.mkdir(parents=True, exist_ok=True)
        keep_out_of_git(path)
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise ConfigError(
            f"run directory {path} cannot be written ({error.strerror}); give another --run-dir"
        ) from None
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                lock.close()
                raise ConfigError(
                    f"run directory {path} cannot be locked ({error.strerror}); give one on another file system"
                ) from None
            # held, or looked at by `holder_of` for a moment
            if attempt + 1 < _LOCK_ATTEMPTS:
                time.sleep(0.05)
                continue
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise ConfigError(f"run directory {path} is in use by {holder}; wait, or give another --run-dir")
    try:
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            lock.close()
        raise ConfigError(
            f"run directory {path} cannot be written ({error.strerror}); give another --run-dir"
        ) from None
    return lock


def _unused(path: Path, now: str) -> Path:
    """The name that a file is kept under; where the clock stands still or goes back it may be taken."""
    free, number = path.with_suffix(f".{now}{path.suffix}"), 1
    while free.exists():
        number += 1
        free = path.with_suffix(f".{now}_{number}{path.suffix}")
    return free


def _fits(source: Path, line: bytes) -> bool:
    """Whether a line of another run is a cell of this version, with the curves that were written."""
    try:
        return cell_lines.curves_fit(source, cell_lines.cell_of(line))
    except cell_lines.ForeignCellError:
        return False


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not path.is_dir():
            raise StorageError(f"run directory {path} was removed, with its cells") from None
        raise StorageError(
            f"run directory {path} cannot be written any more ({error.strerror or error}); "
            "cells saved before are not affected"
        ) from None


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names of new files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
