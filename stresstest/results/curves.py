"""The curves of a result as arrays: each run of training of a cell, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stresstest.errors import ConfigError
from stresstest.results.cell import Cell
from stresstest.results.courses import Course, read_courses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAME = 1e-6  # of a learning rate: a difference by rounding


@dataclass(frozen=True, eq=False)
class Curve:
    """One run of training: arrays of one length, a number a step; NaN of what was not read.

    cell: whose run it is. phase: ramp, hold, or recipe of a run through a schedule; of a shock, twin of the undisturbed
    run, null of its null twins, shock of the disturbed ones. held_lr: of a hold, its learning rate. dose: of a shock,
    how much of it. step: from 0, or from the step of the shock. lr: of each step. loss: of its batch, before its
    update. judged_loss: the same without the luck of the batch, by which outcomes are judged. grad_norm: before
    clipping.
    """

    cell: Cell
    phase: str
    held_lr: float | None
    step: NDArray[np.int64]
    lr: NDArray[np.float64]
    loss: NDArray[np.float64]
    judged_loss: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    dose: float | None = None

    def __len__(self) -> int:
        """Its steps."""
        return len(self.step)

    def __repr__(self) -> str:
        """Whose run it is, and how long it is."""
        at = "" if self.held_lr is None else f" at {self.held_lr:.4g}"
        at += "" if self.dose is None else f" of dose {self.dose:g}"
        whose = f"{self.cell.variant} depth {self.cell.depth} seed {self.cell.seed}"
        return f"Curve({whose}, {self.phase}{at}, {len(self)} steps)"


def curves_of(cells: Sequence[Cell], folder: Path | None) -> list[Curve]:
    """Every run of these cells that the run directory has; none at all is a `ConfigError`."""
    found = [curve for cell in cells if folder is not None for curve in _curves(cell, folder)]
    if not found:
        raise ConfigError(_missing(folder))
    return found


def curve_of(
    cells: Sequence[Cell],
    cell: Cell | str,
    folder: Path | None,
    phase: str,
    lr: float | None,
    dose: float | None = None,
) -> Curve:
    """One run of a cell, which is named by its key too; what is not there is a `ConfigError` that says what is."""
    key = cell if isinstance(cell, str) else getattr(cell, "key", None)
    chosen = next((each for each in cells if each.key == key), None)
    if chosen is None:
        raise ConfigError("no such cell in this result; give one of result.cells, or its key")
    found = [] if folder is None else list(_curves(chosen, folder))
    if not found:
        raise ConfigError(_missing(folder))
    fitting = [
        curve
        for curve in found
        if phase in ("", curve.phase) and _is_at(curve.held_lr, lr) and _is_at(curve.dose, dose)
    ]
    if not fitting:
        known = dict.fromkeys(f"{curve.phase!r}{_held(curve)}" for curve in found)
        asked = (
            f"{phase or 'run'}{'' if lr is None else f' at lr {lr:g}'}{'' if dose is None else f' of dose {dose:g}'}"
        )
        raise ConfigError(f"the cell has no {asked}; choose from {', '.join(known)}")
    return fitting[0]


def _curves(cell: Cell, folder: Path) -> Iterator[Curve]:
    return (_curve(cell, course) for course in read_courses(folder, cell))


def _curve(cell: Cell, course: Course) -> Curve:
    import numpy as np

    unread = [math.nan] * len(course.loss)
    lr, judged, norm = (np.array(course.beside.get(name, unread)) for name in ("lr", "judged", "grad_norm"))
    return Curve(
        cell=cell,
        phase=course.phase,
        held_lr=course.lr,
        step=np.arange(course.start, course.start + len(course.loss)),
        lr=lr,
        loss=np.array(course.loss),
        judged_loss=judged,
        grad_norm=norm,
        dose=course.dose,
    )


def _is_at(value: float | None, asked: float | None) -> bool:
    return asked is None or (value is not None and math.isclose(value, asked, rel_tol=_SAME))


def _held(curve: Curve) -> str:
    at = "" if curve.held_lr is None else f" at lr {curve.held_lr!r}"
    return at if curve.dose is None else f"{at} of dose {curve.dose!r}"


def _missing(folder: Path | None) -> str:
    where = "this result was not read from a run directory" if folder is None else f"{folder} has none of its curves"
    return f"{where}; load it from the run directory (with its folder curves), or train it again"
