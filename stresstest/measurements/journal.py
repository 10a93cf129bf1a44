"""What a group of cells has trained so far, on the disk every few minutes, so that it can go on from there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stresstest.errors import StoppedError
from stresstest.runs.stopping import stop_if_requested

SAVE_SECONDS = 120.0  # between two checkpoints, and before the first: short cells write none


class NotKeptError(Exception):
    """The state of what is in training cannot be written down: it starts anew."""


class Journal:
    """The courses of training that are finished, by key, and the state of the one under way.

    A checkpoint is a pickle: it is read from the run directory alone, whose owner wrote it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._finished: dict[str, Any] = {}
        self._under_way: tuple[str, Any] | None = None
        self._saved_at = time.monotonic()
        if path is not None and path.exists():
            with contextlib.suppress(Exception):  # cut short by a power loss, say: it costs its own training only
                self._finished, self._under_way = torch.load(path, map_location="cpu", weights_only=False)

    def finished(self, key: str) -> Any | None:
        """The result of a course that ended before."""
        return self._finished.get(key)

    def under_way(self, key: str) -> Any | None:
        """The state from which a course goes on, if it was interrupted."""
        return self._under_way[1] if self._under_way is not None and self._under_way[0] == key else None

    def finish(self, key: str, result: Any) -> None:
        """A course has ended."""
        self._finished[key] = result
        self._under_way = None

    def offer(self, key: str, state: Callable[[], Any]) -> None:
        """Training could go on from here: write it down if it is time or the process is asked to stop."""
        try:
            stop_if_requested()
        except StoppedError:
            self._save(key, state)
            raise
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self._save(key, state)

    def wait(self) -> None:
        """Nothing is in training: write down what is finished, likewise."""
        self.offer("", lambda: None)

    def _save(self, key: str, state: Callable[[], Any]) -> None:
        if self._path is None:
            return
        draft, stored = self._path.with_suffix(".part"), (self._finished, _now(key, state))
        self._saved_at = time.monotonic()
        try:
            self._path.parent.mkdir(exist_ok=True)
            torch.save(stored, draft)
            draft.replace(self._path)
        except (OSError, RuntimeError):  # a full disk: the training itself goes on
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def _now(key: str, state: Callable[[], Any]) -> tuple[str, Any] | None:
    try:
        return key, state()
    except NotKeptError:
        return None
