"""A loader's worker processes, started by whichever process of ours reads: as in the user's script."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from typing import Any, Protocol
from weakref import WeakSet

from torch._C import _error_if_any_worker_fails

from stresstest.user_model.dataloader.importable import let_children_import

_DYING = 0.2  # seconds that a process is given to be seen dead
_torchs: list[Any] = []  # its handler of SIGCHLD, once it has set it


class Reader(Protocol):
    """What reads from workers."""

    def close(self) -> None:
        """End them."""
        ...


_readers: WeakSet[Reader] = WeakSet()
_seen_to: set[int] = set()  # processes
_FIRST = 100  # before all that multiprocessing does when a process ends


def end_with_the_process(reader: Reader) -> None:
    """Let its workers end before the process does, which removes the folder of their sockets: a traceback each."""
    if os.getpid() not in _seen_to:  # a forked process has none of its parent's
        _seen_to.add(os.getpid())
        Finalize(None, _end_all, exitpriority=_FIRST)  # of a process that multiprocessing has started
        atexit.register(_end_all)  # before torch's own handler, after which no loader ends its workers
    _readers.add(reader)


def _end_all() -> None:
    for reader in list(_readers):
        reader.close()


@contextmanager
def of_workers(loader: Any) -> Iterator[None]:
    """While this lasts, a loader may start workers and read from them, and their deaths are told; not afterwards."""
    if not getattr(loader, "num_workers", 0):
        yield
        return
    with _started_as_in_a_script(loader), _deaths_are_told():
        yield


def death_of_worker(batches: Any) -> str | None:
    """What became of a worker that has died, in words; `None` where none has."""
    for number, worker in enumerate(getattr(batches, "_workers", ())):
        worker.join(_DYING)
        if worker.exitcode:
            code = worker.exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return f"worker {number} of the loader {how}; is there memory enough for it?"
    return None


@contextmanager
def _started_as_in_a_script(loader: Any) -> Iterator[None]:
    """Our own workers are spawned, and would spawn theirs; the platform's default takes data that cannot be pickled."""
    config: dict[str, Any] = getattr(multiprocessing.current_process(), "_config", {})
    before, daemon = multiprocessing.get_start_method(), config.get("daemon")
    ours = multiprocessing.parent_process() is not None
    if ours:
        config["daemon"] = False  # else Python forbids it to have children; those end with it
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    context = getattr(loader, "multiprocessing_context", None) or multiprocessing
    if context.get_start_method() != "fork":
        let_children_import()
    try:
        yield
    finally:
        if ours:
            config["daemon"] = daemon
            multiprocessing.set_start_method(before, force=True)


@contextmanager
def _deaths_are_told() -> Iterator[None]:
    """torch raises in the main thread, wherever that is, when a worker dies: only in here, and what died before."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    if _torchs:
        signal.signal(signal.SIGCHLD, _torchs[0])
        _error_if_any_worker_fails()
    try:
        yield
    finally:
        now = signal.getsignal(signal.SIGCHLD)
        if now is not before and before is not None:
            _torchs[:] = [now]
            signal.signal(signal.SIGCHLD, before)
