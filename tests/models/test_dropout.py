"""Dropout: how much, where, and that a mask depends on its own replica, step, place and example alone."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.cli.main import run as run_line
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.signal_propagation import measure_signal
from stresstest.engine.train import Batches
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench
from stresstest.models.build import make_model
from stresstest.models.dropout import Dropout
from stresstest.models.variants import Sublayer
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import INITIAL, VALIDATION

EXAMPLES, SIZE = 8, 4096
PLACES: list[tuple[int, Sublayer]] = [(1, "attention"), (1, "cross"), (1, "ffn"), (2, "attention")]
TRANSFORMERS = ("decoder", "encoder", "encoder-decoder")
# z below 5 for each of some hundred draws: once in 20,000 if it is right; and the draws are fixed.
SURE = 5.0


def keys(*seeds: int, step: int = 0) -> NDArray[np.uint64]:
    """As a task's batches have them."""
    found = Batches(load_task("language", "synthetic", 2, 8), torch.device("cpu")).batch(seeds, step).keys_R
    assert found is not None
    return found


def kept(rate: float, keys_R: NDArray[np.uint64], first: int = 0, examples: int = EXAMPLES) -> Tensor:
    """Which numbers are kept at each place, [P, R, B * N]."""
    dropout = Dropout(rate, keys_R, examples, first)
    ones = torch.ones(len(keys_R), examples, SIZE)
    found = [dropout.of_embedding(ones), dropout.of_embedding(ones, 1), *(dropout(*place, ones) for place in PLACES)]
    return torch.stack(found).flatten(2) != 0.0


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_so_many_are_zero_and_the_others_grow_so_that_the_mean_stays(rate: float) -> None:
    x = torch.randn(3, EXAMPLES, SIZE, dtype=torch.float64)
    dropped = Dropout(rate, keys(0, 1, 2), EXAMPLES)(1, "ffn", x)
    there = dropped != 0.0
    torch.testing.assert_close(dropped[there], x[there] / (1.0 - rate))
    spread = (rate * (1.0 - rate) / (EXAMPLES * SIZE)) ** 0.5
    assert ((there.double().mean((1, 2)) - (1.0 - rate)).abs() < SURE * spread).all()


def test_replicas_steps_places_and_examples_draw_their_own() -> None:
    rate = 0.3
    masks = torch.cat([kept(rate, keys(0, 1, 2)), kept(rate, keys(0, 1, 2, step=1))]).flatten(0, 1)
    both = EXAMPLES * SIZE * (1.0 - rate) ** 2
    spread = (both * (1.0 - (1.0 - rate) ** 2)) ** 0.5
    for one, other in combinations(masks, 2):
        assert abs(int((one & other).sum()) - both) < SURE * spread
    of_examples = masks[0].view(EXAMPLES, SIZE)
    for first, second in combinations(of_examples, 2):
        assert abs(int((first & second).sum()) - both / EXAMPLES) < SURE * spread / EXAMPLES**0.5
    along = torch.stack([masks[0].roll(shift) & masks[0] for shift in (1, 2, 64, SIZE)]).sum(1)
    assert ((along - both).abs() < SURE * spread).all()


def test_a_mask_is_the_same_whoever_trains_beside_it_and_however_the_batch_is_split() -> None:
    together = kept(0.2, keys(5, 6, 7))
    assert torch.equal(kept(0.2, keys(6))[:, 0], together[:, 1])
    parts = [kept(0.2, keys(5, 6, 7), first, 2) for first in range(0, EXAMPLES, 2)]
    assert torch.equal(torch.cat(parts, 2), together)


def bench(model: str = "decoder", **settings: Any) -> Bench:
    shape = {"width": 16, "heads": 2, "seq_len": 8, "depth": 2, "batch_size": 4, "model": model, "dropout": 0.3}
    spec = make_spec(LrRangeSpec, "quick", shape | ({"seq_len": 24} if model == "encoder-decoder" else {}) | settings)
    return make_bench(spec, spec.variant[0], spec.depth, "adam", "cpu")


def population(found: Bench, seeds: list[int]) -> Population:
    built = found.populate(seeds, [1.0] * len(seeds))
    assert isinstance(built, Population)
    return built


