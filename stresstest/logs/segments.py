"""The curves of a run, cut where training began again, in steps that go up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stresstest.logs.curve import Curve, FormatFacts, RawLog, Role, RowKind
from stresstest.logs.roles import find

Start = Literal["start", "resume", "restart", "unknown"]


@dataclass(frozen=True)
class Segment:
    """One stretch of training without a seam: steps go up from row to row.

    loss: the train loss, clean. others: the curves of other roles in the same steps (lr, grad_norm, validation,
    loss_scale, skipped). start: what began it; after a resume the first row is the mean of fewer steps, and is marked
    by `first_row_is_partial`. first_row: of the log, for what is said of lines.
    steps_per_row: how many steps a row stands for, 1 if each was logged. last_finite zero rows that stand for NaN are
    NaN here, and counted in `zeros_for_nan`.
    """

    loss: Curve
    others: Mapping[Role, Curve] = field(default_factory=dict)
    start: Start = "start"
    steps_per_row: float = 1.0
    row_kind: RowKind = "unknown"
    first_row_is_partial: bool = False
    zeros_for_nan: int = 0


@dataclass(frozen=True)
class Log:
    """A run, ready to be judged, and what was read."""

    path: str
    format: str
    name: str
    loss_key: str
    step_key: str
    segments: tuple[Segment, ...]
    facts: FormatFacts
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def assemble(raw: RawLog, path: str, metric: str | None = None, step: str | None = None) -> Log:
    """The run of a raw log; where no loss is found it has no segments."""
    roles = dict(raw.facts.roles)
    loss_key = metric or roles.get("loss") or find("loss", raw.curves) or ""
    curve = raw.curves.get(loss_key)
    segments: tuple[Segment, ...] = ()
    if curve is not None:
        steps = curve.step if np.isfinite(curve.step).all() else np.arange(len(curve), dtype=float)
        spacing = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
        segments = (Segment(Curve(steps, curve.value, curve.row), steps_per_row=max(1.0, spacing)),)
    return Log(path, raw.format, raw.name, loss_key, step or "step", segments, raw.facts, tuple(raw.curves), raw.notes)
