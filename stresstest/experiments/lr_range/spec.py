"""Settings of `stresstest lr-range`."""

from __future__ import annotations

from stresstest.specs.base import OneDepthSpec
from stresstest.specs.boundary import BoundarySpec


class LrRangeSpec(BoundarySpec, OneDepthSpec):
    """Everything that decides the result of `stresstest lr-range`."""
