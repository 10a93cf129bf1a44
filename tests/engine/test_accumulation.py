"""Accumulated over micro-batches, a step is that of the whole batch, and takes less memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stresstest.cli.main import run as run_line
from stresstest.engine.memory import training_need
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population, micro_batches
from stresstest.errors import ConfigError
from stresstest.experiments.batch_sweep import measure as batch_sweep
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import need_of
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench
from stresstest.measurements.theory import measure_theory
from stresstest.models.build import make_model
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import VALIDATION

SEEDS = [3, 4]
STEPS = 6
# Sums of float32 in another order: 2^-24 each, and some ten of them in a row for a gradient of this size.
ROUNDING = 2e-6
# Adam and Lion divide rounding by its own size: a weight without a gradient (a key's bias) moves by the LR, one with
# a small gradient by another share of it. So courses are compared by their losses, within a hundredth of what is
# learned; most agree to 1e-6, and a wrong weight of a micro-batch would show in the gradient by percents.
DRIFT = 0.01
SHAPES: dict[str, dict[str, Any]] = {
    "decoder": {"depth": 2, "width": 16, "heads": 2, "seq_len": 8, "variant": "pre-ln"},
    "encoder": {"depth": 2, "width": 16, "heads": 2, "seq_len": 8, "variant": "post-ln"},
    "encoder-decoder": {"depth": 1, "width": 16, "heads": 2, "seq_len": 24, "variant": "post-ln"},
    "mlp": {"depth": 3, "width": 8, "variant": "pre-ln"},
    "resnet": {"depth": 3, "width": 2, "variant": "fixup"},
}


def bench(model: str, accumulate: int, optimizer: str = "adam", **settings: Any) -> Bench:
    shape = SHAPES[model] | {"model": model, "batch_size": 8, "accumulate": accumulate} | settings
    spec = make_spec(LrRangeSpec, "quick", shape)
    return make_bench(spec, spec.variant[0], spec.depth, optimizer, "cpu")


def population(found: Bench) -> Population:
    built = found.populate(SEEDS, [1.0] * len(SEEDS))
    assert isinstance(built, Population)
    built.profile(found.batches.batch(SEEDS, 0))
    return built


def course(found: Bench, lr: float) -> tuple[Tensor, Tensor]:
    """The loss of each step and that of the first batch in the end, [T + 1, R]; the gradient of the first, [R, P]."""
    trained, gradients = population(found), []
    steps = []
    for step in range(STEPS):
        steps.append(trained.step(found.batches.batch(SEEDS, step), torch.full((len(SEEDS),), lr)).loss_R)
        gradients.append(trained.grad_RP.clone())
    steps.append(trained.evaluate(found.batches.batch(SEEDS, 0)))
    return torch.stack(steps), gradients[0]


def assert_near(actual: Tensor, expected: Tensor, share: float) -> None:
    assert expected.norm() > 0.0
    assert (actual - expected).norm() <= share * expected.norm()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", SHAPES)
def test_micro_batches_train_as_the_whole_batch_does(model: str, optimizer: str) -> None:
    lr = {"sgd": 0.05, "momentum": 0.01, "nesterov": 0.01, "adagrad": 0.01, "lamb": 0.01}.get(optimizer, 1e-3)
    whole, gradient_RP = course(bench(model, 1, optimizer), lr)
    moved = float((whole[0] - whole[-1]).abs().min())
    assert moved > 1e-4
    for accumulate in (2, 8):
        found, accumulated_RP = course(bench(model, accumulate, optimizer), lr)
        assert not torch.equal(accumulated_RP, gradient_RP)  # it took another way
        assert_near(accumulated_RP, gradient_RP, ROUNDING)
        torch.testing.assert_close(found, whole, rtol=0.0, atol=DRIFT * moved)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"dropout": 0.3, "label_smoothing": 0.1}, ROUNDING),
        ({"variant": "admin"}, ROUNDING),
        ({"clip_norm": 0.1}, ROUNDING),
        ({"dtype": "bfloat16"}, 2e-2),  # 2^-8 each
        ({"dtype": "float16"}, 2e-3),  # 2^-11 each
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_so_they_do_with_dropout_smoothing_profiling_clipping_and_in_half_precision(
    settings: dict[str, Any], share: float
) -> None:
    whole, gradient_RP = course(bench("decoder", 1, **settings), 1e-3)
    found, accumulated_RP = course(bench("decoder", 4, **settings), 1e-3)
    assert_near(accumulated_RP, gradient_RP, share)
    torch.testing.assert_close(found, whole, rtol=share, atol=0.0)


def test_sentences_weigh_by_their_tokens_and_not_by_their_micro_batch() -> None:
    found = bench("encoder-decoder", 8)
    batch = found.batches.batch(SEEDS, 0)
    parts = list(micro_batches(batch, 1))
    shares_NR = torch.stack([share_R for _, share_R in parts if share_R is not None])
    lengths_RB = (batch.targets >= 0).sum(-1)
    torch.testing.assert_close(shares_NR, (lengths_RB / lengths_RB.sum(1, keepdim=True)).T)
    assert shares_NR.max() > 1.2 * shares_NR.min()


def test_micro_batches_need_not_be_equal() -> None:
    found = bench("mlp", 1)
    batch = found.batches.batch(SEEDS, 0)
    whole = population(found)
    uneven = population(bench("mlp", 1))
    object.__setattr__(uneven.training, "micro_batch", 3)  # 3, 3 and 2 of 8
    lr_R = torch.full((len(SEEDS),), 0.01)
    torch.testing.assert_close(uneven.step(batch, lr_R).loss_R, whole.step(batch, lr_R).loss_R, rtol=ROUNDING, atol=0.0)
    assert_near(uneven.grad_RP, whole.grad_RP, ROUNDING)


@pytest.mark.parametrize("model", SHAPES)
def test_validation_theory_and_a_look_are_taken_in_micro_batches_too(model: str) -> None:
    whole, parts = bench(model, 1), bench(model, 4)
    batch = whole.batches.batch(SEEDS, 0, VALIDATION)
    for as_trained in (True, False):
        torch.testing.assert_close(
            population(parts).evaluate(batch, as_trained), population(whole).evaluate(batch, as_trained)
        )
    [expected], [found] = measure_theory(whole, SEEDS[:1]), measure_theory(parts, SEEDS[:1])
    for name, bracket in expected.metrics.items():
        assert found.metrics[name].low == pytest.approx(bracket.low, rel=1e-3), name  # Lanczos stops at a hundredth
    first = next(micro_batches(batch, 2))[0]
    assert population(parts).look(batch).numbers() == population(whole).look(first).numbers()


def test_rows_may_be_dropped_midway() -> None:
    whole, found = population(bench("decoder", 1)), population(bench("decoder", 4))
    batches = bench("decoder", 1).batches
    for trained in (whole, found):
        trained.step(batches.batch(SEEDS, 0), torch.full((2,), 0.001))
        trained.keep([1])
        trained.step(batches.batch(SEEDS[1:], 1), torch.full((1,), 0.001))
    assert_near(found.grad_RP, whole.grad_RP, 1e-4)


def test_batchnorm_takes_the_statistics_of_each_micro_batch() -> None:
    found = bench("resnet", 2, variant="vanilla")
    batch = found.batches.batch(SEEDS, 0)
    halves = [part for part, _ in micro_batches(batch, 4)]
    ghosts = torch.stack([population(found).evaluate(half) for half in halves]).mean(0)
    whole = population(bench("resnet", 1, variant="vanilla")).evaluate(batch)
    torch.testing.assert_close(population(found).evaluate(batch), ghosts)
    assert (ghosts - whole).abs().min() > 1e-4


PROGRAM = """
import torch
torch.set_num_threads(1)
from stresstest.engine.memory import PeakMemory
from stresstest.experiments.training import make_bench
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
spec = make_spec(LrRangeSpec, "quick", {{"variant": "pre-ln", "batch_size": 128, "accumulate": {accumulate}}})
bench = make_bench(spec, "pre-ln", spec.depth, "lamb", "cpu")
population = bench.populate([0], [1.0])
batches = [bench.batches.batch([0], step) for step in range(2)]
memory = PeakMemory(torch.device("cpu"))
for batch in batches:
    population.step(batch, torch.tensor([1e-3]))
