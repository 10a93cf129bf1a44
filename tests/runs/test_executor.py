"""Tasks here and in worker processes: each is answered, and each fails alone."""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest

from stresstest.errors import ExitCode, InterruptedRunError
from stresstest.runs.executor import Done, default_jobs, run_tasks

one_over = partial(operator.truediv, 1.0)
both = pytest.mark.parametrize("jobs", [1, 2])


def call(function: Callable[[], object]) -> object:
    return function()


@both
def test_every_task_is_answered(jobs: int) -> None:
    done = list(run_tasks(one_over, [1.0, 2.0, 4.0, 8.0, 16.0], jobs))
    assert {each.task: each.answer for each in done} == {1.0: 1.0, 2.0: 0.5, 4.0: 0.25, 8.0: 0.125, 16.0: 0.0625}
    assert not any(each.error for each in done)


def test_two_jobs_are_other_processes_and_one_job_is_this_one() -> None:
    ask = operator.methodcaller("__call__")
    assert {each.answer for each in run_tasks(ask, [os.getpid] * 2, 1)} == {os.getpid()}
    elsewhere = {each.answer for each in run_tasks(ask, [os.getpid] * 4, 2)}
    assert os.getpid() not in elsewhere
    assert 1 <= len(elsewhere) <= 2


def test_a_worker_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    answers = [each.answer for each in run_tasks(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"], 2)]
    assert answers == ["1", "1"]


@both
def test_a_task_that_raises_fails_alone_with_the_end_of_its_traceback(jobs: int) -> None:
    done = {each.task: each for each in run_tasks(one_over, [2.0, 0.0, 4.0], jobs)}
    assert (done[2.0].answer, done[4.0].answer) == (0.5, 0.25)
    assert done[0.0].answer is None
    assert 'File "' in done[0.0].error
    assert done[0.0].error.splitlines()[-1] == "ZeroDivisionError: float division by zero"


def test_a_worker_that_is_killed_fails_its_own_task_only() -> None:
    killer = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    die: partial[object] = partial(subprocess.run, [sys.executable, "-c", killer])
    tasks: list[partial[object]] = [partial(abs, -1), die, partial(abs, -2), partial(abs, -3)]
    done: dict[int, Done[partial[object], object]] = {
        tasks.index(each.task): each for each in run_tasks(operator.methodcaller("__call__"), tasks, 2)
    }
    assert [done[i].answer for i in range(4)] == [1, None, 2, 3]
    assert [bool(done[i].error) for i in range(4)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_a_signal_stops_the_run_and_then_means_what_it_meant(number: signal.Signals, code: ExitCode) -> None:
    before = signal.getsignal(number)
    tasks: list[Callable[[], object]] = [float, partial(signal.raise_signal, number), float]
    running = run_tasks(call, tasks, 1)
    assert next(running).answer == 0.0
    with pytest.raises(InterruptedRunError) as caught:
        next(running)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before


@both
def test_a_signal_in_a_destructor_is_not_lost(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_type))
    running = run_tasks(one_over, [1.0, 2.0, 4.0, 8.0], jobs)
    next(running)
    Interrupts()
    assert ignored == [InterruptedRunError]
    with pytest.raises(InterruptedRunError):
        list(running)


def test_a_signal_ends_the_workers_at_once() -> None:
    ask = operator.methodcaller("__call__")
    tasks = [partial(os.kill, os.getpid(), signal.SIGINT), partial(time.sleep, 3600), partial(time.sleep, 3600)]
    with pytest.raises(InterruptedRunError):
        list(run_tasks(ask, tasks, 2))
    assert multiprocessing.active_children() == []


def test_as_many_jobs_as_cores_and_one_on_a_gpu() -> None:
    assert 1 <= default_jobs("cpu") <= (os.cpu_count() or 1)
    assert default_jobs("cuda") == default_jobs("cuda:1") == 1
