"""Noise on the weights of a replica, in proportion to each tensor's size."""

from __future__ import annotations

from typing import Any

import torch

from stresstest.engine.replicas import Replicas
from stresstest.experiments.shock.disturbance import Scene
from stresstest.user_model.layout import OwnLayout

NULL_SIZE = 1e-7  # of what a null twin is disturbed by: one unit in the last place of float32, or so


def add_noise(population: Replicas[Any], size: float, generator: torch.Generator, seen: bool = False) -> None:
    """Add normal noise of `size` times the root mean square of each tensor; where it shall be `seen`, no less than the
    last place of its numbers."""
    theta_RP, layout = population.theta_RP, population.model.layout
    noise_P = torch.randn(theta_RP.shape[1], generator=generator, dtype=torch.float64).to(theta_RP)
    for place, (start, stop, rows, *_) in enumerate(layout.segments()):
        part = theta_RP[:, start:stop].view(len(theta_RP), rows, (stop - start) // rows)
        scale = part.double().square().mean(2, keepdim=True).sqrt().to(part)
        dtype = layout.parameters[place].dtype if isinstance(layout, OwnLayout) else part.dtype
        coarse = torch.finfo(dtype).eps if seen and dtype.itemsize < torch.float32.itemsize else 0.0
        part.add_(noise_P[start:stop].view(1, rows, -1) * scale * max(size, coarse))
    population.changed()


def null_noise(scene: Scene) -> None:
    """Disturb every weight in its last place: what a null twin is."""
    add_noise(scene.population, NULL_SIZE, scene.generator(), seen=True)
