"""`stresstest race` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Resolution, Row
from stresstest.experiments.race.spec import RaceSpec
from stresstest.experiments.resolution import exact, grid_metrics, kept_scores
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, Result

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document
    from stresstest.results.summary import Reduced

_RACE = ("steps_to_target", "tokens_to_target", "seconds_to_target", "speedup")


class Race(Experiment[RaceSpec]):
    """Steps, tokens and seconds to a target loss, variants and optimizers side by side on paired seeds."""

    name = "race"
    spec = RaceSpec
    summary = (
        "Race to a target loss: steps, tokens and seconds of variants and optimizers, each at its best learning rate."
    )
    details = (
        "With no options: four norm variants at four peak LRs, three seeds, to the loss that Post-LN has at its end."
    )
    source = "Bachlechner et al. 2020 (ReZero)"
    varies = ()
    gated = ("max_stable_lr",)

    def plan(self, spec: RaceSpec) -> Plan:
        """One cell an entrant, peak LR and seed."""
        from stresstest.experiments.race.measure import plan

        return plan(spec)

    def metrics(self, spec: RaceSpec) -> dict[str, Resolution]:
        """Of each entrant at its best peak LR."""
        return grid_metrics(spec) | kept_scores(spec) | exact(_RACE)

    def rows(self, spec: RaceSpec) -> list[Row]:
        """One an entrant."""
        pairs = product(spec.variant, spec.optimizers)
        return [{"variant": variant, "optimizer": optimizer, "depth": spec.depth} for variant, optimizer in pairs]

    def cost(self, spec: RaceSpec) -> Cost:
        """Every optimizer at every peak LR."""
        runs = len(spec.seeds) * len(spec.optimizer) * spec.num_lrs
        return Cost(runs, runs * spec.train_steps, spec.batch_size)

    def reduce(self, spec: RaceSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row an entrant, the reference first, and what they say."""
        from stresstest.experiments.race.rows import reduce

        return reduce(spec, cells, data)

    def document(self, result: Result) -> Document:
        """A table of entrants."""
        from stresstest.experiments.race.document import document

        return document(result)
