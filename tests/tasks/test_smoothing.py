"""Label smoothing: the loss is torch's, and the constant predictor that a run is judged by is the best of that loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stresstest.cli.main import run as run_line
from stresstest.engine.train import Batches, judged_loss
from stresstest.experiments.batch_sweep import measure as batch_sweep
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.models.block import asked_cross_entropy, mean_cross_entropy
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.smoothing import constants
from stresstest.tasks.task import INITIAL, VALIDATION, Task

CPU = torch.device("cpu")
TASKS = {"language": 16, "masked-language": 16, "translation": 24, "images": 0}
every_task = pytest.mark.parametrize("name", TASKS)


def task(name: str) -> Task:
    return load_task(name, "synthetic", 32, TASKS[name])


def all_targets(name: str) -> torch.Tensor:
    """Every target of the training part: a masked byte may be any."""
    arrays = task(name).arrays(0)
    flat = torch.from_numpy(np.array(arrays[-1])).long()
    flat = flat[:, 1:].flatten() if name == "translation" else flat.flatten()
    return flat[flat != 0] if name == "translation" else flat


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_is_torchs(smoothing: float) -> None:
    logits = torch.randn(3, 20, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(60).view(3, 20) % 7
    hidden = targets.masked_fill(torch.arange(20) % 3 == 0, -1)
    for row in range(3):
        expected = F.cross_entropy(logits[row], targets[row], label_smoothing=smoothing)
        torch.testing.assert_close(mean_cross_entropy(logits, targets, smoothing)[row], expected)
        asked = F.cross_entropy(logits[row], hidden[row], ignore_index=-1, label_smoothing=smoothing)
        torch.testing.assert_close(asked_cross_entropy(logits, hidden, smoothing)[row], asked)


@every_task
@pytest.mark.parametrize("more", [0, 40])
def test_the_constants_are_the_best_of_torchs_smoothed_loss(name: str, more: int) -> None:
    smoothing, targets = 0.1, all_targets(name)
    classes = task(name).num_classes + more
    found = constants(task(name), smoothing, classes if more else None)
    shares = torch.bincount(targets, minlength=classes).double() / len(targets)

    def loss(logits_C: torch.Tensor, weights_C: torch.Tensor) -> torch.Tensor:
        """Of outputs that are the same for every target, these many of each."""
        every = torch.arange(classes)
        outputs = logits_C.expand(classes, -1)
        return weights_C @ F.cross_entropy(outputs, every, reduction="none", label_smoothing=smoothing)

    assert found.chance_loss == pytest.approx(float(loss(torch.zeros(classes, dtype=torch.float64), shares)))
    assert found.chance_loss == pytest.approx(math.log(classes))
    said = torch.from_numpy(found.log_prior)
    assert float(loss(said, shares)) == pytest.approx(found.baseline_loss, rel=1e-9)
    for _ in range(20):  # no other outputs lose less: the loss is convex in them
        other = said + 0.05 * torch.randn(classes, dtype=torch.float64)
        assert float(loss(other, shares)) > found.baseline_loss
    one = torch.zeros(classes, dtype=torch.float64)
    one[0] = 1.0
    peaked = torch.full((classes,), smoothing / classes, dtype=torch.float64)
    peaked[0] += 1.0 - smoothing
    assert float(loss(peaked.log(), one)) == pytest.approx(found.lowest)
    assert found.lowest < found.baseline_loss < found.chance_loss


@every_task
def test_without_smoothing_they_are_the_tasks_own(name: str) -> None:
    found = constants(task(name))
    assert (found.baseline_loss, found.chance_loss, found.lowest) == (
        task(name).baseline_loss,
        task(name).chance_loss,
        0.0,
    )
    assert found.log_prior is task(name).log_prior or np.array_equal(found.log_prior, task(name).log_prior)
    assert constants(task(name), 1e-9).baseline_loss == pytest.approx(found.baseline_loss, abs=1e-5)


@every_task
def test_the_constant_loss_of_a_batch_is_torchs_of_the_constant_outputs(name: str) -> None:
    batches = Batches(task(name), CPU, 0.2)
    batch = batches.batch([0, 5], 3)
    outputs = torch.from_numpy(batches.constants.log_prior).float()
    for row, loss in enumerate(batches.constant_loss(batch)):
        targets = batch.targets[row].flatten()
        expected = F.cross_entropy(outputs.expand(len(targets), -1), targets, ignore_index=-1, label_smoothing=0.2)
        torch.testing.assert_close(loss, expected)
    many = torch.stack([batches.constant_loss(batches.batch([0], step)) for step in range(40)])
    assert float(many.mean()) == pytest.approx(batches.baseline_loss, abs=5 * float(many.std()) / 40**0.5)


def spec(**settings: Any) -> LrRangeSpec:
    shape = {"width": 16, "heads": 2, "seq_len": 16, "depth": 1, "variant": "pre-ln", "device": "cpu", "seeds": "2"}
    return make_spec(LrRangeSpec, "quick", shape | settings)


@pytest.mark.parametrize("vocab_size", [None, 300])
def test_a_model_that_says_the_prior_is_judged_to_have_learned_nothing(vocab_size: int | None) -> None:
    bench = make_bench(spec(label_smoothing=0.1, vocab_size=vocab_size, tied=False), "pre-ln", 1, "adam", "cpu")
    population = bench.populate([0], [1.0])
    banks = population.model.layout.views(population.theta_RP)
    banks["final.norm.gain"].zero_()
    banks["final.norm.bias"].zero_()
    banks["final.norm.bias"][..., 0] = 1.0
    banks["unembedding"].zero_()
    banks["unembedding"][..., 0] = torch.from_numpy(bench.batches.constants.log_prior).float()
    batch = bench.batches.batch([0], 7, INITIAL)
    judged = judged_loss(
        population.evaluate(batch).numpy(), bench.batches.constant_loss(batch).numpy(), bench.batches.baseline_loss
    )
    assert judged[0] == pytest.approx(bench.batches.baseline_loss, abs=1e-5)
    reference = bench.starts(population, [0])[0].reference
    assert reference.above_lowest(reference.baseline_loss) == pytest.approx(
        bench.batches.baseline_loss - bench.batches.constants.lowest
    )


def test_training_is_with_it_and_validation_without() -> None:
    with_it, without = (make_bench(spec(label_smoothing=e), "pre-ln", 1, "adam", "cpu") for e in (0.3, 0.0))
    smoothed, plain = with_it.populate([0], [1.0]), without.populate([0], [1.0])
    held_out, drawn = with_it.batches.batch([0], 0, VALIDATION), with_it.batches.batch([0], 0)
    assert torch.equal(smoothed.evaluate(held_out, as_trained=False), plain.evaluate(held_out, as_trained=False))
    logits = plain.logits(drawn.inputs)[0]
    expected = F.cross_entropy(logits, drawn.targets.flatten(), label_smoothing=0.3)
    found = smoothed.step(drawn, torch.tensor([0.0])).loss_R[0]
    torch.testing.assert_close(found, expected)
    assert abs(float(plain.evaluate(drawn)[0]) - float(found)) > 1e-3
    theta_P, loss = with_it.objective(0)
    batch = with_it.batches.batch([0], 0, INITIAL)
    torch.testing.assert_close(loss(theta_P)[None].float(), smoothed.evaluate(batch))


def test_a_result_says_what_it_was_judged_by() -> None:
    planned = plan(spec(label_smoothing=0.1))
    found = constants(task("language"), 0.1)
    assert planned.data["baseline_loss"] == found.baseline_loss
    assert planned.data["chance_loss"] == math.log(256)


def test_the_losses_of_a_batch_sweep_are_held_out_ones_and_so_is_its_constant() -> None:
    tiny = {"depth": 1, "width": 16, "heads": 2, "seq_len": 8, "tokens": "2k", "num_lrs": 1, "start_lr": 0.01}
    sweep = make_spec(
        BatchSweepSpec,
        "quick",
        tiny | {"end_lr": 0.01, "batch_sizes": "4,16", "seeds": "3", "label_smoothing": 0.1, "device": "cpu"},
    )
    cells = batch_sweep.plan(sweep).cells
    [one] = batch_sweep.measure_batches(make_bench(sweep, "pre-ln", 1, "adamw", "cpu"), sweep, cells[:1])
    assert one.records["recipe"]["baseline_loss"] == load_task("language", "synthetic", 4, 8).baseline_loss


def test_your_own_model_smooths_in_its_loss_fn(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_line(["lr-range", "--model", "model.py:build", "--label-smoothing", "0.1"]) == 2
    assert "smooth the labels in its loss_fn(model, batch)" in capsys.readouterr().err
