"""The settings of every experiment, by its command."""

from __future__ import annotations

from collections.abc import Mapping

from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.race.spec import RaceSpec
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.specs.base import TrainingSpec

SPECS: Mapping[str, type[TrainingSpec]] = {
    "lr-range": LrRangeSpec,
    "depth-sweep": DepthSweepSpec,
    "warmup": WarmupSpec,
    "race": RaceSpec,
    "batch-sweep": BatchSweepSpec,
}
