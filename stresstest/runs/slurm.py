"""Tasks on a Slurm cluster (extra `slurm`): an array of jobs that empty one queue, submitted by submitit.

The queue is a folder that the nodes share. A task is a file there, and a job takes it by giving it
another name, so that a job trains many cells and a lost one costs only the cell that it was at.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError, InterruptedRunError, StoppedError
from stresstest.runs.executor import ATTEMPTS, POLL_SECONDS, Answer, Done, Hooks, Local, Task, tail
from stresstest.runs.stopping import stopping

_ANYWHERE = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name"}


@dataclass(frozen=True)
class Slurm:
    """Jobs with these parameters of submitit: timeout_min, mem_gb, gpus_per_node, partition, account, ...

    folder: where the queue and the jobs' logs are, on a file system that the nodes share.
    cluster: `slurm`, or `local` for processes of this machine.
    """

    folder: Path
    jobs: int = 1
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    cluster: str = "slurm"
    timeout: float | None = None
    limited: bool = False

    def run(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks = Hooks()
    ) -> Generator[Done[Task, Answer], None, None]:
        """See `Executor`."""
        submit = self._submitter()
        for older in self.folder.glob("queue-*"):
            _Queue(older).stop()  # jobs of a driver that has ended
        queue = _Queue(self.folder / f"queue-{uuid.uuid4().hex[:8]}")
        queue.fill(work, tasks)
        attempts = dict.fromkeys(range(len(tasks)), 1)
        open_tasks, started = set(attempts), set[int]()
        jobs: dict[str, Any] = {}
        fruitless = 0  # submissions in a row of which no job came as far as a task
        with stopping(hooks.on_stop) as signals:
            try:
                while open_tasks:
                    if signals.code is not None:
                        queue.stop()
                    elif not jobs:
                        new = submit(_drain, queue.folder, Local(({},), self.timeout, self.limited), len(open_tasks))
                        jobs = {job.job_id: job for job in new}
                        fruitless += 1
                    time.sleep(POLL_SECONDS)
                    signals.check()
                    ended = {name: job for name, job in jobs.items() if job.done()}  # before its answers are read
                    claims = queue.claims()
                    for number in sorted(set(claims) - started):
                        started.add(number)
                        hooks.on_start(tasks[number])
                    for number, done in queue.answers(open_tasks):
                        open_tasks.discard(number)
                        fruitless = 0
                        yield Done(tasks[number], done.answer, done.failure, done.error)
                    fruitless = 0 if claims else fruitless
                    lost = [number for number in sorted(open_tasks) if claims.get(number) in ended]
                    for number in lost if signals.code is None else ():
                        if attempts[number] < ATTEMPTS:
                            attempts[number] += 1
                            queue.put_back(number)
                        else:
                            open_tasks.discard(number)
                            yield _dead(tasks[number], ended[claims[number]])
                    jobs = {name: job for name, job in jobs.items() if name not in ended}
                    if not jobs and signals.code is not None:
                        break
                    if not jobs and fruitless == ATTEMPTS:
                        yield from (_dead(tasks[number], next(iter(ended.values()))) for number in sorted(open_tasks))
                        open_tasks.clear()
                if signals.code is not None:
                    raise signals.error
            finally:
                queue.stop()
                for job in jobs.values() if open_tasks else ():  # at the end, they see that the queue is empty
                    if not job.done():
                        job.cancel()

    def _submitter(self) -> Callable[[Callable[..., None], Path, Local, int], list[Any]]:
        try:
            import submitit
        except ImportError:
            raise ConfigError(
                "submitit is not installed; pip install submitit, or leave out --executor slurm"
            ) from None
        try:
            executor = submitit.AutoExecutor(folder=self.folder / "logs", cluster=self.cluster)
            executor.update_parameters(
                **{name if name in _ANYWHERE else f"slurm_{name}": value for name, value in self.parameters.items()}
            )
        except (NameError, RuntimeError, ValueError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"Slurm cannot be used here: {first}") from None

        def submit(function: Callable[..., None], folder: Path, here: Local, tasks: int) -> list[Any]:
            number = min(self.jobs, tasks)
            try:
                return list(executor.map_array(function, [folder] * number, [here] * number))
            except (submitit.core.utils.FailedSubmissionError, submitit.core.utils.FailedJobError) as error:
                raise ConfigError(f"Slurm rejected the job: {tail(str(error), 1)}; see --slurm") from None

        return submit


class _Queue:
    """Files of one folder: N.task waits, N.by-JOB is being done, N.done has the answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "work.pkl").write_bytes(pickle.dumps(work))
        for number, task in enumerate(tasks):
            (self.folder / f"{number:06}.task").write_bytes(pickle.dumps(task))

    def take(self, job: str) -> Iterator[Path]:
        """Claim one task after the other, until there is none or the run was asked to stop."""
        while not self.stopped:
            for path in sorted(self.folder.glob("*.task")):
                with contextlib.suppress(FileNotFoundError):  # another job was quicker
                    yield path.rename(path.with_suffix(f".by-{job}"))
                    break
            else:
                return

    def answer(self, claimed: Path, done: Done[Any, Any]) -> None:
        draft = claimed.with_suffix(claimed.suffix.replace(".by-", ".part-"))  # two jobs may answer at once
        draft.write_bytes(pickle.dumps(replace(done, task=None)))  # which the driver has
        draft.rename(claimed.with_suffix(".done"))
        claimed.unlink(missing_ok=True)

    def claims(self) -> dict[int, str]:
        return {int(path.stem): path.suffix.removeprefix(".by-") for path in self.folder.glob("*.by-*")}

    def answers(self, numbers: set[int]) -> Iterator[tuple[int, Done[Any, Any]]]:
        for number in sorted(numbers):
            path = self.folder / f"{number:06}.done"
            if path.exists():
                yield number, pickle.loads(path.read_bytes())

    def put_back(self, number: int) -> None:
        for path in self.folder.glob(f"{number:06}.by-*"):
            path.rename(path.with_suffix(".task"))

    def stop(self) -> None:
        (self.folder / "stop").touch()

    @property
    def stopped(self) -> bool:
        return (self.folder / "stop").exists()


def _drain(folder: Path, here: Local) -> None:
    """What a job does: tasks of the queue, as one worker of a machine would."""
    import submitit

    queue = _Queue(folder)
    work = pickle.loads((folder / "work.pkl").read_bytes())
    threading.Thread(target=_listen, args=(queue,), daemon=True).start()
    for claimed in queue.take(submitit.JobEnvironment().job_id):
        try:
            done = next(here.run(work, [pickle.loads(claimed.read_bytes())]))
        except (InterruptedRunError, StoppedError):
            return  # its claim stays: the driver, if it did not ask for this, gives the task to another job
        queue.answer(claimed, done)


def _listen(queue: _Queue) -> None:
    while not queue.stopped:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGINT)


def _dead(task: Task, job: Any) -> Done[Task, Any]:
    """A task whose jobs died, with the end of what the last one wrote to stderr."""
    return Done(task, None, "crashed", f"its job died {ATTEMPTS} times\n{tail(job.stderr() or 'it left no message')}")
