"""Muon has the hidden matrices of the user's own model, and AdamW the rest, as two optimizers of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import Training
from stresstest.tasks import load_task
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory
from stresstest.user_model.layout import OwnLayout
from stresstest.user_model.population import UserModel, UserPopulation

CPU = torch.device("cpu")
LR = 0.02


class Net(nn.Module):
    """Two kinds of embeddings, two blocks and, if asked, an output layer of its own."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.bare = nn.Parameter(torch.zeros(1, 8, 8))
        self.token = nn.Embedding(256, 8)
        self.position = nn.Embedding(8, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.output = nn.Linear(8, 256)
        if tied:
            self.output.weight = self.token.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.position.weight + self.bare
        for block in self.blocks:
            h = h + torch.relu(block(h))
        return self.output(h)


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("build", "hidden"),
    [
        (Net, {"blocks.0.weight": (8, 8), "blocks.1.weight": (8, 8)}),
        (lambda: Net(tied=True), {"blocks.0.weight": (8, 8), "blocks.1.weight": (8, 8)}),
        (convolutions, {"1.weight": (6, 36)}),
        (lambda: nn.Linear(3, 2), {}),
    ],
    ids=["transformer", "tied", "convolutions", "linear"],
)
def test_what_lies_between_the_ends_is_hidden(build: Callable[[], nn.Module], hidden: dict[str, object]) -> None:
    layout = OwnLayout(build())
    found = zip(layout.parameters, layout.segments(), strict=True)
    assert {parameter.name: segment.matrix for parameter, segment in found if segment.matrix} == hidden


def test_it_trains_as_torchs_muon_beside_its_adamw() -> None:
    factory = Factory("net", Net, {}, {}, "")
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", 4, 8), CPU, module, batch_size=4)
    model = UserModel(factory, contract(factory, module, batches.batch([0], 0)[0].data), "as-built", 1, 1)
    population = UserPopulation(model, [0], Training(OPTIMIZERS["muon"], {"bfloat16": True}, CPU))
    hidden = [block.weight for block in module.blocks]  # type: ignore[union-attr]
    matrices = [module.bare, module.token.weight, module.position.weight, module.output.weight]  # type: ignore[union-attr]
    rest = [p for p in module.parameters() if all(p is not other for other in (*hidden, *matrices))]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=LR),
    ]
    for step in range(4):
        batch = batches.batch([0], step)
        population.step(batch, torch.tensor([LR]))
        module.zero_grad()
        model.contract.loss(module, batch[0].data).backward()
        for optimizer in optimizers:
            optimizer.step()
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert (population.theta_RP[0] - expected).abs().max() < 4 * LR * 2.0**-8
