"""`stresstest warmup` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Resolution, Row
from stresstest.experiments.resolution import exact, grid_metrics, kept_scores
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, Result

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document
    from stresstest.results.summary import Reduced
    from stresstest.runs.settings import RunSettings

_OVER_MAP = ("warmup_sensitivity", "warmup_gain", "warmup_share", "lr_share", "interaction_share")


class Warmup(Experiment[WarmupSpec]):
    """The loss over warm-up x peak LR, how much warm-up it needs, and a search for the best."""

    name = "warmup"
    spec = WarmupSpec
    summary = "Map the loss over warm-up x peak LR: how much warm-up does it need, and how much does it matter?"
    details = (
        "With no options: Post-LN and Pre-LN, three seeds, a map of 40 settings and a search of 10 trials of Optuna's; "
        "about 15 minutes on 2 cores. `--trials 0` maps alone, `--no-map --trials 40` searches alone.\n\n"
        "The sensitivities: lr_sensitivity (Wortsman et al. 2023) is the mean over the peak LRs of min(loss, loss at "
        "initialisation) minus the lowest; warmup_sensitivity is the same over the warm-ups, averaged over the LRs "
        "that some warm-up trains. Both depend on the ranges and on the number of steps; use them to compare variants "
        "on equal ranges. They mean little where a change rescales the LR, and are 0 where nothing learns."
    )
    source = "Xiong et al. 2020; Wortsman et al. 2023"
    varies = ("warmup", "warmup_steps")
    gated = ("warmup_sensitivity",)
    shares_search = True

    def plan(self, spec: WarmupSpec) -> Plan:
        """One cell a place of the map and seed; with a search, more."""
        from stresstest.experiments.warmup.measure import plan

        return plan(spec)

    def metrics(self, spec: WarmupSpec) -> dict[str, Resolution]:
        """Of the map; a search alone has none."""
        if not spec.map:
            return {}
        found = exact(["lr_sensitivity"]) | grid_metrics(spec) | kept_scores(spec)
        return found | exact(_OVER_MAP, over_all=True)

    def rows(self, spec: WarmupSpec) -> list[Row]:
        """One a shape and steps of warm-up, and one a shape over all steps."""
        found: list[Row] = []
        for variant, optimizer in product(spec.variant, spec.optimizers):
            at = {"variant": variant, "optimizer": optimizer}
            places = product(spec.warmup, spec.warmup_steps)
            found += [at | {"depth": spec.depth, "warmup": shape, "warmup_steps": steps} for shape, steps in places]
            found += [at | {"warmup": shape} for shape in spec.warmup]
        return found

    def cost(self, spec: WarmupSpec) -> Cost:
        """The map's places and the trials."""
        from stresstest.experiments.warmup.map import map_points

        runs = len(spec.seeds) * ((len(map_points(spec)) if spec.map else 0) + spec.trials)
        return Cost(runs, runs * spec.train_steps, spec.batch_size)

    def reduce(self, spec: WarmupSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """Rows of the map, the best settings of the search, and what they say."""
        from stresstest.experiments.warmup.rows import reduce

        return reduce(spec, cells, data)

    def document(self, result: Result) -> Document:
        """A map of each arm, tables over LRs and warm-ups, the best settings."""
        from stresstest.experiments.warmup.document import document

        return document(result)

    def asks_for_more(self, spec: WarmupSpec) -> str:
        """A search does."""
        return "a search (--trials)" if spec.trials else ""

    def check_storage(self, plan: Plan, settings: RunSettings) -> None:
        """Whether the study there can be joined."""
        from stresstest.experiments.warmup.search import check_storage

        check_storage(plan, settings)
