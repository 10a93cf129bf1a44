"""Stacked own models by CUDA graphs, on a CPU by a tape: the same steps, and none where Python changes something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stresstest.engine import graphs
from stresstest.user_model.bench import UserBench
from stresstest.user_model.preflight import not_captured
from stresstest.user_model.stacked import StackedUserPopulation, is_capturable
from tests.engine.tape import capture
from tests.user_model.test_population import Net, made


class Counting(Net):
    """Multiplies its logits by how often it was called, which a graph does not count."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1.0 + self.calls)


class Reading(Net):
    """Reads a number of its parameters, which nothing in a capture may."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(self.frozen.bias.detach().sum() > -1e9)


@pytest.fixture(autouse=True)
def taped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_cuda_graph", capture)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lamb"])
def test_a_captured_model_takes_the_same_steps_with_its_buffers(optimizer: str) -> None:
    model, batches, training = made(optimizer=optimizer, clip_norm=1.0)
    one, other = (
        StackedUserPopulation(model, [1, 2, 1], replace(training, kernel=kernel)) for kernel in ("torch", "graph")
    )
    for step in range(6):
        lr_R = torch.tensor([0.1, 0.1 * 1.5**step, 1.0])
        batch = batches.batch([1, 2, 1], step)
        for expected, found in zip(one.step(batch, lr_R), other.step(batch, lr_R), strict=True):
            assert torch.equal(expected, found)
    assert torch.equal(one.theta_RP, other.theta_RP)
    batch = batches.batch([1, 2, 1], 9)
    assert torch.equal(one.evaluate(batch, as_trained=False), other.evaluate(batch, as_trained=False))  # BatchNorm's


@pytest.mark.parametrize(
    ("stacked", "why"),
    [(False, "its replicas do not train as one computation"), (True, "they do something else in a CUDA graph")],
)
def test_a_line_says_why_steps_are_not_captured(stacked: bool, why: str) -> None:
    model, batches, training = made()
    bench = UserBench(model, training, batches, stacked=stacked)
    assert not_captured(bench, "net.py:build").startswith(
        f"  warning: net.py:build: its steps are launched one by one, without kernel graph: {why}"
    )


def test_what_python_changes_or_reads_is_not_captured() -> None:
    assert is_capturable(*made())
    assert not is_capturable(*made(Counting))
    assert not is_capturable(*made(Reading))
