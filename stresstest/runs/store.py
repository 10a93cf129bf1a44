"""The run directory: a manifest, one durable line per finished cell, curves, the result.

Only the driver writes, but for the workers' own `checkpoints` and `live`, and a finished cell is on the disk before
the next one is taken. Cells are found by their key, so that a run takes over what another one, or its own other
settings, finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO

from stresstest.engine.machine import keep_out_of_git
from stresstest.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from stresstest.results.progress import Progress
    from stresstest.results.records import Cell

DEFAULT_ROOT = Path(os.environ.get("STRESSTEST_RUNS") or ".stresstest/runs")
LOGGED = "logged.jsonl"  # which cells trackers were told of
_LOCK_ATTEMPTS = 5
_START = re.compile(rb'\{"key":"([^"\\]+)",.*?"seed":\d+,"status":"(\w+)"')  # of a cell's line, as it is written


class RunStore:
    """One run directory, held by one driver; `others` are runs whose finished cells may be taken over."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], others: Sequence[Path] = ()) -> None:
        self.path = path
        self._others = others
        self._lock = _claim(path)
        self._write("manifest.json", json.dumps(manifest, indent=1) + "\n")
        self._write("progress.json", "{}\n")

    def finished(self, wanted: Collection[str] = ()) -> dict[str, Cell]:
        """The cells on the disk by key, with those of `wanted` that another run has.

        A last line cut short by a crash is dropped.
        """
        cells = self._read()
        missing = set(wanted) - cells.keys()
        return self._read() if missing and self.take_over(missing, self._others, {"done"}) else cells

    def _read(self) -> dict[str, Cell]:
        cells: dict[str, Cell] = {}
        path = self.path / "cells.jsonl"
        if not path.exists():
            return cells
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                cell = _cell(line)
            except _ForeignCellError as error:
                if number == len(lines) and not line.endswith(b"\n"):
                    os.truncate(path, sum(map(len, lines[:-1])))
                    break
                raise ConfigError(
                    f"{path}:{number} is not a cell of this version ({error}); "
                    "the file was not changed: use --fresh, or another --run-dir"
                ) from None
            cells[cell.key] = cell
        else:
            if lines and not lines[-1].endswith(b"\n"):
                with path.open("a") as file:  # whole but for its end: the next cell starts a line of its own
                    file.write("\n")
        return cells

    def append(self, cell: Cell, curves: Mapping[str, Any]) -> None:
        """Make a finished cell durable: its curves first, then its line, each flushed and synced."""
        with _written(self.path):
            if curves:
                import numpy as np

                folder = self.path / "curves"
                folder.mkdir(exist_ok=True)
                with (folder / f"{cell.key}.npz").open("wb") as file:
                    np.savez_compressed(file, **curves)
                    _sync(file)
            if "\n" in cell.error:
                (self.path / "errors").mkdir(exist_ok=True)
                (self.path / "errors" / f"{cell.key}.txt").write_text(cell.error + "\n")
            with (self.path / "cells.jsonl").open("a") as lines:
                lines.write(cell.model_dump_json() + "\n")
                _sync(lines)

    def take_over(self, keys: Collection[str], sources: Sequence[Path], statuses: Collection[str]) -> int:
        """Copy cells of these statuses, with their curves, from other run directories; returns how many."""
        wanted, taken = set(keys), 0
        for source in sources:
            theirs = {
                key: line
                for key, status, line in _lines(source)
                if key in wanted and status in statuses and _is_cell(line)
            }
            for key, line in theirs.items():
                with _written(self.path):
                    curves = source / "curves" / f"{key}.npz"
                    if curves.exists():
                        (self.path / "curves").mkdir(exist_ok=True)
                        shutil.copyfile(curves, self.path / "curves" / curves.name)
                    with (self.path / "cells.jsonl").open("ab") as lines:
                        lines.write(line)
            wanted -= theirs.keys()
            taken += len(theirs)
        return taken

    def write_plan(self, keys: Sequence[str], mine: Sequence[str]) -> None:
        """The cells that belong to the run, for `merge`, and those of them that are this shard's, for `status`."""
        self._write("plan.json", json.dumps({"cells": keys, "mine": mine}) + "\n")

    def write_progress(self, progress: Progress) -> None:
        """How far the run is now, for `status`."""
        self._write("progress.json", progress.to_json())

    def set_aside(self, *names: str) -> None:
        """Keep these files under another name, out of the way of what is written now."""
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        for path in (self.path / name for name in names):
            if path.exists():
                path.rename(path.with_suffix(f".{now}{path.suffix}"))

    def write_result(self, text: str) -> Path:
        """Write `result.json` at once or not at all."""
        return self._write("result.json", text)

    def write_report(self, text: str) -> Path:
        """Write `report.html` at once or not at all."""
        return self._write("report.html", text)

    def last_day(self) -> str:
        """The day on which a cell was last finished, e.g. 29 November 2026."""
        cells = self.path / "cells.jsonl"
        when = datetime.fromtimestamp(cells.stat().st_mtime if cells.exists() else time.time())
        return f"{when.day} {when:%B %Y}"

    def write_answer(self, verdicts: Sequence[str]) -> Path:
        """The verdicts of the result, for who lists many runs."""
        return self._write("answer.json", json.dumps({"verdicts": list(verdicts)}) + "\n")

    def close(self) -> None:
        """Let another driver in."""
        self._lock.close()

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        draft = path.with_suffix(".part")
        with _written(self.path):
            draft.write_text(text)
            draft.replace(path)
        return path


