"""What cells cost, one by one and together."""

from __future__ import annotations

from typing import Any

import pytest

from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.workload import work_of, works_of
from stresstest.specs.profiles import make_spec
from tests.experiments.test_conformance import SHAPE, TINY


@pytest.mark.parametrize("name", TINY)
def test_cells_together_cost_what_each_does(name: str) -> None:
    experiment: Any = EXPERIMENTS[name]
    plan = experiment.plan(
        make_spec(experiment.spec, "quick", {**SHAPE, "seeds": (0, 1), **TINY[name], "device": "cpu"})
    )
    assert works_of(plan, plan.places) == [work_of(plan, cell) for cell in plan.places]
    assert len(plan.places) > 1
