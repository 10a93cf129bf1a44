"""Copies of a training state that are taken while all is well, to go back to: two at most, the older one proven."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from stresstest.errors import ConfigError

Keep = Literal["memory", "disk"]


class Stateful(Protocol):
    """What can be copied and set back: a model, an optimizer, a scheduler."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass
class Copy:
    """A training state after a step, None of one before the first; its tensors are on the CPU, or in `path`."""

    step: int | None
    state: dict[str, Any] | None = None
    path: Path | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        return "start.pt" if self.step is None else f"step-{self.step}.pt"


class Copies:
    """Copies the state of `parts` every so many steps into memory or files; writes those of a break to `folder`.

    A new copy takes the place of the older of two: while it is new it may hold a break that is not yet seen.
    """

    def __init__(self, parts: Mapping[str, Stateful], folder: Path, every: int, keep: Keep) -> None:
        self._parts = parts
        self._folder = folder
        self._keep = keep
        self.every = every
        self._tried: int | None = None  # the step of the last copy, also of one that failed
        self._kept: list[Copy] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(f"watch: cannot write to {folder}: {error.strerror}; give checkpoint= another") from None

    def due(self, step: int) -> bool:
        """Whether it is time for the next copy."""
        return step - (-1 if self._tried is None else self._tried) >= self.every

    def skip(self, step: int | None) -> None:
        """Wait for the next turn: the copy of this step failed."""
        self._tried = step

    def take(self, step: int | None, watch_state: dict[str, Any]) -> None:
        """Copy what is there now; raises an OSError or RuntimeError where it cannot be written."""
        state: dict[str, Any] = {"step": step, "watch": watch_state}
        state |= {name: _on_cpu(part.state_dict()) for name, part in self._parts.items()}
        copy = Copy(step, state)
        if self._keep == "disk":
            self._write(copy)
            copy.state = None
        self._kept.append(copy)
        self._tried = step
        while len(self._kept) > 2:
            self._forget(self._kept.pop(0))

    def before(self, first_bad_step: int) -> Copy | None:
        """The newest copy that led to a good loss; newer ones are dropped."""
        while self._kept and not _leads_to_good(self._kept[-1], first_bad_step):
            self._forget(self._kept.pop())
            self._tried = self._kept[-1].step if self._kept else None
        return self._kept[-1] if self._kept else None

    def write(self, copy: Copy) -> Path:
        """Put a copy into its file, where it is not there yet."""
        if copy.path is None:
            self._write(copy)
        assert copy.path is not None
        return copy.path

    def restore(self, copy: Copy) -> dict[str, Any]:
        """Set everything back to a copy; returns the watch's own part of it."""
        state = copy.state
        if state is None:
            assert copy.path is not None
            state = torch.load(copy.path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(_on_cpu(state[name]))  # an optimizer goes on with the tensors that it is given
        watch_state: dict[str, Any] = state["watch"]
        return watch_state

    def _write(self, copy: Copy) -> None:
        path = self._folder / copy.name
        write_whole(path, lambda partial: torch.save(copy.state, partial))
        copy.path = path

    def _forget(self, copy: Copy) -> None:
        if self._keep == "disk" and copy.path is not None:
            copy.path.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file such that it is there whole or not at all, also after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _leads_to_good(copy: Copy, first_bad_step: int) -> bool:
    """Whether the loss after it, that of the next step, was still good."""
    return copy.step is None or copy.step + 2 <= first_bad_step


def _on_cpu(state: Any) -> Any:
    """A copy of it in which every tensor is one of its own, on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return (
            type(state)(_on_cpu(value) for value in state)
            if type(state) in (list, tuple)
            else list(map(_on_cpu, state))
        )
    return state
