"""The run that shocks are held against by hand: a small model of one's own under torch's Adam."""

from __future__ import annotations

import pytest

from stresstest.experiments.shock.line import Line
from stresstest.measurements.base import Bench
from tests.experiments.shock.benches import base, bench_of, schedule_of, spec_of
from tests.experiments.shock.by_hand import LR


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of(spec_of(own="build", optimizer_fn="adam"))


@pytest.fixture(scope="module")
def before(bench: Bench) -> Line:
    return base(bench, schedule_of(LR))