def choose_directory(run_dir: str | None, identities: Collection[str], command: str, fresh: bool) -> Path:
    """`--run-dir`, or the newest run of the same settings, or a new directory named by the time."""
    if run_dir is not None:
        return Path(run_dir)
    if not fresh:
        for path in _runs(command):
            if path.parent == DEFAULT_ROOT and (read_manifest(path) or {}).get("identity") in identities:
                return path
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{command}")


def choose_folder(run_dir: str | None, name: str, identities: Mapping[str, Collection[str]], fresh: bool) -> Path:
    """`--run-dir`, or the scenario's newest folder, if its runs are of the same settings, or a new one."""
    if run_dir is not None:
        if read_manifest(Path(run_dir)) is not None:
            raise ConfigError(f"run directory {run_dir} holds a run of a single experiment; give another --run-dir")
        return Path(run_dir)
    for folder in sorted(DEFAULT_ROOT.glob(f"*-{name}"), reverse=True) if not fresh else ():
        found = {run.name: read_manifest(run) or {} for run in runs_in(folder) if run != folder}
        if found and all(manifest.get("identity") in identities.get(run, ()) for run, manifest in found.items()):
            return folder
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{name}")


@contextlib.contextmanager
def open_run(
    path: Path, manifest: Mapping[str, Any], fresh: bool = False, others: Sequence[Path] = ()
) -> Iterator[RunStore]:
    """Hold a run directory; one that another command's run lies in is a `ConfigError`.

    A run of the same command with other settings goes on in it: what is the same cell is found by its
    key, and the result of the other settings is set aside.
    """
    theirs = read_manifest(path)
    if theirs is None and any(path.glob("*/manifest.json")):
        raise ConfigError(f"run directory {path} holds the runs of a scenario; give another --run-dir")
    if theirs is None and any((path / name).exists() for name in ("result.json", "report.html", "cells.jsonl")):
        held = "files that are not a run of this version"
        raise ConfigError(f"run directory {path} holds {held}; give another --run-dir")
    if theirs is not None and theirs.get("command") != manifest.get("command"):
        raise ConfigError(f"run directory {path} holds a run of {theirs.get('command')}; give another --run-dir")
    store = RunStore(path, manifest, others)
    try:
        if fresh:
            store.set_aside("cells.jsonl", "study.journal", LOGGED)
            shutil.rmtree(path / "checkpoints", ignore_errors=True)
        if fresh or (theirs is not None and theirs["identity"] != manifest["identity"]):
            store.set_aside("result.json", "report.html", "answer.json")
        yield store
    finally:
        store.close()


