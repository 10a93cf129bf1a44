"""Tasks here and in worker processes: each is answered, and each fails alone."""

from __future__ import annotations

import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from stresstest.errors import ExitCode, InterruptedRunError
from stresstest.runs.executor import Done, Hooks, Local, local_workers

CALL = operator.methodcaller("__call__")
LOOK = """
import time
from stresstest.runs.stopping import stop_if_requested
while True:
    time.sleep(0.05)
    stop_if_requested()
"""
WAIT = partial(exec, LOOK)
one_over = partial(operator.truediv, 1.0)
both = pytest.mark.parametrize("jobs", [1, 2])


def run_tasks(work: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, **settings: Any) -> Iterator[Done[Any, Any]]:
    return Local([{}] * jobs, **settings).run(work, tasks)


def call(function: Callable[[], object]) -> object:
    return function()


ENDS = {
    "sys.exit(0)": "SystemExit: 0",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise BaseException('by itself')": "BaseException: by itself",
}
KINDS: dict[str, Callable[[], object]] = {
    **{f"pid {i}": partial(os.getpid) for i in range(4)},
    **{f"1/{x}": partial(one_over, float(x)) for x in (1, 2, 0, 4, 8, 16)},
    **{end: partial(exec, f"import sys\n{end}") for end in ENDS},
    "threads": torch.get_num_threads,
    "last": partial(abs, -1),
}


@dataclass(frozen=True)
class Ended:
    """With how many jobs tasks of all kinds were run, and how each of them ended."""

    jobs: int
    of: dict[str, Done[Callable[[], object], object]]


