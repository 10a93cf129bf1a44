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
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO

from stresstest.engine.machine import keep_out_of_git
from stresstest.errors import ConfigError, StorageError
from stresstest.results.sums import DamagedError, checked_json, digest, sealed_json
from stresstest.runs import cell_lines

if TYPE_CHECKING:
    from stresstest.results.progress import Progress
    from stresstest.results.records import Cell

DEFAULT_ROOT = Path(os.environ.get("STRESSTEST_RUNS") or ".stresstest/runs")
LOGGED = "logged.jsonl"  # which cells trackers were told of
DAMAGED = "damaged.jsonl"  # lines of cells that are not what was written
_AGAIN = "the line that made the run writes it anew"
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
        elif found.whole and not found.whole[-1].endswith(b"\n"):
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
                file.writelines(line.rstrip(b"\n") + b"\n" for line in found.whole)
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
                if key in wanted and status in statuses and cell_lines.is_whole(source, line)
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
                path.rename(path.with_suffix(f".{now}{path.suffix}"))

    def write_result(self, text: str) -> Path:
        """Write `result.json` at once or not at all."""
        return self._write("result.json", text)

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
        return self._write("answer.json", json.dumps({"verdicts": list(verdicts)}) + "\n")

    def close(self) -> None:
        """Let another driver in."""
        self._lock.close()

    def _write(self, name: str, text: str, durable: bool = True) -> Path:
        """At once or not at all, and unless it is soon written again, so that a power cut leaves it whole."""
        path = self.path / name
        draft = path.with_suffix(".part")
        with _written(self.path):
            with draft.open("w") as file:
                file.write(text)
                if durable:
                    _sync(file)
            draft.replace(path)
            if durable:
                _sync_folder(self.path)
        return path


def choose_directory(run_dir: str | None, identities: Collection[str], command: str, fresh: bool) -> Path:
    """`--run-dir`, or the newest run of the same settings, or a new directory named by the time."""
    if run_dir is not None:
        return Path(run_dir)
    if not fresh:
        for path in _runs(command):
            if path.parent == DEFAULT_ROOT and _manifest(path).get("identity") in identities:
                return path
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{command}")


def choose_folder(run_dir: str | None, name: str, identities: Mapping[str, Collection[str]], fresh: bool) -> Path:
    """`--run-dir`, or the scenario's newest folder, if its runs are of the same settings, or a new one."""
    if run_dir is not None:
        if read_manifest(Path(run_dir)) is not None:
            raise ConfigError(f"run directory {run_dir} holds a run of a single experiment; give another --run-dir")
        return Path(run_dir)
    for folder in sorted(DEFAULT_ROOT.glob(f"*-{name}"), reverse=True) if not fresh else ():
        found = {run.name: _manifest(run) for run in runs_in(folder) if run != folder}
        if found and all(manifest.get("identity") in identities.get(run, ()) for run, manifest in found.items()):
            return folder
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{name}")


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
    """The keys of the cells that belong to a run, or of its shard's; a plan that is damaged is a `DamagedError`."""
    plan = _read_json(path / "plan.json")
    return list(plan[of]) if isinstance(plan, dict) and of in plan else []


def stored_status(path: Path) -> dict[str, str]:
    """The status of each cell on the disk, by key; the later line counts, and one that is damaged does not."""
    return {key: status for key, status, _ in cell_lines.whole_lines(path)}


def stored_cells(path: Path) -> dict[str, Cell]:
    """The cells on the disk, by key, as far as they are whole; one of another version is a `ConfigError`."""
    try:
        return {key: cell_lines.cell_of(line)[0] for key, _, line in cell_lines.whole_lines(path)}
    except cell_lines.ForeignCellError as error:
        raise ConfigError(f"{path} holds cells of another version ({error}); the files were not changed") from None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run directory; `None` where it is none, a `DamagedError` where it is not what was written."""
    manifest = _read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or not manifest.keys() >= {"identity", "command", "again"}:
        return None
    return manifest


def _read_json(file: Path) -> Any:
    """What is in a file, `None` where there is none; what is not what was written is a `DamagedError`."""
    try:
        stored = json.loads(file.read_bytes())
    except OSError:
        return None
    except ValueError:
        raise DamagedError(f"{file} is damaged (it cannot be read); {_AGAIN}") from None
    return checked_json(stored, file, _AGAIN) if isinstance(stored, dict) else stored


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
    return [path for path in sorted(paths, reverse=True) if _manifest(path).get("command") == command]


def _manifest(path: Path) -> Mapping[str, Any]:
    """The manifest among many, where one that is damaged says nothing."""
    with contextlib.suppress(DamagedError):
        return read_manifest(path) or {}
    return {}


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
