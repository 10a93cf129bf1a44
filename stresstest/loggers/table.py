"""Trackers by name, and which of them `--log NAME[:PLACE]` asks for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean

if TYPE_CHECKING:
    from stresstest.loggers.scalars import LoggedCell


class Tracker(Protocol):
    """A tracker that is open: one run for each cell."""

    def log(self, cell: LoggedCell) -> None:
        """Write all of one cell as a run of its own; whatever goes wrong may be raised."""


@dataclass(frozen=True)
class TrackerKind:
    """A tracker: the package that it needs, what its PLACE is, the module whose `open_tracker(place)` opens it.

    default: the place without one; none: it has to be given.
    """

    package: str
    place: str
    module: str
    default: str | None
    summary: str


TRACKERS: Mapping[str, TrackerKind] = {
    "tensorboard": TrackerKind(
        "tensorboard", "DIR", "stresstest.loggers.tensorboard_files", None, "Event files, a folder a cell."
    ),
    "wandb": TrackerKind(
        "wandb", "PROJECT", "stresstest.loggers.wandb_runs", "stresstest", "Weights & Biases, a run a cell."
    ),
    "mlflow": TrackerKind(
        "mlflow", "URI", "stresstest.loggers.mlflow_runs", "", "MLflow, a run a cell in the experiment stresstest."
    ),
    "trackio": TrackerKind(
        "trackio", "PROJECT", "stresstest.loggers.trackio_runs", "stresstest", "Trackio, a run a cell."
    ),
}


TRACKER_FORMS = tuple(
    f"{name}:{kind.place}" if kind.default is None else f"{name}[:{kind.place}]" for name, kind in TRACKERS.items()
)


@dataclass(frozen=True)
class Target:
    """A tracker that was asked for, and where it writes."""

    kind: str
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.place else self.kind


def parse_target(text: str) -> Target:
    """The tracker of a `--log`; one that is unknown, incomplete or not installed is a `ConfigError`."""
    kind, _, place = text.partition(":")
    if kind not in TRACKERS:
        where = f" in --log {text}" if place else ""
        raise ConfigError(f"unknown tracker '{kind}'{where}{did_you_mean(kind, TRACKERS)}")
    tracker = TRACKERS[kind]
    if not place and tracker.default is None:
        raise ConfigError(f"--log {kind} has no place; write {kind}:{tracker.place}")
    address = urlsplit(place)
    if address.password or "pass" in address.query.lower():
        raise ConfigError(
            f"--log {kind}: the {tracker.place} holds a password, and this line is stored; give it in the environment"
        )
    try:
        importlib.import_module(tracker.package)
    except ImportError:
        raise ConfigError(
            f"{tracker.package} is not installed; pip install {tracker.package}, or leave out --log {kind}"
        ) from None
    return Target(kind, place or tracker.default or "")


def open_target(target: Target) -> Tracker:
    """Open a tracker; one that does not answer is a `ConfigError`."""
    try:
        tracker: Tracker = importlib.import_module(TRACKERS[target.kind].module).open_tracker(target.place)
        return tracker
    except ConfigError:
        raise
    except Exception as error:  # of another package: whatever it raises
        raise ConfigError(f"--log {target} cannot be opened ({first_line(error)}); mend it, or leave it out") from None


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).strip().splitlines()), "").rstrip(".") or type(error).__name__