def other_runs(path: Path, command: str) -> list[Path]:
    """The stored runs of a command but this one, the newest first: those of scenarios too."""
    return [other for other in _runs(command) if other != path]


def write_scenario(folder: Path, name: str, experiments: Sequence[str]) -> None:
    """Which runs belong into a scenario's folder, for `merge`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scenario.json").write_text(json.dumps({"scenario": name, "experiments": list(experiments)}) + "\n")
    except OSError as error:
        raise ConfigError(f"run directory {folder} cannot be written: {error.strerror}; give another") from None


def scenario_runs(folder: Path) -> list[str]:
    """The names of the runs that belong into a scenario's folder."""
    try:
        return list(json.loads((folder / "scenario.json").read_text())["experiments"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder} does not hold the runs of a scenario; give the folders of its shards") from None


def runs_in(path: Path) -> list[Path]:
    """A run directory itself, or those of a scenario's experiments in a folder."""
    inside = [manifest.parent for manifest in sorted(path.glob("*/manifest.json"))]
    return inside if inside and read_manifest(path) is None else [path]


def newest_run(*names: str) -> Path:
    """The run directory whose file of one of these names is the newest; a `ConfigError` where there is none."""
    found = [path for name in names for depth in ("*", "*/*") for path in DEFAULT_ROOT.glob(f"{depth}/{name}")]
    if not found:
        raise ConfigError(f"no run under {DEFAULT_ROOT}; run stresstest lr-range first, or give a RUN")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def planned_cells(path: Path, of: Literal["cells", "mine"] = "cells") -> list[str]:
    """The keys of the cells that belong to a run, or of its shard's."""
    try:
        return list(json.loads((path / "plan.json").read_text())[of])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def stored_status(path: Path) -> dict[str, str]:
    """The status of each cell on the disk, by key; the later line of a cell counts."""
    return {key: status for key, status, _ in _lines(path)}


def stored_cells(path: Path) -> dict[str, Cell]:
    """The cells on the disk, by key, as far as they are whole; one of another version is a `ConfigError`."""
    try:
        return {key: _cell(line) for key, _, line in _lines(path)}
    except _ForeignCellError as error:
        raise ConfigError(f"{path} holds cells of another version ({error}); the files were not changed") from None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run directory; `None` where it is none."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.keys() >= {"identity", "command", "again"} else None


def holder_of(path: Path) -> str | None:
    """Who holds a run directory, or `None`."""
    try:
        with (path / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read().strip() or "another process"
    except OSError:
        pass
    return None


def _runs(command: str) -> list[Path]:
    paths = [path.parent for path in (*DEFAULT_ROOT.glob("*/manifest.json"), *DEFAULT_ROOT.glob("*/*/manifest.json"))]
    return [path for path in sorted(paths, reverse=True) if (read_manifest(path) or {}).get("command") == command]


def _unused(path: Path) -> Path:
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


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
    lock.seek(0)
    lock.truncate()
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock


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


class _ForeignCellError(Exception):
    """Why a line is not a cell of this version."""


def _cell(line: bytes) -> Cell:
    from pydantic import ValidationError  # `status` reads no cell, and does without both

    from stresstest.results.cell import Cell

    try:
        return Cell.model_validate_json(line)
    except ValidationError as error:
        raise _ForeignCellError(error.errors()[0]["msg"]) from None


def _is_cell(line: bytes) -> bool:
    try:
        _cell(line)
    except _ForeignCellError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, status, line) of each whole line of a run's cells, without reading the rest of it."""
    try:
        lines = (path / "cells.jsonl").read_bytes().splitlines(keepends=True)
    except OSError:
        return
    for line in lines:
        start = _START.match(line)
        if start and line.endswith(b"}\n"):
            yield start[1].decode(), start[2].decode(), line
