"""Where tasks run: in this process, or in spawned worker processes of one thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import FrameType
from typing import Generic, TypeVar

from stresstest.errors import ExitCode, InterruptedRunError
from stresstest.machine import limited_memory

Task = TypeVar("Task")
Answer = TypeVar("Answer")

# One thread a process: two OpenMP threads on a shared machine wait for each other.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_ATTEMPTS = 3
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Done(Generic[Task, Answer]):
    """A task that ended: with its answer, or with the text of what went wrong."""

    task: Task
    answer: Answer | None
    error: str = ""


def default_jobs(device: str) -> int:
    """As many processes as cores this process may use; one on a GPU."""
    if device != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    work: Callable[[Task], Answer], tasks: Sequence[Task], jobs: int, limited: bool = False
) -> Iterator[Done[Task, Answer]]:
    """Yield tasks as they end; a task that fails, or whose worker dies, fails alone.

    `limited` lets an allocation beyond the free memory fail in its task, on a CPU.

    SIGINT and SIGTERM raise `InterruptedRunError` at once: what was yielded is the caller's.
    """
    guarded = _Limited(work) if limited else work
    with _signals_raise() as signals:
        if jobs == 1 or len(tasks) == 1:
            yield from _here(guarded, tasks, signals)
        else:
            yield from _in_processes(guarded, tasks, min(jobs, len(tasks)), signals)


@dataclass(frozen=True)
class _Limited(Generic[Task, Answer]):
    """Work under a limit of memory (a class, so that it can be sent to another process)."""

    work: Callable[[Task], Answer]

    def __call__(self, task: Task) -> Answer:
        with limited_memory():
            return self.work(task)


class _Signals:
    """The signal that came, if any. What a handler raises is lost inside a destructor or a callback of
    the garbage collector, so it is asked for as well.
    """

    code: ExitCode | None = None

    def take(self, number: int, frame: FrameType | None) -> None:
        self.code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        self.check()

    def check(self) -> None:
        if self.code is not None:
            raise InterruptedRunError("interrupted", self.code)


def _here(work: Callable[[Task], Answer], tasks: Sequence[Task], signals: _Signals) -> Iterator[Done[Task, Answer]]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for task in tasks:
            signals.check()
            try:
                done = Done[Task, Answer](task, work(task))
            except InterruptedRunError:
                raise
            except Exception:
                done = Done(task, None, _tail(traceback.format_exc()))
            yield done
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    work: Callable[[Task], Answer], tasks: Sequence[Task], jobs: int, signals: _Signals
) -> Iterator[Done[Task, Answer]]:
    """A worker that dies can bring its pool down: what it took along is tried again in a new one."""
    from pebble import ProcessPool

    os.environ.update({name: value for name, value in _THREADS.items() if name not in os.environ})
    left = list(tasks)
    for attempt in range(1, _ATTEMPTS + 1):
        brought_down: list[Task] = []
        context = multiprocessing.get_context("spawn")
        pool = ProcessPool(max_workers=min(jobs, len(left)), context=context, initializer=_ignore_signals)
        try:
            futures: dict[Future[Answer], Task] = {pool.schedule(work, args=[task]): task for task in left}
            while futures:
                ended, _ = wait(futures, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                signals.check()
                for future in ended:
                    task, error = futures.pop(future), future.exception()
                    if isinstance(error, BrokenProcessPool) and attempt < _ATTEMPTS:
                        brought_down.append(task)
                    elif error is None:
                        yield Done(task, future.result())
                    else:
                        yield Done(task, None, _tail(str(getattr(error, "traceback", "") or repr(error))))
        finally:
            pool.stop()  # type: ignore[no-untyped-call]  # pebble is typed in part
            pool.join()
        if not brought_down:
            return
        left = brought_down


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _ignore_signals() -> None:
    """The driver alone decides what a signal means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _signals_raise() -> Iterator[_Signals]:
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals  # Python delivers signals to the main thread only
        return
    before = {number: signal.signal(number, signals.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
