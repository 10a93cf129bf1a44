"""The JSON lines beside a watched run: a header, a line for each step, a line for each event."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import weakref
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError
from stresstest.installation import DISTRIBUTION

_FLUSH_SECONDS = 1.0
_open_ones: weakref.WeakSet[Journal] = weakref.WeakSet()


class Journal:
    """Appends to a file. Lines of events have no key `step` or `loss`: `diagnose` does not read them as rows.

    NaN and infinity are strings, as strict JSON wants it. A disk that fails later ends the journal, not the training.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        if any(path.resolve() == one.path.resolve() for one in _open_ones):
            raise ConfigError(
                f"watch: another watch writes {path}; give log= another path, or close() that one, or log=None"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut = _ends_in_mid_line(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"watch: cannot write {path}: {error.strerror}; give log= another path, or None"
            ) from None
        _open_ones.add(self)
        self._flushed = time.monotonic()
        if cut:
            self._file.write("\n")
        self._write({"event": "started", "watch": 1, "stresstest": _version(), "settings": dict(settings)})
        self._flush()

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """The line of a step."""
        self._write({"step": step, **{name: _strict(value) for name, value in values.items()}})
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush()

    def event(self, kind: str, at_step: int, **facts: object) -> None:
        """The line of an event; it is on the disk when this returns."""
        self._write({"event": kind, "at_step": at_step, **{name: _strict(value) for name, value in facts.items()}})
        self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        _open_ones.discard(self)
        if not self._file.closed:
            self._file.close()

    def silence(self) -> None:
        """Let a forked process write nothing: what is buffered is its parent's to write."""
        if not self._file.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._file.fileno())
            os.close(nowhere)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            self._give_up(error)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._file.closed:
            return
        try:
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print(f"stresstest watch: no more is written to {self.path}: {error.strerror}", file=sys.stderr)
        try:
            self._file.close()
        except OSError:
            return


def _silence_all() -> None:
    for one in _open_ones:
        one.silence()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_silence_all)


def _ends_in_mid_line(path: Path) -> bool:
    """Whether a process was killed while it wrote."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read(1) != b"\n"


def _strict(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
