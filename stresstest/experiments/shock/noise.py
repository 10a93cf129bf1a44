"""Noise on the weights of a replica, in proportion to each tensor's size."""

from __future__ import annotations

from typing import Any

import torch

from stresstest.engine.population import Replicas
from stresstest.experiments.shock.disturbance import Scene

NULL_SIZE = 1e-7  # of what a null twin is disturbed by: one unit in the last place of float32, or so


def add_noise(population: Replicas[Any], size: float, generator: torch.Generator) -> None:
    """Add normal noise of `size` times the root mean square of each tensor."""
    theta_RP = population.theta_RP
    noise_P = torch.randn(theta_RP.shape[1], generator=generator, dtype=torch.float64).to(theta_RP)
    for start, stop, rows, _ in population.model.layout.segments():
        part = theta_RP[:, start:stop].view(len(theta_RP), rows, (stop - start) // rows)
        scale = part.double().square().mean(2, keepdim=True).sqrt().to(part)
        part.add_(noise_P[start:stop].view(1, rows, -1) * scale * size)
    population.changed()


def null_noise(scene: Scene) -> None:
    """Disturb every weight in its last place: what a null twin is."""
    dtypes = getattr(scene.population.model.layout, "dtypes", ())
    coarse = [torch.finfo(dtype).eps for dtype in dtypes if dtype.itemsize < torch.float32.itemsize]
    add_noise(scene.population, max([NULL_SIZE, *coarse]), scene.generator())
