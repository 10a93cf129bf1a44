"""How a learning-rate range test is planned; it is trained by ramp and hold."""

from __future__ import annotations

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan, canonical, make_plan
from stresstest.measurements.boundary import measure_boundary


def plan(spec: LrRangeSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    spec = canonical(spec)
    return make_plan("lr-range", spec, [spec.depth], frozenset({"depth"}), measure_boundary)
