"""Logs labelled by eye, read as `stresstest diagnose` reads them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.logs.readers.table import READERS
from stresstest.logs.segments import Log, assemble


@dataclass(frozen=True)
class Labelled:
    """One file: its label, its runs as read, and the error where it was not."""

    file: str
    label: str
    repository: str
    metric: str
    logs: tuple[Log, ...]
    error: str = ""


def read_labelled(folder: Path) -> Iterator[Labelled]:
    """Every file of `labels.csv` (columns file, label, loss_key, repository)."""
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            logs, error = read(folder / row["file"])
            yield Labelled(row["file"], row["label"], row["repository"], row["loss_key"], logs, error)


def read(path: Path) -> tuple[tuple[Log, ...], str]:
    """The runs of a file that have a loss, and what was wrong where none has."""
    if not path.is_file():
        return (), "no such file"
    file = LogFile(path, path.name)
    reader = next((reader for reader in READERS if reader.fits(file)), None)
    if reader is None:
        return (), "in no known form"
    try:
        logs = tuple(log for log in (assemble(raw, path.name) for raw in reader.read(file)) if log.segments)
    except (ConfigError, ValueError) as error:
        return (), str(error)
    return logs, "" if logs else "no loss found"
