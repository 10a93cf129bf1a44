"""How the rows and sizes of a path are called, and the sizes that would come next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import AXES, NAMES
from stresstest.models.variants import PARAMETRIZATIONS
from stresstest.results.records import Cell, SummaryRow, TrendRow

METRICS = ("max_stable_lr", "best_lr")  # those that have laws
_LABELS = {"batch_size": "batch size", "seq_len": "sequence length", "train_steps": "training steps"}
_STEP = math.sqrt(2.0)  # times, between sizes


def arm(row: SummaryRow | TrendRow | Cell) -> str:
    """What is compared with others along the path: the variant, and its parametrization where that is not SP."""
    return f"{row.variant} {short_name(str(dict(row.point).get('parametrization', 'sp')))}".rstrip()


def short_name(parametrization: str) -> str:
    """`muP`; nothing of `sp`."""
    return PARAMETRIZATIONS[parametrization].words.partition(" ")[0]


def ratio_key(row: TrendRow) -> str:
    """The name of a row in the ratios of others."""
    return f"{row.variant} {dict(row.point).get('parametrization', '')}".rstrip()


def label(axis: str) -> str:
    """The size in words."""
    return _LABELS.get(axis, axis)


def size_of(row: SummaryRow | Cell, axis: str) -> float:
    """Where on the path a row or a cell lies."""
    point: dict[str, Any] = {"depth": row.depth, **row.point}
    return float(point[axis])


def named_size(axis: str, size: float) -> str:
    """`width 64`."""
    return f"{label(axis)} {size:.0f}"


def target_words(spec: ScaleSpec, trend: TrendRow) -> str:
    """`width 384, depth 24`."""
    point: dict[str, Any] = {**trend.point}
    return ", ".join(named_size(axis, point[axis]) for axis in (NAMES[grown] for grown in spec.path) if axis in point)


def path_words(spec: ScaleSpec) -> str:
    """`width 32 to 256, depth 2 to 8`."""
    return ", ".join(f"{label(NAMES[axis])} {values[0]} to {values[-1]}" for axis, values in spec.path.items())


def of_arm(rows: Sequence[SummaryRow], trend: TrendRow) -> list[SummaryRow]:
    """The sizes of one row over all of them, the smallest first."""
    return [row for row in rows if arm(row) == arm(trend)]


def cells_of(cells: Sequence[Cell], trend: TrendRow) -> list[Cell]:
    """The cells of a row that have ended well."""
    return [cell for cell in cells if arm(cell) == arm(trend) and cell.status == "done"]


def law_of(trend: TrendRow, metric: str) -> Mapping[str, Any]:
    """What is stored of a metric's law; empty where nothing is."""
    return next((law for law in trend.laws if law.get("metric") == metric), {})


def longer(spec: ScaleSpec, end: float) -> dict[str, tuple[int, ...]]:
    """The path with further sizes, 1.41 apart, the last of which is `end` or a little more; by setting."""
    sizes = next(iter(spec.path.values()))
    octaves = math.log(end / sizes[-1])
    number = max(1, math.ceil(octaves / math.log(_STEP) - 1e-6))
    shares = [octaves * (place + 1) / number / math.log(sizes[-1] / sizes[0]) for place in range(number)]
    return {listed: _on(getattr(spec, listed), shares) for listed, axis in AXES.items() if axis in spec.path}


def _on(values: Sequence[int], shares: Sequence[float]) -> tuple[int, ...]:
    """Further values, in shares of the path's length, as multiples of what all values are multiples of."""
    unit, factor = math.gcd(*values), values[-1] / values[0]
    found = list(values)
    for share in shares:
        wanted = values[-1] * factor**share
        found.append(max(found[-1] + unit, unit * math.ceil(wanted / unit - 1e-6)))
    return tuple(found)
