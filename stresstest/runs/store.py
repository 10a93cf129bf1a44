"""The run directory: a manifest, one durable line per finished cell, curves, the result.

Only the driver writes, and a finished cell is on the disk before the next one is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from stresstest.errors import ConfigError
from stresstest.results import Cell

DEFAULT_ROOT = Path(".stresstest/runs")


class RunStore:
    """One run directory, held by one driver."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self._lock = _claim(path)
        self._write("manifest.json", json.dumps(manifest, indent=1) + "\n")

    def finished(self) -> dict[str, Cell]:
        """The cells on the disk by key; a last line cut short by a crash is dropped."""
        cells: dict[str, Cell] = {}
        path = self.path / "cells.jsonl"
        if not path.exists():
            return cells
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                cell = Cell.model_validate_json(line)
            except ValidationError as error:
                if number == len(lines) and not line.endswith(b"\n"):
                    os.truncate(path, sum(map(len, lines[:-1])))
                    break
                raise ConfigError(
                    f"{path}:{number} is not a cell of this version ({error.errors()[0]['msg']}); "
                    "it was left as it is: use --fresh, or another --run-dir"
                ) from None
            cells[cell.key] = cell
        if lines and path.read_bytes()[-1:] not in (b"\n", b""):
            with path.open("a") as file:  # whole but for its end: the next cell starts a line of its own
                file.write("\n")
        return cells

    def append(self, cell: Cell, curves: Mapping[str, Any]) -> None:
        """Make a finished cell durable: its curves first, then its line, flushed and synced."""
        if curves:
            import numpy as np

            folder = self.path / "curves"
            folder.mkdir(exist_ok=True)
            np.savez_compressed(folder / f"{cell.key}.npz", **curves)
        with (self.path / "cells.jsonl").open("a") as file:
            file.write(cell.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget(self) -> None:
        """Start over: the cells of this directory are set aside, not read (`--fresh`)."""
        path = self.path / "cells.jsonl"
        if path.exists():
            path.rename(path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"))

    def write_result(self, text: str) -> Path:
        """Write `result.json` at once or not at all."""
        return self._write("result.json", text)

    def write_report(self, text: str) -> Path:
        """Write `report.html` at once or not at all."""
        return self._write("report.html", text)

    def close(self) -> None:
        """Let another driver in."""
        self._lock.close()

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        draft = path.with_suffix(".part")
        draft.write_text(text)
        draft.replace(path)
        return path


def choose_directory(run_dir: str | None, identity: str, command: str, fresh: bool) -> Path:
    """`--run-dir`, or the newest run of the same settings, or a new directory named by the time."""
    if run_dir is not None:
        return Path(run_dir)
    if not fresh:
        for path in sorted(DEFAULT_ROOT.glob(f"*-{command}"), reverse=True):
            if _identity_of(path) == identity:
                return path
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{command}")


@contextlib.contextmanager
def open_run(path: Path, manifest: Mapping[str, Any], fresh: bool = False) -> Iterator[RunStore]:
    """Hold a run directory; a run with other settings under the same path is a `ConfigError`."""
    theirs = _identity_of(path)
    if theirs is None and any((path / name).exists() for name in ("result.json", "report.html", "cells.jsonl")):
        raise ConfigError(f"run directory {path} holds files that are no run of this tool; give another --run-dir")
    if theirs is not None and theirs != manifest["identity"] and not fresh:
        raise ConfigError(f"run directory {path} holds a run with other settings; use another --run-dir, or --fresh")
    store = RunStore(path, manifest)
    try:
        if fresh:
            store.forget()
        yield store
    finally:
        store.close()


def _unused(path: Path) -> Path:
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.split('_')[0]}_{number}")
    return path


def _identity_of(path: Path) -> str | None:
    try:
        identity = json.loads((path / "manifest.json").read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(identity)


def _claim(path: Path) -> TextIO:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "lock").open("a+")
    except OSError as error:
        raise ConfigError(
            f"run directory {path} cannot be written ({error.strerror}); give another --run-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise ConfigError(f"run directory {path} is in use by {holder}; wait, or give another --run-dir") from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"process {os.getpid()}")
    lock.flush()
    return lock
