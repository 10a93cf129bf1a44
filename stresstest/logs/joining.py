"""The files of one run, read as one: what a restart, an evaluation or a second writer put into a file of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.base import Reader
from stresstest.logs.readers.event_folders import in_order, run_folder
from stresstest.logs.readers.mlflow import MetricFiles
from stresstest.logs.readers.mlflow import run_folder as mlflow_run_folder
from stresstest.logs.readers.stored_run import StoredRun
from stresstest.logs.readers.tfevents import EventFiles
from stresstest.logs.readers.wandb_file import WandbFile, run_of
from stresstest.logs.roles import find

_VERSION = re.compile(r"version_(\d+)")
_EVENTS, _METRICS, _STORED, _WANDB = EventFiles(), MetricFiles(), StoredRun(), WandbFile()


def grouped(files: Sequence[LogFile]) -> list[LogFile]:
    """The files with those of one run as one: its `more` are the others, in the order in which they were written.

    Only the first bytes of a file are read for it.
    """
    folders = {file.path.parent for file in files if _is_event_file(file)}
    groups: dict[tuple[str, str], list[LogFile]] = defaultdict(list)
    for file in files:
        groups[_key(file, folders)].append(file)
    runs = [_one(kind, members) for (kind, _), members in groups.items()]
    return _without_copies(_without_records(runs))


def read_runs(file: LogFile, reader: Reader) -> Iterator[RawLog]:
    """The runs of a file and of its `more`, joined where they are one; `source` says which file each came from."""
    if not file.more or isinstance(reader, EventFiles | MetricFiles):
        raws: Iterable[RawLog] = reader.read(file)
    elif isinstance(reader, WandbFile):
        raws = [joined([raw for each in (file, *file.more) for raw in reader.read(each)])]
    else:
        raws = _where_steps_go_on(file, reader)
    for raw in raws:
        notes = (*file.notes, *file.damage)
        yield replace(raw, notes=(*raw.notes, *notes)) if notes else raw


def joined(raws: Sequence[RawLog]) -> RawLog:
    """One run from the raw logs of its files, in the order given; a seam where each further one begins."""
    if len(raws) == 1:
        return raws[0]
    pieces: dict[str, list[Curve]] = defaultdict(list)
    seams: list[int] = []
    start = 0
    for raw in raws:
        seams += [start, *(start + seam for seam in raw.seams)] if start else list(raw.seams)
        rows = 0
        for name, curve in raw.curves.items():
            pieces[name].append(replace(curve, row=curve.row + start))
            rows = max(rows, int(curve.row[-1]) + 1) if len(curve) else rows
        start += rows
    curves = {name: _concatenated(found) for name, found in pieces.items()}
    notes = [*dict.fromkeys(note for raw in raws for note in raw.notes), f"{len(raws)} files of one run were joined"]
    return replace(raws[0], curves=curves, seams=tuple(seams), notes=tuple(notes))


def _concatenated(curves: Sequence[Curve]) -> Curve:
    return Curve(
        np.concatenate([curve.step for curve in curves]),
        np.concatenate([curve.value for curve in curves]),
        np.concatenate([curve.row for curve in curves]),
    )


def _key(file: LogFile, event_folders: set[Path]) -> tuple[str, str]:
    if file.path.parent in event_folders and _is_event_file(file):
        return "events", str(run_folder(file, event_folders))
    if file.suffix == ".wandb" and _fits(_WANDB, file):
        return "wandb", f"{file.path.parent.parent}/{file.path.name}"
    if _fits(_METRICS, file):
        return "metrics", str(mlflow_run_folder(file.path))
    if file.path.name == "metrics.csv" and _VERSION.fullmatch(file.path.parent.name):
        return "versions", str(file.path.parent.parent)
    return "file", str(file.path)


def _is_event_file(file: LogFile) -> bool:
    """By its name too: files that were renamed are gathered from several runs."""
    return file.path.name.startswith("events.out.tfevents.") and _fits(_EVENTS, file)


def _fits(reader: Reader, file: LogFile) -> bool:
    """Whether it does; one that cannot be opened is said to be so when it is read."""
    try:
        return reader.fits(file)
    except OSError:
        return False


def _one(kind: str, files: list[LogFile]) -> LogFile:
    if len(files) == 1:
        return files[0]
    if kind == "events":
        ordered = in_order(files)
    elif kind == "wandb":
        ordered = sorted(files, key=lambda file: (_started(file), file.shown))
    elif kind == "versions":
        ordered = sorted(files, key=lambda file: _version(file.path))
    else:
        ordered = sorted(files, key=lambda file: file.shown)
    return replace(ordered[0], more=tuple(ordered[1:]))


def _started(file: LogFile) -> float:
    try:
        return run_of(file).started
    except (ConfigError, OSError, ValueError):
        return 0.0


def _version(path: Path) -> int:
    found = _VERSION.fullmatch(path.parent.name)
    return int(found[1]) if found else 0


def _without_records(runs: list[LogFile]) -> list[LogFile]:
    """What stresstest stores beside the cells of a run says nothing of its steps."""
    stored = {run.path.parent for run in runs if run.path.name == "cells.jsonl" and _fits(_STORED, run)}
    return [run for run in runs if run.path.parent not in stored or run.path.suffix != ".json"]


def _without_copies(runs: list[LogFile]) -> list[LogFile]:
    """Lightning's two loggers write the same numbers into one folder: the table is kept, which has all their digits."""
    tables = {each.path.parent: each for run in runs for each in (run, *run.more) if each.path.name == "metrics.csv"}
    kept: list[LogFile] = []
    copied: set[Path] = set()
    for run in runs:
        if _fits(_EVENTS, run) and all(each.path.parent in tables for each in (run, *run.more)):
            copied.add(run.path.parent)
        else:
            kept.append(run)
    note = "the event files beside it are of the same run: not read"
    return [
        replace(run, notes=(*run.notes, note)) if copied & {each.path.parent for each in (run, *run.more)} else run
        for run in kept
    ]


def _where_steps_go_on(file: LogFile, reader: Reader) -> Iterator[RawLog]:
    """Lightning numbers a resumed run anew: a version that takes up the steps of the one before is part of it."""
    run: list[RawLog] = []
    refused: list[ConfigError] = []
    for each in (file, *file.more):
        for raw in _readable(each, reader, refused):
            if run and not _takes_up(run[-1], raw):
                yield joined(run)
                run = []
            run.append(replace(raw, source=each.shown))
    if run:
        yield joined(run)
    if refused:
        raise refused[0]


def _readable(file: LogFile, reader: Reader, refused: list[ConfigError]) -> Iterator[RawLog]:
    """What a file gives; one that is damaged is refused at the end, so that it hides no other."""
    try:
        yield from reader.read(file)
    except ConfigError as error:
        refused.append(error)


def _takes_up(earlier: RawLog, later: RawLog) -> bool:
    """Whether the later one begins late and not after the other's end: a run from the start begins within two rows."""
    key = find("loss", later.curves, later.curves)
    if key is None or key not in later.curves or key not in earlier.curves:
        return False
    before, after = earlier.curves[key].step, later.curves[key].step
    if not len(before) or len(after) == 0 or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return False
    steps = after if len(after) > 1 else before
    spacing = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    return bool(after[0] > 2 * spacing and before[0] < after[0] <= before.max() + 2 * spacing)
