"""Where tasks run: what every executor keeps to, and the one of this machine, processes of one thread each."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from stresstest.engine.machine import limited_memory
from stresstest.errors import StoppedError
from stresstest.runs.stopping import SIGNALS, Stopping, listen, signals_blocked, stopping

if TYPE_CHECKING:
    from pebble import ProcessPool

Task = TypeVar("Task")
Answer = TypeVar("Answer")

# One thread a process: two OpenMP threads on a shared machine wait for each other.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ATTEMPTS = 3
POLL_SECONDS = 0.25

Failure = Literal["", "crashed", "timeout"]


@dataclass(frozen=True)
class Done(Generic[Task, Answer]):
    """A task that ended: with its answer, or with what went wrong and its text."""

    task: Task
    answer: Answer | None
    failure: Failure = ""
    error: str = ""


@dataclass(frozen=True)
class Hooks:
    """What the driver hears of: each task as it starts, and that a signal asked the run to stop.

    idle: what a worker may do meanwhile that has no task, if anything; nobody waits for it, and no answer is yielded.
    """

    on_start: Callable[[Any], None] = lambda task: None
    on_stop: Callable[[], None] = lambda: None
    idle: Callable[[], Any | None] | None = None


class Executor(Protocol):
    """Where tasks run. Every implementation keeps to what `run` says."""

    def run(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks = Hooks()
    ) -> Generator[Done[Task, Answer], None, None]:
        """Yield tasks as they end; one that fails, or whose worker dies, fails alone.

        A task whose worker died is tried again, at most twice. The first SIGINT or SIGTERM starts
        nothing new and asks what runs to stop (`stop_if_requested`); then `InterruptedRunError`
        is raised. A second one raises it at once. To leave early, close the generator.
        """


@dataclass(frozen=True)
class Local:
    """Worker processes on this machine, each with these environment variables; one alone is this process.

    timeout: seconds that a task may take; `None` for no limit.
    limited: an allocation beyond the free memory fails in its task (on a CPU).
    """

    workers: Sequence[Mapping[str, str]] = ({},)
    timeout: float | None = None
    limited: bool = False

    def run(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks = Hooks()
    ) -> Generator[Done[Task, Answer], None, None]:
        """See `Executor`."""
        guarded: Callable[[Task], Answer] = _Limited(work) if self.limited else work
        with stopping(hooks.on_stop) as signals:
            if self.timeout is None and (len(self.workers) == 1 or len(tasks) == 1):
                yield from self._here(guarded, tasks, hooks, signals)
            else:
                yield from self._in_processes(guarded, tasks, hooks, signals)

    def _here(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks, signals: Stopping
    ) -> Iterator[Done[Task, Answer]]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for task in tasks:
                if signals.code is not None:
                    raise signals.error
                hooks.on_start(task)
                try:
                    done = Done[Task, Answer](task, work(task))
                except StoppedError:
                    raise signals.error from None
                except Exception:
                    done = Done(task, None, "crashed", tail(traceback.format_exc()))
                yield done
            if signals.code is not None:
                raise signals.error
        finally:
            torch.set_num_threads(threads)

    def _in_processes(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks, signals: Stopping
    ) -> Iterator[Done[Task, Answer]]:
        waiting = deque(Attempt(task) for task in tasks)
        free = [_Worker(variables) for variables in self.workers[: None if hooks.idle else len(tasks)]]
        running: dict[Future[Answer], tuple[Attempt[Task], _Worker]] = {}
        aside: dict[Future[Answer], _Worker] = {}
        try:
            while running or (waiting and signals.code is None):
                while free and waiting and signals.code is None:
                    attempt, worker = waiting.popleft(), free.pop()
                    running[worker.start(work, attempt.task, self.timeout)] = attempt, worker
                    hooks.on_start(attempt.task)
                while hooks.idle and free and signals.code is None and (more := hooks.idle()) is not None:
                    worker = free.pop()
                    aside[worker.start(work, more, self.timeout)] = worker
                ended, _ = wait([*running, *aside], timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                signals.check()
                if signals.code is not None:  # again and again: a worker that starts up does not listen yet
                    _ask_to_stop()
                for future in ended & aside.keys():
                    worker = aside.pop(future)
                    free.append(worker)
                    worker.replaced |= _took_its_worker(future)
                for future in ended & running.keys():
                    attempt, worker = running.pop(future)
                    free.append(worker)
                    done = _done(attempt.task, future)
                    worker.replaced |= _took_its_worker(future)
                    if done is None and attempt.number < ATTEMPTS:
                        waiting.appendleft(replace(attempt, number=attempt.number + 1))
                    elif done is None:
                        yield Done(attempt.task, None, "crashed", worker.last_words() + _why(future))
                    elif not isinstance(future.exception(), StoppedError):
                        yield done
            if signals.code is not None:
                raise signals.error
        finally:
            for worker in (*free, *aside.values(), *(worker for _, worker in running.values())):
                worker.close()


@dataclass(frozen=True)
class Attempt(Generic[Task]):
    """A task, and how often it was begun."""

    task: Task
    number: int = 1


class _Worker:
    """One process with a pool of its own: it takes nobody along when it dies."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._pool: ProcessPool | None = None
        self.replaced = False  # pebble has started, or starts, another process
        self._last_words = tempfile.NamedTemporaryFile("r")  # noqa: SIM115  # for as long as the worker

    def last_words(self) -> str:
        """What the interpreter could still say when the process last died: why, and the innermost calls."""
        said = self._last_words.read()
        lines = [line for line in said[max(0, said.rfind("Fatal Python error")) :].splitlines() if line]
        return "".join(f"{line}\n" for line in lines[:8])

    def start(self, work: Callable[[Task], Answer], task: Task, timeout: float | None) -> Future[Answer]:
        if self._pool is not None and not self._pool.active:
            self._end_pool()
        with _blocked_signals():
            if self._pool is None:
                self._pool = _new_pool({**THREADS, **self._variables}, self._last_words.name)
            return self._pool.schedule(work, args=[task], timeout=timeout)

    def close(self) -> None:
        self._end_pool()
        self._last_words.close()

    def _end_pool(self) -> None:
        if self._pool is not None:
            if self.replaced and self._pool.active:  # which complains when it is ended as it starts
                with contextlib.suppress(Exception):
                    self._pool.schedule(int).result(timeout=30.0)
            self._pool.stop()  # type: ignore[no-untyped-call]  # pebble is typed in part
            self._pool.join()
        self._pool, self.replaced = None, False


