"""MLflow: a run for each cell, in one experiment."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from stresstest.errors import ConfigError
from stresstest.loggers.scalars import LoggedCell

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
_AT_ONCE = 1000  # metrics in a request, MLflow's own limit
_PARAMS_AT_ONCE = 100
_LONGEST = 500  # characters of a parameter's value that every server takes
_PORTS = {"http": 80, "https": 443}
_PATIENCE = 10.0  # seconds for a server to take a connection


class MlflowRuns:
    """An experiment of a tracking server, file or database."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._experiment = client, experiment

    def log(self, cell: LoggedCell) -> None:
        """Metrics by step, those at the end at the last one, settings as parameters, outcomes as tags."""
        with _quietly():
            self._log(cell)

    def _log(self, cell: LoggedCell) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run = self._client.create_run(self._experiment, run_name=cell.name).info.run_id
        now, last = int(time.time() * 1000), max(0, len(cell.rows) - 1)
        metrics = [Metric(name, value, now, step) for step, row in enumerate(cell.rows) for name, value in row.items()]
        metrics += [Metric(name, value, now, last) for name, value in cell.metrics.items()]
        params = [Param(name, str(value)[:_LONGEST]) for name, value in cell.config.items()]
        tags = [RunTag(name, outcome) for name, outcome in cell.outcomes.items()]
        try:
            self._client.log_batch(run, tags=tags)
            for some in _parts(params, _PARAMS_AT_ONCE):
                self._client.log_batch(run, params=some)
            for part in _parts(metrics, _AT_ONCE):
                self._client.log_batch(run, metrics=part)
        except BaseException:
            self._client.set_terminated(run, "FAILED")
            raise
        self._client.set_terminated(run)


def open_tracker(place: str) -> MlflowRuns:
    """Find or make the experiment: MLFLOW_EXPERIMENT_NAME, or stresstest; raises what MLflow raises."""
    import mlflow

    uri = place or mlflow.get_tracking_uri()
    _reach(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "stresstest")
    with _quietly():
        client: Any = mlflow.MlflowClient(uri)
        found = client.get_experiment_by_name(name)
        return MlflowRuns(client, found.experiment_id if found else client.create_experiment(name))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without MLflow's own lines and tracebacks on stderr: what goes wrong is raised, and said once."""
    log = logging.getLogger("mlflow")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _reach(uri: str) -> None:
    """Whether a server is there: MLflow itself would try again for minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in _PORTS:
        return
    try:
        socket.create_connection((parts.hostname or "", parts.port or _PORTS[parts.scheme]), _PATIENCE).close()
    except OSError as error:
        raise ConfigError(
            f"--log mlflow: {uri} does not answer ({error.strerror or error}); start it, or leave it out"
        ) from None


def _parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
