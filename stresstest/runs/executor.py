"""Where tasks run: what every executor keeps to, and the one of this machine, processes of one thread each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from stresstest.engine.machine import limited_memory
from stresstest.errors import StoppedError
from stresstest.runs.stopping import Stopping, stopping
from stresstest.runs.worker_process import WorkerProcess, died, timed_out

Task = TypeVar("Task")
Answer = TypeVar("Answer")

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
                except BaseException as error:  # sys.exit in the user's code, say
                    if isinstance(error, KeyboardInterrupt) and not signals.heard_here:
                        raise
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
        free = [WorkerProcess(variables) for variables in self.workers[: None if hooks.idle else len(tasks)]]
        running: dict[Future[Answer], tuple[Attempt[Task], WorkerProcess]] = {}
        aside: dict[Future[Answer], WorkerProcess] = {}
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
                lost = {future for future, worker in _busy(running, aside) if not future.done() and worker.is_lost()}
                ended |= lost
                for future in ended & aside.keys():
                    worker = aside.pop(future)
                    free.append(worker)
                    worker.ended_with(future)
                for future in ended & running.keys():
                    attempt, worker = running.pop(future)
                    free.append(worker)
                    done = None if future in lost else _done(attempt.task, future)
                    worker.ended_with(future)
                    if done is None and attempt.number < ATTEMPTS:
                        waiting.appendleft(replace(attempt, number=attempt.number + 1))
                    elif done is None:
                        why = "exit code 0" if future in lost else _why(future)
                        said = f"{worker.last_words()}its worker died {ATTEMPTS} times; {why}"
                        yield Done(attempt.task, None, "crashed", said)
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


def _ask_to_stop() -> None:
    for child in multiprocessing.active_children():
        if child.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGINT)


def _done(task: Task, future: Future[Answer]) -> Done[Task, Answer] | None:
    """How a task ended; `None` if its worker died."""
    error = future.exception()
    if error is None:
        return Done(task, future.result())
    if died(future):
        return None
    if timed_out(future):
        return Done(task, None, "timeout", f"took longer than {error.args[-1]:g} s")
    return Done(task, None, "crashed", tail(str(getattr(error, "traceback", "") or repr(error))))


def _why(future: Future[Any]) -> str:
    code = getattr(future.exception(), "exitcode", None)
    if code is None:
        return "no exit code"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _busy(running: Mapping[Any, tuple[Any, WorkerProcess]], aside: Mapping[Any, WorkerProcess]) -> list[Any]:
    """(future, worker) of all tasks."""
    return [*((future, worker) for future, (_, worker) in running.items()), *aside.items()]


def tail(text: str, lines: int = 12) -> str:
    """The last lines of a text, where an error says what it is."""
    return "\n".join(text.strip().splitlines()[-lines:])
