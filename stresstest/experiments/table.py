"""The experiments, a line each: what stands here is a command, a function, a scenario's command and a page."""

from __future__ import annotations

from stresstest.experiments.base import Experiments
from stresstest.experiments.batch_sweep.experiment import BatchSweep
from stresstest.experiments.depth_sweep.experiment import DepthSweep
from stresstest.experiments.lr_range.experiment import LrRange
from stresstest.experiments.race.experiment import Race
from stresstest.experiments.scale.experiment import Scale
from stresstest.experiments.shock.experiment import ShockTest
from stresstest.experiments.warmup.experiment import Warmup

EXPERIMENTS = Experiments(
    [
        LrRange(),
        DepthSweep(),
        Warmup(),
        Race(),
        BatchSweep(),
        Scale(),
        ShockTest(),
    ]
)
