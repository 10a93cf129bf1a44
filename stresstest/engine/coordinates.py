"""How far the output of every place moves in the first steps of training: the coordinate check.

Yang et al. 2022 ("Tensor Programs V"), App. D.1; Everett et al. 2024, Sec. 3.
Dimension key: R replica, N numbers of an output, P place, T step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine.population import Population
from stresstest.engine.probes import Outputs
from stresstest.engine.replicas import Replicas
from stresstest.engine.train import BatchSource
from stresstest.tasks.task import INITIAL


@dataclass(frozen=True)
class Coordinates:
    """Of one replica, in the order of the forward pass: the root mean square of each output x_t, and of x_t - x_0.

    rms_PT has the steps 0 to T, change_PT the steps 1 to T; what is not finite stays so.
    """

    places: tuple[str, ...]
    rms_PT: NDArray[np.float64]
    change_PT: NDArray[np.float64]


def follow(
    population: Replicas[Any], batches: BatchSource[Any], seeds: Sequence[int], lr: float, num_steps: int
) -> list[Coordinates]:
    """Train freshly initialised replicas `seeds`, and look after each step at one batch, which is none of them."""
    looked_at = batches.batch(seeds, 0, INITIAL)
    population.profile(looked_at)
    first = _outputs(population, looked_at)
    now, rms, change = first, [_rms(first)], []
    lr_R = torch.full((len(seeds),), lr, device=batches.device)
    for step in range(num_steps):
        population.step(batches.batch(seeds, step), lr_R)
        now = _outputs(population, looked_at)
        rms.append(_rms(now))
        change.append(_rms({place: now[place] - x_RN for place, x_RN in first.items()}))
    own = _not_handed_on(first, now)
    rms_RPT, change_RPT = (np.stack(parts, axis=-1)[:, own] for parts in (rms, change))
    places = tuple(np.array(list(first))[own].tolist())
    return [Coordinates(places, *parts) for parts in zip(rms_RPT, change_RPT, strict=True)]


def _not_handed_on(*looks: dict[str, Tensor]) -> list[int]:
    """Which places put out something else than the one before: a module that has parts may hand on the last one's."""
    places = list(looks[0])
    return [
        place
        for place in range(len(places))
        if place == 0 or any(not torch.equal(look[places[place - 1]], look[places[place]]) for look in looks)
    ]


def _outputs(population: Replicas[Any], batch: Any) -> dict[str, Tensor]:
    """What every place puts out, [R, N]; of a built-in model the embedding is one too."""
    found: dict[str, Tensor] = {}
    if isinstance(population, Population):
        layout = population.model.layout
        with torch.no_grad():
            x = population.model.embed(layout.unbind(layout.views(population.theta_RP)), batch.inputs)
        found["embedding"] = x.flatten(1).clone()
    look = population.look(batch, Outputs)
    return found | {place: x_RN for (signal, place), x_RN in look.values.items() if signal == "output"}


def _rms(outputs: dict[str, Tensor]) -> NDArray[np.float64]:
    """Of every place, [R, P]."""
    norms = [
        torch.linalg.vector_norm(x_RN, dim=1, dtype=torch.float64) / math.sqrt(x_RN.shape[1])
        for x_RN in outputs.values()
    ]
    found: NDArray[np.float64] = torch.stack(norms, dim=1).cpu().numpy()
    return found
