"""The runs of training in a cell's curves, step by step: what `curves/KEY.npz` of a run directory holds."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.results.cell import Cell
from stresstest.results.sums import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CURVES = ("lr", "judged", "grad_norm")  # what may stand beside a loss


@dataclass(frozen=True)
class Course:
    """One run of training: its losses, and by name what was read beside them, a number a step, from step `start`.

    phase: ramp, hold, or recipe of a run through a schedule; of a shock, twin of the undisturbed run, null of its null
    twins, shock of the disturbed ones. lr: of a hold, the learning rate that was held. dose: of a shock, its size.
    """

    phase: str
    loss: Sequence[float]
    beside: Mapping[str, Sequence[float]]
    lr: float | None = None
    start: int = 0
    dose: float | None = None


def read_courses(folder: Path, cell: Cell) -> list[Course]:
    """The runs of a cell whose curves lie in this run directory; none where they do not.

    Curves that are damaged are a `ConfigError`.
    """
    path = folder / "curves" / f"{cell.key}.npz"
    if Path(cell.key).name != cell.key or not path.is_file():
        return []
    import numpy as np

    try:
        content = path.read_bytes()
        if cell.curves_sum and digest(content) != cell.curves_sum:
            raise ValueError("the checksum does not fit")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return list(courses(cell, {name: stored[name] for name in stored.files}))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(
            f"the curves in {path} are damaged ({error}); the line that made the run trains that cell again"
        ) from None


def courses(cell: Cell, arrays: Mapping[str, NDArray[Any]]) -> Iterator[Course]:
    """Every run of a cell that has a loss, from its curves by name: [T], or [H, T] of held LRs, null twins, doses."""
    for name, losses in arrays.items():
        prefix = name.removesuffix("loss")
        if prefix == name:
            continue
        phase = prefix.strip("_") or "recipe"
        if losses.ndim == 2 and phase in ("null", "shock"):
            yield from _branched(phase, losses, arrays)
        elif losses.ndim == 2:
            yield from _held(cell, phase, losses, arrays.get(f"{prefix}lr"))
        elif losses.ndim == 1:
            beside = {curve: arrays[f"{prefix}{curve}"] for curve in _CURVES if f"{prefix}{curve}" in arrays}
            whole = {curve: values.tolist() for curve, values in beside.items() if values.shape == losses.shape}
            yield Course(phase, losses.tolist(), whole)


def _held(cell: Cell, phase: str, losses: NDArray[Any], lrs: NDArray[Any] | None) -> Iterator[Course]:
    """Each held LR, without the NaN that pads it to the longest."""
    records: Sequence[Mapping[str, Any]] = cell.hold if phase == "hold" else ()
    for i, row in enumerate(losses):
        steps = records[i].get("steps", len(row)) if i < len(records) else len(row)
        lr = None if lrs is None else float(lrs[i])
        kept = row[:steps].tolist()
        yield Course(phase, kept, {} if lr is None else {"lr": [lr] * len(kept)}, lr)


def _branched(phase: str, losses: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Course]:
    """The runs that branch from the twin at the step of the shock, each up to where it is not finite."""
    twin_lrs = arrays["twin_lr"]
    start = len(twin_lrs) - losses.shape[1]
    for i, row in enumerate(losses):
        finite = (row == row).nonzero()[0]  # NaN is not itself
        kept = row[: int(finite[-1]) + 1 if len(finite) else 0].tolist()
        beside = {"lr": twin_lrs[start : start + len(kept)].tolist()} if phase == "null" else {}
        dose = float(arrays["shock_dose"][i]) if phase == "shock" else None
        yield Course(phase, kept, beside, start=start, dose=dose)
