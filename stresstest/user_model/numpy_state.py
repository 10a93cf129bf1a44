"""Where numpy's global generator stands, read and set in microseconds: numpy copies its 624 words one by one.

This is done around each step of each replica, and took a tenth of a small model's step.
"""

from __future__ import annotations

import ctypes
from typing import Any, cast

import numpy as np
from numpy.random import MT19937

_BYTES = 625 * 4  # of the struct mt19937_state: 624 words and the position among them


class _Words:
    """Stands for a bit generator while its `state` is asked for: the bytes of it, as they lie in memory."""

    def __init__(self, generator: MT19937) -> None:
        self.generator = generator
        self._address: Any = generator.ctypes.state_address

    @property
    def state(self) -> dict[str, Any]:
        return {"bit_generator": "MT19937", "state": ctypes.string_at(self._address, _BYTES)}

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        ctypes.memmove(self._address, value["state"], _BYTES)

    @property
    def are_there(self) -> bool:
        """Whether its words lie where this looks for them."""
        theirs = self.generator.state["state"]
        key, position = np.asarray(theirs["key"], np.uint32), np.array([theirs["pos"]], np.int32)
        return bool(self.state["state"] == key.tobytes() + position.tobytes())


def numpy_now() -> Any:
    """The state of numpy's global generator, for `put_numpy` alone."""
    them = _global()
    words = _words(them)
    if words is None:
        return np.random.get_state(legacy=False)
    them._bit_generator = words
    try:
        return them.get_state(legacy=False)
    finally:
        them._bit_generator = words.generator


def put_numpy(state: Any) -> None:
    """Let numpy's global generator stand where it stood."""
    them = _global()
    words = _words(them) if isinstance(state["state"], bytes) else None
    if words is None:
        np.random.set_state(state)
        return
    them._bit_generator = words
    try:
        them.set_state(state)  # with the half of a pair of normal numbers that is left
    finally:
        them._bit_generator = words.generator


def _global() -> Any:
    """The object behind `numpy.random.rand` and the like."""
    return cast(Any, np.random.mtrand)._rand


_found: list[tuple[Any, _Words | None]] = []  # the last generator that was looked at


def _words(them: Any) -> _Words | None:
    """The words of the global generator; `None` of one that is no MT19937, or that lies otherwise in memory."""
    generator = getattr(them, "_bit_generator", None)
    if not _found or _found[0][0] is not generator:
        words = _Words(generator) if type(generator) is MT19937 else None
        _found[:] = [(generator, words if words is not None and words.are_there else None)]
    return _found[0][1]
