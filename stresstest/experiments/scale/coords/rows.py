"""What the cells of a coordinate check come to: a row a variant, and a finding each place that is not as under muP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from stresstest.experiments.scale.coords.exponents import Checked, Exponent, Place, checks, largest
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import shown_by
from stresstest.reports.numbers import failures
from stresstest.results.records import Bracket, Cell, Finding, TrendRow, summarise
from stresstest.results.summary import Reduced

METRIC = "change_exponent"


def reduce(spec: ScaleSpec, cells: Sequence[Cell]) -> Reduced:
    """One row a variant over all widths, and what the places say."""
    trends = []
    for variant, each in product(spec.variant, spec.parametrization):
        mine = [cell for cell in cells if _stands_for(cell, variant, each)]
        found = {seed: Bracket.exactly(value) for seed, value in largest(mine)} if mine else {}
        metrics = {METRIC: summarise(METRIC, found)} if found else {}
        point = shown_by(each, spec.parametrization)
        trends.append(TrendRow(variant=variant, optimizer=spec.optimizer, metrics=metrics, point=point))
    told = [finding for each in checks(cells) for finding in _findings(each)]
    return Reduced([], trends, [*failures(cells), *told])


def _stands_for(cell: Cell, variant: str, parametrization: str) -> bool:
    return (cell.variant, cell.status, cell.point.get("parametrization", "sp")) == (variant, "done", parametrization)


def _findings(checked: Checked) -> Iterator[Finding]:
    alarmed = [place for place in checked.places if place.alarm]
    for place in alarmed:
        yield Finding(
            kind="coords", subject=checked.name, text=f"{checked.name}: {place.name} {sentence(place)}: not muP."
        )
    if not alarmed and not checked.broken:
        text = f"{checked.name}: no output's change grows or vanishes with width, as under muP."
        yield Finding(kind="coords", subject=checked.name, text=text)


def sentence(place: Place) -> str:
    """What a place that raised an alarm does, after its name."""
    if place.alarm == "grows at the start":
        return f"grows at initialisation as {power(place.initial)}"
    return f"{place.alarm} as {power(place.change)}"


def power(exponent: Exponent | None) -> str:
    """An exponent with its interval, of the width."""
    assert exponent is not None, "only asked of what raised an alarm"
    return f"width^{exponent.text}"