print(memory.read())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_peak_is_that_of_a_micro_batch_and_the_estimate_says_so() -> None:
    peaks, needs = [], []
    for accumulate in (1, 16):
        program = PROGRAM.format(accumulate=accumulate)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        spec = make_spec(LrRangeSpec, "quick", {"batch_size": 128, "accumulate": accumulate})
        peaks.append(int(done.stdout))
        needs.append(need_of("train", spec, "pre-ln", spec.depth, "lamb"))
    assert peaks[1] < peaks[0] / 6
    assert needs[1].gradients == 2 * needs[0].gradients
    assert needs[1].activations == needs[0].activations // 16
    task = load_task("language", "synthetic", 128, 64)
    model = make_model(make_spec(LrRangeSpec, "quick", {}), "pre-ln", 6, task)
    assert needs[1] == training_need(model.layout.num_parameters, 2, model.activation_bytes(8), accumulates=True)
    assert all(0.6 < peak / (need.activations + need.gradients) < 1.6 for peak, need in zip(peaks, needs, strict=True))


def test_what_does_not_divide_the_batch_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_line(["lr-range", "--batch-size", "8", "--accumulate", "3"]) == 2
    said = capsys.readouterr().err.strip()
    assert "accumulate 3 does not divide the batch of 8 examples; use 2, or a batch of 9" in said
    assert "\n" not in said
    assert run_line(["lr-range", "--accumulate", "0"]) == 2


def test_in_a_batch_sweep_it_is_the_largest_batch_that_is_split() -> None:
    tiny = {"depth": 1, "width": 16, "heads": 2, "seq_len": 8, "tokens": "5k", "num_lrs": 2, "seeds": "3"}
    sweep = make_spec(BatchSweepSpec, "quick", tiny | {"batch_sizes": "4,6,16", "accumulate": 4, "device": "cpu"})
    assert sweep.micro_batch == 4
    planned = batch_sweep.plan(sweep)
    whole = batch_sweep.plan(sweep.model_copy(update={"accumulate": 1}))
    for cells in ([0], [2], [4]):  # 4; 4 and 2; four times 4
        [one], [other] = (
            batch_sweep.measure_batches(
                make_bench(plan.spec, "pre-ln", 1, "adamw", "cpu"), plan.spec, [plan.cells[i] for i in cells]
            )
            for plan in (planned, whole)
        )
        assert one.records["recipe"]["loss"] == pytest.approx(other.records["recipe"]["loss"], abs=1e-3)
    with pytest.raises(ConfigError, match="accumulate 3 does not divide the batch of 16 examples"):
        make_spec(BatchSweepSpec, "quick", tiny | {"batch_sizes": "3,16", "accumulate": 3})


def test_the_key_is_of_the_micro_batch() -> None:
    def key(**settings: Any) -> str:
        return plan(make_spec(LrRangeSpec, "quick", {"device": "cpu", "seeds": "2"} | settings)).cells[0].key

    assert key() == key(accumulate=1) != key(accumulate=2)
    assert key(dropout=0.1) != key() != key(label_smoothing=0.1)
