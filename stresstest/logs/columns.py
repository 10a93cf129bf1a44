"""Rows of named tokens, collected into curves."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

import numpy as np

from stresstest.logs.curve import Curve
from stresstest.logs.values import number


def curves_of(rows: Iterable[Mapping[str, object]], step_key: str | None) -> dict[str, Curve]:
    """The curves of rows; each value's step is that of its row."""
    values: dict[str, array[float]] = {}
    steps: dict[str, array[float]] = {}
    places: dict[str, array[int]] = {}
    for place, row in enumerate(rows):
        step = number(row.get(step_key)) if step_key is not None else None
        for key, token in row.items():
            value = number(token)
            if value is None:
                continue
            if key not in values:
                values[key], steps[key], places[key] = array("d"), array("d"), array("q")
            values[key].append(value)
            steps[key].append(float("nan") if step is None else step)
            places[key].append(place)
    return {
        key: Curve(np.array(steps[key]), np.array(values[key]), np.array(places[key], dtype=np.int64)) for key in values
    }
