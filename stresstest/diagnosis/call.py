"""Logs in, diagnoses out: what the command and Python call."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stresstest.diagnosis.diagnose import Choices, diagnose_file
from stresstest.diagnosis.diagnose import diagnose as diagnose_log
from stresstest.diagnosis.records import Diagnoses, Diagnosis, UnreadLog
from stresstest.errors import ConfigError, ExitCode, path_given
from stresstest.logs.curve import Curve, Floats, FormatFacts, RawLog, Role
from stresstest.logs.files import NoLossError
from stresstest.logs.segments import assemble
from stresstest.logs.sources import Found, found_logs

_IN_PYTHON = "numbers from Python"
_SHOWN_PROBLEMS = 3


def diagnose(
    logs: str | Path | Iterable[str | Path],
    *,
    metric: str | None = None,
    step: str | None = None,
    baseline: float | None = None,
    vocab: int | None = None,
    segment: int | None = None,
    rank: int | None = None,
) -> list[Diagnosis]:
    """Read the logs of runs that are already there: files, folders, patterns; a `Diagnosis` for each run.

    `print(diagnosis)` is a line; `.verdict` is stable, broken or undecided, `.outcome`, `.segments`, `.findings` and
    `.try_next` say more. metric, step: names of the loss and the step where they are not found. baseline: loss of the
    best constant predictor, or vocab: the number of classes for one of ln(vocab). segment, rank: only this one. A log
    that cannot be read, or holds no loss, is a `ConfigError`.
    """
    found = read_logs(_names(logs), Choices(metric, step, baseline, segment, rank, vocab))
    if found.unread:
        shown = [f"{each.path}: {each.why}" for each in found.unread[:_SHOWN_PROBLEMS]]
        more = len(found.unread) - len(shown)
        raise ConfigError("; ".join(shown) + (f"; and {more} more" if more else ""))
    return list(found.runs)


def diagnose_losses(
    losses: Iterable[float],
    steps: Iterable[float] | None = None,
    *,
    lr: Iterable[float] | None = None,
    grad_norm: Iterable[float] | None = None,
    validation: Iterable[float] | None = None,
    baseline: float | None = None,
    vocab: int | None = None,
    name: str = "losses",
) -> Diagnosis:
    """Judge a curve that is in memory: the train losses of a run, and their steps, from 0 where none are given.

    lr, grad_norm, validation: as long as the losses, NaN where there is none. baseline, vocab: as of `diagnose`.
    """
    values = _numbers("losses", losses)
    if not len(values):
        raise ConfigError("losses is empty; give the train losses of a run")
    places = np.arange(len(values))
    at = places.astype(float) if steps is None else _numbers("steps", steps, len(values))
    curves = {"loss": Curve(at, values, places)}
    roles: dict[Role, str] = {"loss": "loss", "step": "step"}
    beside: Mapping[Role, Iterable[float] | None] = {"lr": lr, "grad_norm": grad_norm, "validation": validation}
    for role, given in beside.items():
        if given is not None:
            numbers = _numbers(role, given, len(values))
            known = ~np.isnan(numbers) if role == "validation" else np.ones(len(numbers), bool)
            curves[role] = Curve(at[known], numbers[known], places[known])
            roles[role] = role
    raw = RawLog(_IN_PYTHON, curves, FormatFacts(roles=roles))
    return diagnose_log(assemble(raw, name, metric="loss"), Choices(baseline=baseline, vocab=vocab))


def _names(logs: Any) -> list[str]:
    one = isinstance(logs, str | os.PathLike) or not isinstance(logs, Iterable)
    names = (logs,) if one else logs
    instead = "a file, a folder or a pattern, or a list of them"
    return [os.fspath(name) for name in names if path_given(name, "a log", instead)]


def read_logs(names: Sequence[str], choices: Choices) -> Diagnoses:
    """Every run of the logs, and what could not be read; one that is damaged hides no other."""
    read = _Read()
    with found_logs(names) as logs:
        for each in logs:
            if isinstance(each, Found):
                read.one(each, choices)
            else:
                read.unread.append(UnreadLog(path=each.shown, why=each.why))
    if read.passed_over and not (read.runs or read.unread):
        read.unread, read.passed_over = read.passed_over, []
    return Diagnoses(
        exit_code=exit_code(read.runs, bool(read.unread)),
        runs=tuple(read.runs),
        unread=tuple(read.unread),
        passed_over=tuple(read.passed_over),
    )


def exit_code(runs: Sequence[Diagnosis], unread: bool) -> ExitCode:
    """2 before 99 before 3."""
    verdicts = {run.verdict for run in runs}
    if unread or not runs:
        return ExitCode.USAGE
    if "broken" in verdicts:
        return ExitCode.GATE_CROSSED
    return ExitCode.NO_VERDICT if "undecided" in verdicts else ExitCode.OK


@dataclass
class _Read:
    """What became of the logs of a call."""

    runs: list[Diagnosis] = field(default_factory=list)
    unread: list[UnreadLog] = field(default_factory=list)
    passed_over: list[UnreadLog] = field(default_factory=list)

    def one(self, found: Found, choices: Choices) -> None:
        try:
            self.runs.extend(diagnose_file(found.file, choices))
        except ConfigError as error:
            why = str(error).removeprefix(f"{found.file.shown}: ")
            no_log = isinstance(error, NoLossError) and not found.named
            (self.passed_over if no_log else self.unread).append(UnreadLog(path=found.file.shown, why=why))


def _numbers(name: str, given: Iterable[float], count: int | None = None) -> Floats:
    try:
        found = np.array([math.nan if value is None else float(value) for value in given])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is to be a sequence of numbers ({error})") from None
    if count is not None and len(found) != count:
        raise ConfigError(f"{name} has {len(found)} numbers and losses {count}; give as many")
    return found
