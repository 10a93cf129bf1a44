"""A process that trains: started apart from signals, ended with all that the user's code started in it."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stresstest.runs.stopping import SIGNALS, listen, signals_blocked

if TYPE_CHECKING:
    from pebble import ProcessPool

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_SPOILT = "spoilt"
_LOST_SECONDS = 2.0  # until pebble has told of a process that died

# One thread a process: two OpenMP threads on a shared machine wait for each other.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class WorkerProcess:
    """One process with a pool of its own: it takes nobody along when it dies, and leaves nobody behind."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._pool: ProcessPool | None = None
        self._replaced = False  # pebble has started, or starts, another process
        self._spoilt = False
        self._lost_at: float | None = None  # when a process was seen to be gone whose task has not ended
        self._last_words = tempfile.NamedTemporaryFile("r")  # noqa: SIM115  # for as long as the worker
        self._born = tempfile.NamedTemporaryFile("r")  # noqa: SIM115  # the ids of its processes, a line each
        self._living: set[int] = set()

    def last_words(self) -> str:
        """What the interpreter could still say when the process last died: why, and the innermost calls."""
        said = self._last_words.read()
        lines = [line for line in said[max(0, said.rfind("Fatal Python error")) :].splitlines() if line]
        return "".join(f"{line}\n" for line in lines[:8])

    def start(self, work: Callable[[Task], Answer], task: Task, timeout: float | None) -> Future[Answer]:
        if self._pool is not None and (self._spoilt or not self._pool.active):
            self._end_pool()
        with _blocked_signals():
            if self._pool is None:
                self._pool = _new_pool({**THREADS, **self._variables}, self._last_words.name, self._born.name)
            self._lost_at = None
            return self._pool.schedule(work, args=[task], timeout=timeout)

    def is_lost(self) -> bool:
        """Whether the process of a task has ended with exit code 0, which pebble does not tell."""
        if self._end_children() and self._lost_at is None:
            self._lost_at = time.monotonic()
        return self._lost_at is not None and time.monotonic() - self._lost_at > _LOST_SECONDS

    def ended_with(self, future: Future[Any]) -> None:
        """A task has ended, maybe with the process; one that it spoilt trains no other."""
        if not future.done():
            self._end_pool()
        elif died(future) or timed_out(future):
            self._replaced = True
        self._end_children()

    def close(self) -> None:
        self._end_pool()
        self._last_words.close()
        self._born.close()

    def _end_pool(self) -> None:
        if self._pool is not None:
            if self._replaced and self._pool.active:  # which complains when it is ended as it starts
                with contextlib.suppress(Exception):
                    self._pool.schedule(int).result(timeout=30.0)
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble is typed in part
            self._pool.join()
            self._end_children()
        self._pool, self._replaced, self._spoilt = None, False, False

    def _end_children(self) -> bool:
        """End what the user's code started in processes that have ended, at once: it is of their group.

        Returns whether any has ended since this was asked last.
        """
        said = self._born.read().split()
        self._spoilt |= _SPOILT in said
        self._living |= {int(word) for word in said if word != _SPOILT}
        ended = self._living - {child.pid for child in multiprocessing.active_children()}
        for group in ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._living -= ended
        return bool(ended)


def died(future: Future[Any]) -> bool:
    from pebble import ProcessExpired

    return isinstance(future.exception(), ProcessExpired | BrokenProcessPool)


def timed_out(future: Future[Any]) -> bool:
    error = future.exception()
    return isinstance(error, TimeoutError) and getattr(error, "traceback", None) is None


def _new_pool(variables: Mapping[str, str], *files: str) -> ProcessPool:
    from pebble import ProcessPool

    context = multiprocessing.get_context("spawn")
    return ProcessPool(max_workers=1, context=context, initializer=_start_worker, initargs=[variables, *files])


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """For the start of a pool, whose tracker of resources would unblock them."""
    resource_tracker.ensure_running()
    with signals_blocked():
        yield


def _start_worker(variables: Mapping[str, str], last_words: str, born: str) -> None:
    """One thread; the driver alone decides what a signal means: SIGINT, which it sends on, asks to stop.

    With a group of its own, and what is written to its standard output is on stderr: results alone are on the driver's.
    """
    global _born
    os.environ.update(variables)
    os.setpgid(0, 0)
    _born = Path(born)
    _tell(str(os.getpid()))
    with contextlib.suppress(OSError):  # stderr may be closed
        os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
    faulthandler.enable(os.open(last_words, os.O_WRONLY | os.O_APPEND))
    threading.Thread(target=_end_with_driver, daemon=True).start()
    signal.signal(signal.SIGINT, listen)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


_born: Path | None = None  # of this process, where it is a worker


def spoil_process() -> None:
    """This process, if it is a worker, should train no more: it is full, or something runs in it."""
    _tell(_SPOILT)


def _tell(word: str) -> None:
    if _born is not None:
        with contextlib.suppress(OSError), _born.open("a") as file:
            file.write(f"{word}\n")


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None, "a worker has a driver"
    connection.wait([driver.sentinel])
    os.killpg(0, signal.SIGKILL)  # with what the user's code started
