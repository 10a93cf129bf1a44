"""Tasks on a Ray cluster (extra `ray`): many machines and GPUs; retries and the loss of a node are Ray's."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stresstest.errors import ConfigError, InterruptedRunError, StoppedError
from stresstest.runs.executor import ATTEMPTS, POLL_SECONDS, Answer, Attempt, Done, Hooks, Local, Task
from stresstest.runs.identity import PACKAGE
from stresstest.runs.stopping import stopping
from stresstest.runs.worker_process import THREADS


@dataclass(frozen=True)
class Ray:
    """The cluster at an address, or one of this machine alone, started for the run.

    The package travels with the job; torch and its other dependencies are on the nodes.
    at_once: tasks in flight; `None` for as many as the cluster has room for.
    gpu_share: of one GPU, for each task.
    """

    address: str | None = None
    at_once: int | None = None
    gpu_share: float = 0.0
    timeout: float | None = None
    limited: bool = False

    def run(
        self, work: Callable[[Task], Answer], tasks: Sequence[Task], hooks: Hooks = Hooks()
    ) -> Generator[Done[Task, Answer], None, None]:
        """See `Executor`."""
        with self._connected() as ray, stopping(hooks.on_stop) as signals:
            resources = {"num_cpus": 1, "num_gpus": self.gpu_share}
            remote = ray.remote(_answer).options(**resources, max_retries=ATTEMPTS - 1)
            here = Local(({},), self.timeout, self.limited)
            waiting = deque(Attempt(task) for task in tasks)
            running: dict[Any, Attempt[Task]] = {}
            asked = False
            while running or (waiting and signals.code is None):
                while waiting and signals.code is None and len(running) < (self.at_once or self._room(ray)):
                    attempt = waiting.popleft()
                    running[remote.remote(here, work, attempt.task)] = attempt
                    hooks.on_start(attempt.task)
                ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                signals.check()
                if signals.code is not None and not asked:
                    asked = True
                    for reference in running:
                        ray.cancel(reference)
                for reference in ended:
                    attempt = running.pop(reference)
                    done = _done(ray, reference, attempt.task)
                    if done is not None:
                        yield done
                    elif signals.code is None and attempt.number < ATTEMPTS:  # told to end, and not by us
                        waiting.appendleft(replace(attempt, number=attempt.number + 1))
                    elif signals.code is None:
                        yield Done(attempt.task, None, "crashed", f"its worker was stopped {ATTEMPTS} times")
            if signals.code is not None:
                raise signals.error

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ConfigError("ray is not installed; pip install ray, or leave out --executor ray") from None
        _check_reachable(self.address)
        shipped = {"py_modules": [str(PACKAGE)], "env_vars": dict(THREADS)}
        local: dict[str, Any] = {} if self.address else {"include_dashboard": False, "object_store_memory": 100 << 20}
        try:
            ray.init(
                address=self.address or "local",
                runtime_env=shipped,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **local,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(
                f"no Ray cluster at {self.address or 'this machine'} ({first}); see --ray-address"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()

    def _room(self, ray: Any) -> int:
        """How many tasks the cluster, as it is now, trains at once; at least one, for the time when it grows."""
        have = ray.cluster_resources()
        return max(1, int(have.get("GPU", 0) / self.gpu_share if self.gpu_share else have.get("CPU", 0)))


def _check_reachable(address: str | None) -> None:
    """Ray itself tries for many minutes."""
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address} ({error}); see --ray-address") from None


def _answer(here: Local, work: Callable[[Task], Answer], task: Task) -> Done[None, Answer] | None:
    """What a node does: one task, as one worker of a machine would; `None` if it was asked to stop."""
    try:
        done = next(here.run(work, [task]))
        return Done(None, done.answer, done.failure, done.error)  # the driver has the task
    except (InterruptedRunError, StoppedError, KeyboardInterrupt):
        return None


def _done(ray: Any, reference: Any, task: Task) -> Done[Task, Any] | None:
    try:
        done: Done[None, Any] | None = ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Done(task, None, "crashed", f"its worker died {ATTEMPTS} times\n" + "\n".join(lines[-12:]))
    return None if done is None else Done(task, done.answer, done.failure, done.error)
