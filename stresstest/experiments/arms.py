"""An arm: a variant with an optimizer and a shape of warm-up, trained at every peak LR of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stresstest.results.records import (
    HARMLESS,
    TRAINED,
    Bracket,
    Cell,
)
from stresstest.specs.lr_grid import LrGridSpec


@dataclass(frozen=True)
class Arm:
    """One variant with one optimizer and one shape of warm-up: the cells by (warm-up, peak LR) and seed."""

    variant: str
    depth: int
    optimizer: str
    warmup: str
    cells: Mapping[tuple[int, float], Mapping[int, Cell]]

    @cached_property
    def warmups(self) -> list[int]:
        """The steps of warm-up, ascending."""
        return sorted({steps for steps, _ in self.cells})

    @cached_property
    def lrs(self) -> list[float]:
        """The peak learning rates, ascending."""
        return sorted({lr for _, lr in self.cells})

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that have a result everywhere on the map: the statistics are theirs."""
        everywhere = [set(by_seed) for by_seed in self.cells.values()]
        full = len(self.cells) == len(self.warmups) * len(self.lrs)
        return sorted(set.intersection(*everywhere)) if everywhere and full else []

    @cached_property
    def window(self) -> list[float]:
        """The peak LRs that some warm-up trains, in most seeds: the same for every seed."""
        return [lr for lr in self.lrs if any(self._trains_mostly(steps, lr) for steps in self.warmups)]

    def trained(self, steps: int, lr: float, seed: int) -> bool:
        """Whether one run trained."""
        return self.cells[steps, lr][seed].recipe["outcome"] in TRAINED

    def harmless(self, steps: int, lr: float, seed: int) -> bool:
        """Whether one run did not break."""
        return self.cells[steps, lr][seed].recipe["outcome"] in HARMLESS

    def loss(self, steps: int, lr: float, seed: int) -> float:
        """One run's loss, at most that of having learned nothing."""
        return float(self.cells[steps, lr][seed].recipe["loss"])

    def cap(self, seed: int) -> float:
        """The loss of having learned nothing, of one seed."""
        return float(next(by_seed[seed] for by_seed in self.cells.values()).recipe["cap"])

    def _trains_mostly(self, steps: int, lr: float) -> bool:
        return 2 * sum(self.trained(steps, lr, seed) for seed in self.seeds) > len(self.seeds)


def grid_lrs(spec: LrGridSpec) -> list[float]:
    """The peak learning rates, by equal factors."""
    return [float(f"{lr:.12g}") for lr in np.geomspace(spec.start_lr, spec.end_lr, spec.num_lrs)]


def point(optimizer: str, shape: str, warmup_steps: int, peak_lr: float) -> dict[str, Any]:
    """One setting in its canonical form: 1 step of warm-up is none."""
    if warmup_steps <= 1 or shape == "none":
        shape, warmup_steps = "none", 0
    return {"optimizer": optimizer, "warmup": shape, "warmup_steps": warmup_steps, "peak_lr": peak_lr}


def max_stable_lr(arm: Arm, steps: int, seed: int) -> Bracket:
    """From the last harmless peak LR to the first that is not, going up from the smallest that is."""
    harmless = [lr for lr in arm.lrs if arm.harmless(steps, lr, seed)]
    if not harmless:
        return Bracket(low=None, high=None)
    broken = [lr for lr in arm.lrs if lr > harmless[0] and lr not in harmless]
    first = min(broken, default=None)
    return Bracket(low=max(lr for lr in harmless if first is None or lr < first), high=first)