def local_workers(device: str, jobs: int | None, per_gpu: int = 1) -> list[Mapping[str, str]]:
    """The environment of each worker: by default as many as cores, or `per_gpu` on every GPU.

    `cuda` means every GPU that this process sees, `cuda:1` that one.
    """
    if device == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return [{}] * (jobs or cores)
    if device != "cuda":
        return [{}] * (jobs or per_gpu)
    import torch

    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpus = names if len(names) == count > 1 else [str(i) for i in range(count)]
    if len(gpus) < 2:
        return [{}] * (jobs or per_gpu)
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs or per_gpu * len(gpus))]


@dataclass(frozen=True)
class _Limited(Generic[Task, Answer]):
    """Work under a limit of memory (a class, so that it can be sent to another process)."""

    work: Callable[[Task], Answer]

    def __call__(self, task: Task) -> Answer:
        with limited_memory():
            return self.work(task)


def _new_pool(variables: Mapping[str, str], last_words: str) -> ProcessPool:
    from pebble import ProcessPool

    context = multiprocessing.get_context("spawn")
    return ProcessPool(max_workers=1, context=context, initializer=_start_worker, initargs=[variables, last_words])


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """For the start of a pool, whose tracker of resources would unblock them."""
    resource_tracker.ensure_running()
    with signals_blocked():
        yield


def _ask_to_stop() -> None:
    for child in multiprocessing.active_children():
        if child.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGINT)


def _start_worker(variables: Mapping[str, str], last_words: str) -> None:
    """One thread; the driver alone decides what a signal means: SIGINT, which it sends on, asks to stop."""
    os.environ.update(variables)
    import torch

    torch.set_num_threads(1)
    faulthandler.enable(os.open(last_words, os.O_WRONLY | os.O_APPEND))
    threading.Thread(target=_end_with_driver, daemon=True).start()
    signal.signal(signal.SIGINT, listen)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None, "a worker has a driver"
    connection.wait([driver.sentinel])
    os._exit(1)


def _took_its_worker(future: Future[Any]) -> bool:
    """Whether a task's worker died, or was ended as it took too long."""
    return _died(future) or _timed_out(future)


def _died(future: Future[Any]) -> bool:
    from pebble import ProcessExpired

    return isinstance(future.exception(), ProcessExpired | BrokenProcessPool)


def _timed_out(future: Future[Any]) -> bool:
    error = future.exception()
    return isinstance(error, TimeoutError) and getattr(error, "traceback", None) is None


def _done(task: Task, future: Future[Answer]) -> Done[Task, Answer] | None:
    """How a task ended; `None` if its worker died."""
    error = future.exception()
    if error is None:
        return Done(task, future.result())
    if _died(future):
        return None
    if _timed_out(future):
        return Done(task, None, "timeout", f"took longer than {error.args[-1]:g} s")
    return Done(task, None, "crashed", tail(str(getattr(error, "traceback", "") or repr(error))))


def _why(future: Future[Any]) -> str:
    code = getattr(future.exception(), "exitcode", None)
    if code is None:
        how = "no exit code"
    else:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its worker died {ATTEMPTS} times; {how}"


def tail(text: str, lines: int = 12) -> str:
    """The last lines of a text, where an error says what it is."""
    return "\n".join(text.strip().splitlines()[-lines:])
