"""How a cell of the coordinate check is trained: some steps at one LR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresstest.engine.coordinates import Coordinates, follow
from stresstest.engine.memory import in_halves
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.results.bracket import finite
from stresstest.specs.boundary import BoundarySpec

NUM_STEPS = 10
_DIGITS = 5  # of what is stored


def measure_coords(bench: Bench, spec: BoundarySpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Train every cell's seed at `start_lr`, and see how far the output of each place has moved."""

    def measure(seeds: Sequence[int]) -> list[Coordinates]:
        bench.model.release()
        population = bench.populate(seeds, [spec.start_lr] * len(seeds))
        return follow(population, bench.batches, seeds, spec.start_lr, NUM_STEPS)

    found = in_halves([cell.seed for cell in cells], bench.capacity, measure)
    return [Measurement(records={"coords": _record(each)}) for each in found]


def _record(found: Coordinates) -> dict[str, Any]:
    return {"places": list(found.places), "rms": _rows(found.rms_PT), "change": _rows(found.change_PT)}


def _rows(values_PT: NDArray[np.float64]) -> list[list[float | None]]:
    """Rounded; `None` where it is not finite."""
    return [[finite(float(f"{value:.{_DIGITS}g}")) for value in row] for row in values_PT]
