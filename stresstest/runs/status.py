"""How far a run has got, read from its directory while it goes on or after it was stopped."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError
from stresstest.json_text import parse_json
from stresstest.runs.cell_lines import NAME, condition
from stresstest.runs.directory import holder_of, planned_cells, read_manifest


@dataclass(frozen=True)
class RunStatus:
    """The cells of a run; what is running and the time left are known only while a driver holds it."""

    path: Path
    command: str
    again: str  # the line that goes on with it
    shard: tuple[int, int]
    total: int  # of this shard
    statuses: dict[str, int]  # of the cells on the disk: how many of each status
    running: list[str]  # what trains now, in words
    seconds_left: float | None
    between: tuple[float, float] | None  # seconds: in 8 of 10 runs
    share: float | None  # of the work that is done, 0 to 1
    holder: str | None
    damaged: list[int]  # lines of its cells that are not what was written
    unsealed: int  # lines without a checksum, of an earlier version


def read_status(path: Path) -> RunStatus:
    """The status of the run in a directory; a `ConfigError` if it is not a run directory."""
    manifest = read_manifest(path)
    if manifest is None:
        raise ConfigError(f"{path} is not a run directory; give one as printed at the end of a run")
    holder = holder_of(path)
    progress = _read_progress(path) if holder else {}
    planned, found = planned_cells(path, "mine"), condition(path)
    since, left = max(0.0, time.time() - progress.get("at", 0.0)), progress.get("left")  # the clock may go back
    return RunStatus(
        path=path,
        command=manifest["command"],
        again=manifest["again"],
        shard=tuple(manifest.get("shard", (1, 1))),
        total=len(planned),
        statuses=dict(Counter(found.statuses[key] for key in planned if key in found.statuses)),
        running=progress.get("running", []),
        seconds_left=None if left is None else max(0.0, left["seconds"] - since),
        between=None if left is None else (max(0.0, left["low"] - since), max(0.0, left["high"] - since)),
        share=progress.get("share"),
        holder=holder,
        damaged=found.damaged,
        unsealed=found.unsealed,
    )


def damage_words(status: RunStatus) -> list[str]:
    """What is to be said of what is stored: damaged lines, and those that nothing guards."""
    words = []
    if status.damaged:
        lines, many = ", ".join(map(str, status.damaged)), len(status.damaged) > 1
        words.append(
            f"line{'s' * many} {lines} of {status.path / NAME} {'are' if many else 'is'} damaged (the checksum does "
            f"not fit): {status.again} trains what is missing again"
        )
    if status.unsealed:
        words.append(f"{status.unsealed} of them without a checksum, of an earlier version")
    return words


def _read_progress(path: Path) -> dict[str, Any]:
    try:
        return dict(parse_json((path / "progress.json").read_text()))
    except (OSError, ValueError):
        return {}
