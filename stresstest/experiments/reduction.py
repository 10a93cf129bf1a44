"""From the cells of a run to its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.experiments.table import EXPERIMENTS
from stresstest.results.records import RESULT_SCHEMA, Cell, Result

_OF_THE_RUN = ("command", "reproduce", "spec", "rules", "environment", "data")


def result_of(manifest: Mapping[str, Any], cells: Sequence[Cell]) -> Result:
    """What the cells of a run come to, by the experiment that its manifest names."""
    experiment = EXPERIMENTS[manifest["command"]]
    reduced = experiment.reduce(experiment.spec.model_validate(manifest["spec"]), cells, manifest["data"])
    return Result(
        schema_=RESULT_SCHEMA,
        cells=list(cells),
        summary=reduced.summary,
        trends=reduced.trends,
        searches=reduced.searches,
        findings=reduced.findings,
        **{name: manifest[name] for name in _OF_THE_RUN},
    )
