"""Many branches of one run, trained on at once: what the benchmarks of shocks share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stresstest.engine.train import judged_loss, train
from stresstest.experiments.shock.disturbance import NONE, Disturbance
from stresstest.experiments.shock.line import Line
from stresstest.measurements.base import Bench

Array = NDArray[np.float64]


def branched(bench: Bench, base: Line, disturbances: Sequence[tuple[str, Disturbance]]) -> Array:
    """The losses of each branch from the shock on, [N, T]: one step under its disturbance, all others at once.

    A disturbance comes with the name of what it draws. Each branch trains as if it were alone.
    """
    first = [_one_step(bench, base, *each) for each in disturbances]
    left = [line for line in first if not line.run.detector.over]
    if left:
        seeds = [base.run.seed] * len(left)
        lr_TR = np.repeat(base.lr_N[base.step + 1 :, None], len(left), axis=1)
        population = bench.populate(seeds, [float(lr_TR.max())] * len(left))
        population.restore(_rows([line.population.state() for line in left]))
        for block in train(population, bench.batches, seeds, lr_TR, base.step + 1):
            judged = judged_loss(block.loss, block.constant, bench.batches.baseline_loss)
            for t in range(len(block.loss)):
                for row, line in enumerate(left):
                    if not line.run.detector.over:
                        line.run.take(float(base.lr_N[len(line.run.losses)]), float(judged[t, row]), block, t, row)
    return np.stack([Line(bench, line.population, line.run, base.lr_N).losses_from(base.step) for line in first])


def _one_step(bench: Bench, base: Line, name: str, disturbance: Disturbance) -> Line:
    line = base.branch()
    short = Line(bench, line.population, copy.deepcopy(base.run), base.lr_N[: base.step + 1], base.step)
    short.shocked(disturbance, name)
    return short


def _rows(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """States of one replica each as that of all."""
    return {
        name: _rows([state[name] for state in states])
        if isinstance(part, dict)
        else torch.cat([state[name] for state in states])
        for name, part in states[0].items()
    }


UNDISTURBED = ("", NONE)
