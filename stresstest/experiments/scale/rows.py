"""What the cells of a path come to: a row a size, and a row over all of them with their laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from stresstest.experiments.scale.findings import scale_findings
from stresstest.experiments.scale.laws import Along, Fitted, fitted, ratios_at, recalibrated
from stresstest.experiments.scale.naming import METRICS
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import Size, known_by, named, shown_by
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Bracket, Cell, SummaryRow, TrendRow
from stresstest.results.summary import Reduced, depth_rows

Arm = tuple[str, str]  # variant and parametrization


def reduce(spec: ScaleSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant and size, the smallest first; one a variant over all sizes, which is about the target."""
    rows: list[SummaryRow] = []
    fits: dict[Arm, list[Fitted]] = {}
    for arm in product(spec.variant, spec.parametrization):
        sizes = {next(iter(size.values())): _at(spec, cells, arm, size) for size in spec.places}
        there = {size: mine for size, mine in sizes.items() if mine}
        for size, mine in zip(spec.places, sizes.values(), strict=True):
            point = shown_by(arm[1], spec.parametrization) | _point(size)
            rows += [row.model_copy(update={"point": point}) for row in depth_rows(mine, spec.optimizer)]
        if there:
            fits[arm] = [fitted(_along(metric, there), _target(spec)) for metric in METRICS]
    by_metric = [recalibrated(each) for each in zip(*fits.values(), strict=True)]
    trends = _trends(spec, {arm: list(both) for arm, both in zip(fits, zip(*by_metric, strict=True), strict=True)})
    return Reduced(rows, trends, scale_findings(rows, trends, cells, spec.model_dump(mode="json"), data))


def _at(spec: ScaleSpec, cells: Sequence[Cell], arm: Arm, size: Size) -> list[Cell]:
    """The cells of a size that have ended well."""
    wanted = (arm[0], size.get("depth", spec.depth), "done")
    point = _point(size) | known_by(arm[1])
    return [cell for cell in cells if (cell.variant, cell.depth, cell.status) == wanted and dict(cell.point) == point]


def _along(metric: str, sizes: Mapping[int, Sequence[Cell]]) -> Along:
    cells: tuple[dict[int, Bracket], ...] = tuple(
        {cell.seed: cell.metrics[metric] for cell in mine if metric in cell.metrics} for mine in sizes.values()
    )
    return Along(metric, tuple(float(size) for size in sizes), cells)


def _trends(spec: ScaleSpec, fits: Mapping[Arm, Sequence[Fitted]]) -> list[TrendRow]:
    names = {arm: " ".join((arm[0], *shown_by(arm[1], spec.parametrization).values())) for arm in fits}
    ratios = [ratios_at({names[arm]: both[place] for arm, both in fits.items()}) for place in range(len(METRICS))]
    return [
        TrendRow(
            variant=arm[0],
            optimizer=spec.optimizer,
            metrics={name: summary for each in both for name, summary in each.summaries().items()},
            point=shown_by(arm[1], spec.parametrization) | named(spec.beyond),
            laws=[each.record() | {"ratios": of[names[arm]]} for each, of in zip(both, ratios, strict=True)],
        )
        for arm, both in fits.items()
    ]


def _point(size: Size) -> dict[str, int]:
    return {name: value for name, value in named(size).items() if name != "depth"}


def _target(spec: ScaleSpec) -> float:
    return float(next(iter(spec.beyond.values())))