def steps(trained: Population, found: Bench, seeds: list[int], which: range) -> Tensor:
    lr_R = torch.full((len(seeds),), 1e-3)
    return torch.stack([trained.step(found.batches.batch(seeds, step), lr_R).loss_R for step in which])


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_it_stands_on_the_embedding_and_before_every_residual_sum(model: str) -> None:
    """A stub that zeroes one place at a time: the branch, or the stream that enters, is zero and no other."""
    found = bench(model, dropout=0.0, variant="pre-ln")
    built = found.model
    rows = population(found, [0])
    parameters = built.layout.unbind({kind: leaf.detach() for kind, leaf in rows._leaves.items()})
    batch = found.batches.batch([0], 0)
    stream = built.embed(parameters, batch.inputs)
    visited: list[Any] = []

    class Zero(Dropout):
        def __init__(self, place: Any) -> None:
            self.place = place

        def __call__(self, layer: int, sublayer: Sublayer, x: Tensor) -> Tensor:
            visited.append((layer, sublayer))
            return x * (self.place != (layer, sublayer))

        def of_embedding(self, x: Tensor, stack: int = 0) -> Tensor:
            visited.append(stack)
            return x * (self.place != stack)

    def branches(place: Any) -> dict[Any, Tensor]:
        seen: dict[Any, Tensor] = {}
        visited.clear()
        built.walk(parameters, stream, lambda layer, sub, b, joined, x: seen.update({(layer, sub): b}), Zero(place))
        return seen

    everything = branches(None)
    assert visited == [*([0, 1] if model == "encoder-decoder" else [0]), *built.wirings]
    for place in built.wirings:
        zeroed = branches(place)
        assert [where for where, branch in zeroed.items() if not branch.any()] == [place]
        assert everything[place].any()
    assert not torch.equal(branches(0)[1, "attention"], everything[1, "attention"])


@pytest.mark.parametrize("model", TRANSFORMERS)
@pytest.mark.parametrize("variant", ["post-ln", "normformer", "deepnorm"])
def test_a_replica_draws_as_if_it_were_alone_and_goes_on_from_a_state_bit_for_bit(model: str, variant: str) -> None:
    found, seeds = bench(model, variant=variant), [2, 0, 7]
    together = population(found, seeds)
    expected = steps(together, found, seeds, range(6))
    alone = population(found, [7])
    assert torch.equal(steps(alone, found, [7], range(6))[:, 0], expected[:, 2])
    before = population(found, seeds)
    steps(before, found, seeds, range(3))
    resumed = population(found, seeds)
    resumed.restore(before.state())
    assert torch.equal(steps(resumed, found, seeds, range(3, 6)), expected[3:])
    assert torch.equal(resumed.theta_RP, together.theta_RP)


def test_it_acts_in_training_and_at_its_start_and_not_in_validation_or_probes() -> None:
    found, without = bench(variant="pre-ln"), bench(variant="pre-ln", dropout=0.0)
    rows, plain = population(found, [0, 1]), population(without, [0, 1])
    initial, validation = (found.batches.batch([0, 1], 0, stream) for stream in (INITIAL, VALIDATION))
    assert (rows.evaluate(initial) - plain.evaluate(initial)).abs().min() > 1e-3
    assert torch.equal(rows.evaluate(validation, as_trained=False), plain.evaluate(validation, as_trained=False))
    assert rows.look(initial).numbers() == plain.look(initial).numbers()
    theta_P, loss = found.objective(0)
    assert float(loss(theta_P)) == float(without.objective(0)[1](theta_P))
    signals = [measure_signal(each.model, rows.theta_RP[0], each.batches, 0, False) for each in (found, without)]
    assert np.array_equal(*(signal.grad_norm for signal in signals))


def test_its_gradient_is_that_of_the_loss_with_the_same_masks() -> None:
    """Central differences of the loss of the very step, in float64."""
    spec = make_spec(
        LrRangeSpec,
        "quick",
        {"width": 8, "heads": 2, "seq_len": 6, "depth": 1, "batch_size": 2, "dropout": 0.4, "label_smoothing": 0.1},
    )
    found = make_bench(spec, "pre-ln", 1, "sgd", "cpu")
    assert isinstance(found.batches, Batches)
    model = make_model(spec, "pre-ln", 1, found.batches.task)
    rows = Population(model, [0], Training(OPTIMIZERS["sgd"], {}, torch.device("cpu")))
    batch = found.batches.batch([0], 0)
    assert batch.keys_R is not None

    def loss(theta_P: Tensor) -> Tensor:
        dropout = Dropout(0.4, batch.keys_R, 2)
        return model.loss(model.layout.views(theta_P[None]), batch.inputs, batch.targets, None, True, dropout)[0]

    rows._backward(batch, None)
    theta_P = rows.theta_RP[0].double()
    towards = torch.randn(theta_P.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slope = (loss(theta_P + 1e-5 * towards) - loss(theta_P - 1e-5 * towards)) / 2e-5
    assert float(rows.grad_RP[0].double() @ towards) == pytest.approx(float(slope), rel=1e-4)


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_a_model_that_was_published_without_it_has_none(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_line(["lr-range", "--model", model, "--dropout", "0.1"]) == 2
    assert f"model {model} has no setting dropout; leave it out" in capsys.readouterr().err
    assert run_line(["lr-range", "--dropout", "1"]) == 2
