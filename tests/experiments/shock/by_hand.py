"""A training loop in plain torch, and a run under a shock to set beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.experiments.shock.disturbance import Disturbance
from stresstest.experiments.shock.line import Line, scene_of
from stresstest.experiments.shock.table import parse_shock
from stresstest.measurements.base import Bench
from stresstest.user_model.population import UserPopulation
from tests.experiments.shock.benches import AFTER, SEED, schedule_of

LR = 0.02


class ByHand:
    """A training loop in plain torch, on the batches and from the weights of a bench."""

    def __init__(self, bench: Bench, lr: float = LR) -> None:
        self.batches = bench.batches
        self.module: nn.Module = bench.model.make(SEED)  # type: ignore[attr-defined]  # of a model of the user's own
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=lr)
        self.losses: list[float] = []

    def data(self, step: int) -> Any:
        return self.batches.batch([SEED], step)[0].data

    def loss(self, data: Any) -> Tensor:
        x, y = data
        return F.cross_entropy(self.module(x).flatten(0, 1), y.flatten())

    def take(self, step: int, lr: float, data: Any = None, change: Callable[[], None] = lambda: None) -> None:
        """A step on `data`, whose loss is that of its own batch before; `change` meets the gradient."""
        with torch.no_grad():
            self.losses.append(float(self.loss(self.data(step))))
        for group in self.optimizer.param_groups:
            group["lr"] = float(np.float32(lr))
        self.optimizer.zero_grad()
        self.loss(self.data(step) if data is None else data).backward()
        change()
        self.optimizer.step()

    def vector(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.module.parameters()])


def shocked(before: Line, shock: str | Disturbance) -> Line:
    line = before.branch()
    chosen = shock if isinstance(shock, Disturbance) else disturbance(shock)
    line.shocked(chosen, "drawn")
    return line


def disturbance(text: str) -> Disturbance:
    shock = parse_shock(text)
    assert shock.only is not None
    return shock.at(shock.only)


def by_hand(
    bench: Bench, shocked: Callable[[ByHand, int, float], None], at: Callable[[ByHand], None] | None = None
) -> ByHand:
    """Ordinary steps, and from the shock on those that `shocked` takes."""
    hand = ByHand(bench)
    for step, lr in enumerate(schedule_of(LR)):
        if step == AFTER and at is not None:
            at(hand)
        if step < AFTER:
            hand.take(step, lr)
        else:
            shocked(hand, step, lr)
    return hand


def same(line: Line, hand: ByHand, rtol: float = 1e-6) -> None:
    np.testing.assert_allclose(line.run.losses, hand.losses, rtol=rtol)
    torch.testing.assert_close(line.population.theta_RP[0], hand.vector(), rtol=10 * rtol, atol=rtol)


def words_of(vector: Tensor) -> Any:
    return vector.detach().numpy().view(np.uint32).copy()


def module_of(line: Line) -> nn.Module:
    assert isinstance(line.population, UserPopulation)
    return line.population.modules[0]


def change_state(line: Line, text: str, draw: str = "drawn") -> None:
    state = disturbance(text).state
    assert state is not None
    state(scene_of(line.bench, line.population, SEED, AFTER, draw))
