"""The z-loss: log(Z)^2 at every position that is asked for, in the training loss alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.cli.main import run as run_line
from stresstest.engine.population import Population
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench
from stresstest.models.block import asked_cross_entropy, mean_cross_entropy
from stresstest.specs.profiles import make_spec
from stresstest.tasks.task import INITIAL, VALIDATION

Z = 0.01


def penalty(logits_NC: Tensor) -> Tensor:
    return logits_NC.exp().sum(1).log().square().mean()


def bench(**settings: Any) -> Bench:
    shape = {"width": 16, "heads": 2, "seq_len": 16, "depth": 1, "variant": "pre-ln", "device": "cpu", "seeds": "2"}
    return make_bench(make_spec(LrRangeSpec, "quick", shape | settings), "pre-ln", 1, "adam", "cpu")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_mean_square_of_the_log_of_the_softmaxs_sum(smoothing: float) -> None:
    logits = 3.0 * torch.randn(2, 20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(40).view(2, 20) % 7
    hidden = targets.masked_fill(torch.arange(20) % 3 == 0, -1)
    for row in range(2):
        expected = F.cross_entropy(logits[row], targets[row], label_smoothing=smoothing) + Z * penalty(logits[row])
        torch.testing.assert_close(mean_cross_entropy(logits, targets, smoothing, Z)[row], expected)
        asked, there = hidden[row] >= 0, logits[row]
        expected = F.cross_entropy(there[asked], hidden[row][asked], label_smoothing=smoothing)
        found = asked_cross_entropy(logits, hidden, smoothing, Z)[row]
        torch.testing.assert_close(found, expected + Z * penalty(there[asked]))


def test_it_is_computed_in_float32_at_least() -> None:
    logits = (100.0 + torch.randn(1, 20, 7, generator=torch.Generator().manual_seed(0))).bfloat16()
    found = mean_cross_entropy(logits, torch.zeros(1, 20, dtype=torch.long), 0.0, Z)
    expected = F.cross_entropy(logits[0].double(), torch.zeros(20, dtype=torch.long))
    expected += Z * logits[0].double().logsumexp(1).square().mean()
    torch.testing.assert_close(found[0], expected.float())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_training_and_theory_are_with_it_and_validation_without(accumulate: int) -> None:
    with_it, without = bench(z_loss=Z, accumulate=accumulate), bench()
    trained, plain = with_it.populate([0], [1.0]), without.populate([0], [1.0])
    assert isinstance(plain, Population)
    held_out, drawn = with_it.batches.batch([0], 0, VALIDATION), with_it.batches.batch([0], 0)
    assert torch.equal(trained.evaluate(held_out, as_trained=False), plain.evaluate(held_out, as_trained=False))
    logits = plain.logits(drawn.inputs)[0]
    expected = F.cross_entropy(logits, drawn.targets.flatten()) + Z * penalty(logits)
    torch.testing.assert_close(trained.step(drawn, torch.tensor([0.0])).loss_R[0], expected)
    theta_P, loss = with_it.objective(0)
    batch = with_it.batches.batch([0], 0, INITIAL)
    torch.testing.assert_close(loss(theta_P)[None].float(), trained.evaluate(batch))


def test_it_pulls_log_z_towards_zero() -> None:
    def log_z(z_loss: float) -> float:
        found = bench(z_loss=z_loss)
        population = found.populate([0], [1.0])
        assert isinstance(population, Population)
        for step in range(30):
            population.step(found.batches.batch([0], step), torch.tensor([0.01]))
        logits = population.logits(found.batches.batch([0], 0, VALIDATION).inputs)
        return float(logits[0].logsumexp(1).abs().mean())

    assert log_z(1.0) < 0.5 * log_z(0.0)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("mlp", "model mlp has no setting z_loss; leave it out"),
        ("resnet", "model resnet has no setting z_loss; leave it out"),
        ("model.py:build", "add it in its loss_fn(model, batch)"),
    ],
)
def test_models_without_it_refuse_it(
    model: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_line(["lr-range", "--model", model, "--z-loss", "1e-4"]) == 2
    assert line in capsys.readouterr().err