@pytest.fixture(scope="module", params=[1, 2])
def ended(request: pytest.FixtureRequest) -> Ended:
    """One run of them all, in an environment that asks for two threads."""
    names = {id(task): name for name, task in KINDS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        done = list(run_tasks(CALL, list(KINDS.values()), request.param))
    assert len(done) == len(KINDS)
    return Ended(request.param, {names[id(each.task)]: each for each in done})


def test_every_task_is_answered(ended: Ended) -> None:
    answers = {x: ended.of[f"1/{x}"].answer for x in (1, 2, 4, 8, 16)}
    assert answers == {1: 1.0, 2: 0.5, 4: 0.25, 8: 0.125, 16: 0.0625}
    assert not any(ended.of[f"1/{x}"].error for x in answers)
    assert ended.of["last"].answer == 1


def test_two_jobs_are_other_processes_and_one_job_is_this_one(ended: Ended) -> None:
    pids = {ended.of[f"pid {i}"].answer for i in range(4)}
    if ended.jobs == 1:
        assert pids == {os.getpid()}
    else:
        assert os.getpid() not in pids
        assert 1 <= len(pids) <= 2


def test_a_worker_computes_with_one_thread_whatever_the_environment_says(ended: Ended) -> None:
    assert ended.of["threads"].answer == 1


def test_a_worker_that_dies_leaves_the_interpreters_last_words() -> None:
    fault = partial(exec, "import faulthandler; faulthandler._sigsegv()")
    (crash,) = run_tasks(CALL, [fault], 1, timeout=60.0)
    assert crash.error.startswith("Fatal Python error: Segmentation fault")
    assert crash.error.endswith("its worker died 3 times; killed by SIGSEGV")


def test_a_task_that_raises_fails_alone_with_the_end_of_its_traceback(ended: Ended) -> None:
    assert ended.of["1/0"].answer is None
    assert 'File "' in ended.of["1/0"].error
    assert ended.of["1/0"].error.splitlines()[-1] == "ZeroDivisionError: float division by zero"


@pytest.mark.parametrize(("end", "said"), ENDS.items())
def test_a_task_that_ends_the_program_fails_alone(ended: Ended, end: str, said: str) -> None:
    assert ended.of[end].failure == "crashed"
    assert ended.of[end].error.splitlines()[-1].startswith(said)


def test_what_a_task_starts_ends_with_its_worker(tmp_path: Path) -> None:
    start = partial(
        exec,
        f"import subprocess\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '3600']).pid))",
    )
    assert all(each.failure == "" for each in run_tasks(CALL, [start], 1, timeout=60.0))
    pid = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{pid}/stat")
    while status.exists() and status.read_text().split()[2] != "Z":  # it was killed, and nobody waits for it here
        time.sleep(0.01)


def test_a_process_that_a_task_has_spoilt_gets_no_other() -> None:
    spoil = partial(exec, "from stresstest.runs.worker_process import spoil_process; spoil_process()")
    again = [each.answer for each in run_tasks(CALL, [os.getpid, partial(abs, 1), os.getpid], 1, timeout=60.0)]
    anew = [each.answer for each in run_tasks(CALL, [os.getpid, spoil, os.getpid], 1, timeout=60.0)]
    assert again[0] == again[2]
    assert anew[0] != anew[2]


def test_a_worker_that_ends_as_if_all_was_well_is_missed() -> None:
    tasks: list[partial[object]] = [partial(os._exit, 0), partial(abs, -1)]
    done = {tasks.index(each.task): each for each in run_tasks(CALL, tasks, 2)}
    assert (done[0].failure, done[0].error) == ("crashed", "its worker died 3 times; exit code 0")
    assert done[1].answer == 1


def test_what_a_worker_writes_is_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(list(run_tasks(CALL, [partial(os.write, 1, b"WRITTEN")], 1, timeout=60.0))) == 1
    out, err = capfd.readouterr()
    assert ("WRITTEN" in out, "WRITTEN" in err) == (False, True)


def test_a_worker_that_is_killed_fails_its_own_task_only() -> None:
    killer = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    die: partial[object] = partial(subprocess.run, [sys.executable, "-c", killer])
    tasks: list[partial[object]] = [partial(abs, -1), die, partial(abs, -2), partial(abs, -3)]
    done: dict[int, Done[partial[object], object]] = {
        tasks.index(each.task): each for each in run_tasks(CALL, tasks, 2)
    }
    assert [done[i].answer for i in range(4)] == [1, None, 2, 3]
    assert [bool(done[i].error) for i in range(4)] == [False, True, False, False]


def test_a_task_whose_worker_dies_is_tried_again_twice(tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    dies_twice = f"""
import os, signal
with open({str(tally)!r}, "a") as file:
    file.write("x")
if len(open({str(tally)!r}).read()) < 3:
    os.kill(os.getppid(), signal.SIGKILL)
"""
    task: partial[object] = partial(subprocess.run, [sys.executable, "-W", "ignore", "-c", dies_twice])
    assert [done.failure for done in run_tasks(CALL, [task], 1, timeout=60.0)] == [""]
    assert tally.read_text() == "xxx"


def test_a_task_that_takes_too_long_is_ended_and_the_others_go_on() -> None:
    tasks = [partial(time.sleep, 3600), partial(abs, -1), partial(abs, -2)]
    done = {tasks.index(each.task): each for each in run_tasks(CALL, tasks, 1, timeout=1.5)}
    assert (done[0].failure, done[0].error) == ("timeout", "took longer than 1.5 s")
    assert (done[1].answer, done[2].answer) == (1, 2)


def test_a_workers_variables_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [{"STRESSTEST_PROBE": "0"}, {"STRESSTEST_PROBE": "1"}]
    tasks = [partial(os.getenv, "STRESSTEST_PROBE"), partial(os.getenv, "STRESSTEST_PROBE")]
    assert {each.answer for each in Local(workers).run(CALL, tasks)} <= {"0", "1"}
    assert "STRESSTEST_PROBE" not in os.environ


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_the_first_signal_lets_the_task_end_and_then_means_what_it_meant(
    number: signal.Signals, code: ExitCode
) -> None:
    before = signal.getsignal(number)
    tasks: list[Callable[[], object]] = [float, partial(signal.raise_signal, number), float]
    running = run_tasks(call, tasks, 1)
    assert next(running).answer == 0.0
    assert next(running).answer is None
    with pytest.raises(InterruptedRunError) as caught:
        next(running)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before


def test_the_second_signal_ends_it_at_once() -> None:
    def insist() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    with pytest.raises(InterruptedRunError):
        list(run_tasks(call, [insist, float], 1))


@both
def test_a_second_signal_in_a_destructor_is_not_lost(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_type))
    running = run_tasks(one_over, [1.0, 2.0, 4.0, 8.0], jobs)
    next(running)
    Interrupts()
    assert ignored == [InterruptedRunError]
    with pytest.raises(InterruptedRunError):
        list(running)


def test_what_is_asked_to_stop_is_no_result_and_nothing_new_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    stopped: list[str] = []
    tasks = [partial(os.kill, os.getpid(), signal.SIGINT), WAIT, WAIT, WAIT]
    hooks = Hooks(started.append, lambda: stopped.append("asked"))
    running = Local([{}] * 2).run(CALL, tasks, hooks)
    assert next(running).task == tasks[0]
    with pytest.raises(InterruptedRunError):
        next(running)
    assert len(started) <= 3
    assert stopped == ["asked"]
    assert multiprocessing.active_children() == []


def test_two_signals_end_the_workers_at_once() -> None:
    tasks = [partial(os.kill, os.getpid(), signal.SIGINT), partial(time.sleep, 3600), partial(time.sleep, 3600)]
    killer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
    running = run_tasks(CALL, tasks, 2)
    next(running)
    killer.start()
    with pytest.raises(InterruptedRunError):
        next(running)
    assert multiprocessing.active_children() == []


def test_as_many_workers_as_cores_and_one_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= len(local_workers("cpu", None)) <= (os.cpu_count() or 1)
    assert local_workers("cpu", 3) == [{}, {}, {}]
    assert local_workers("cuda:1", None) == [{}]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_workers("cuda", None) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert len(local_workers("cuda", None, per_gpu=3)) == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert local_workers("cuda", 3) == [{"CUDA_VISIBLE_DEVICES": name} for name in ("4", "7", "4")]


def test_a_signal_during_the_last_task_here_ends_the_run() -> None:
    with pytest.raises(InterruptedRunError) as caught:
        list(run_tasks(CALL, [partial(os.kill, os.getpid(), signal.SIGTERM)], 1))
    assert caught.value.exit_code == ExitCode.TERMINATED


def test_a_worker_without_a_task_does_what_else_there_is_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """The second task ends a while after the file is there, which idle work writes; idle work that dies or hangs is
    left.
    """
    there = f"pathlib.Path({str(tmp_path / 'done')!r}).exists()"
    wait = partial(exec, f"import time, pathlib\nwhile not {there}: time.sleep(0.02)\ntime.sleep(1)")
    idle: list[Callable[[], Any]] = [partial(os._exit, 3), partial(Path.touch, tmp_path / "done"), WAIT]
    tasks: list[Callable[[], Any]] = [os.getpid, wait]
    hooks = Hooks(idle=lambda: idle.pop(0) if idle else None)
    done = list(Local([{}] * 2).run(CALL, tasks, hooks))
    assert len(done) == 2, "what idle workers did is not yielded"
    assert not any(each.failure for each in done)
    assert not idle


def test_no_worker_is_idle_as_long_as_tasks_wait() -> None:
    asked: list[int] = []
    started: list[Any] = []

    def idle() -> None:
        asked.append(len(started))

    list(Local([{}] * 2).run(CALL, [os.getpid] * 5, Hooks(started.append, idle=idle)))
    assert set(asked) <= {5}
