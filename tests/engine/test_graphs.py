"""A step by a CUDA graph: on a CPU its operations are done again from a tape, and nothing of the device is read."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stresstest.engine import graphs
from stresstest.engine import train as training
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.probes import Probing
from stresstest.engine.replicas import DTYPES, Training
from stresstest.engine.train import Batches
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.models.build import make_model
from stresstest.models.variants import VARIANTS
from stresstest.specs.kinds import MODELS
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from tests.engine.tape import capture

CPU = torch.device("cpu")
SEEDS = (0, 3, 4)
LRS = torch.full((3,), 1e-3)
TINY = {"width": 8, "heads": 2, "batch_size": 4, "seq_len": 6}
SETTINGS: dict[str, dict[str, Any]] = {
    "decoder": {"model": "decoder", **TINY},
    "decoder of qk-norm and z-loss": {"model": "decoder", **TINY, "qk_norm": True, "z_loss": 1e-4},
    "encoder": {"model": "encoder", **TINY},
    "encoder-decoder": {"model": "encoder-decoder", **TINY, "label_smoothing": 0.1},
    "mlp": {"model": "mlp", "width": 8, "batch_size": 4},
    "resnet": {"model": "resnet", "width": 4, "batch_size": 4},
}


@pytest.fixture(autouse=True)
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs are tapes here; of how many replicas each was captured."""
    captured: list[int] = []

    def count(work: Any) -> Any:
        made = capture(work)
        captured.append(len(made[1][0]))
        return made

    monkeypatch.setattr(graphs, "_cuda_graph", count)
    return captured


def populations(
    settings: dict[str, Any], variant: str, optimizer: str = "adam", dtype: str = "float32", **training: Any
) -> tuple[Population, Population, Batches]:
    """One as it was, one by graphs, and their batches."""
    spec = make_spec(LrRangeSpec, "quick", settings)
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    model = make_model(spec, variant, 3, task)
    made = []
    for kernel in ("torch", "graph"):
        how = Training(OPTIMIZERS[optimizer], {}, CPU, DTYPES[dtype], kernel=kernel, **training)
        made.append(Population(model, SEEDS, how))
    return made[0], made[1], Batches(task, CPU, spec.label_smoothing, spec.vocab_size)


def assert_alike(one: Population, other: Population, batches: Batches, steps: range) -> None:
    """Both take the same steps, at learning rates that change, to the bit."""
    seeds = SEEDS[: one.num_replicas]
    for step in steps:
        lr_R = torch.tensor([1e-3 * 1.5**step, 1e-2, 1e-4])[: one.num_replicas]
        batch = batches.batch(seeds, step)
        for expected, found in zip(one.step(batch, lr_R), other.step(batch, lr_R), strict=True):
            assert torch.equal(expected, found)
        assert torch.equal(one.theta_RP, other.theta_RP)
        assert torch.equal(one.grad_RP, other.grad_RP)


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_model_takes_the_same_steps_by_a_graph(kind: str, captures: list[int]) -> None:
    model = MODELS[SETTINGS[kind]["model"]]
    for variant, entry in VARIANTS.items():
        if model.name not in entry.not_in and variant in (model.has or VARIANTS):
            one, other, batches = populations(SETTINGS[kind], variant)
            for population in (one, other):
                population.profile(batches.batch(SEEDS, 0))
            assert_alike(one, other, batches, range(5))
            batch = batches.batch(SEEDS, 9)
            assert torch.equal(one.evaluate(batch, as_trained=False), other.evaluate(batch, as_trained=False))
            assert captures.pop() == len(SEEDS)
            assert not captures


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_does(optimizer: str) -> None:
    assert_alike(*populations(SETTINGS["decoder"], "pre-ln", optimizer), range(9))  # RAdam rectifies from the sixth on


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_does_and_so_do_clipping_and_micro_batches(dtype: str) -> None:
    settings = SETTINGS["encoder" if dtype == "bfloat16" else "decoder"]
    assert_alike(*populations(settings, "post-ln", dtype=dtype, clip_norm=0.1, micro_batch=3), range(6))


def test_rows_that_go_and_branches_are_captured_anew(captures: list[int]) -> None:
    one, other, batches = populations(SETTINGS["decoder"], "rezero")
    assert_alike(one, other, batches, range(4))
    branch, branch_of_graph = one.branch(0), other.branch(0)
    for population in (one, other):
        population.keep([0, 1])
    assert_alike(one, other, batches, range(4, 8))
    assert_alike(branch, branch_of_graph, batches, range(4, 8))
    assert_alike(one, other, batches, range(8, 10))
    assert captures == [3, 2, 1]


def test_a_step_that_is_looked_into_is_taken_as_it_is(captures: list[int]) -> None:
    one, other, batches = populations(SETTINGS["decoder"], "rezero")
    seen: list[float] = []
    for population in (one, other):
        population.between = lambda: seen.append(1.0)
    assert_alike(one, other, batches, range(5))
    assert len(seen) == 10
    assert not captures


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder", "mlp"])
def test_a_step_reads_nothing_of_its_device(kind: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has shapes and no numbers: whatever asks for one fails."""
    monkeypatch.setattr(Population, "_autocast", lambda self: nullcontext())  # which it does not have
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    one, _, batches = populations(SETTINGS[kind], "pre-ln", optimizer, clip_norm=1.0)
    meta = torch.device("meta")
    population = Population(one.model, SEEDS, replace(one.training, device=meta))
    batch = batches.batch(SEEDS, 0)
    readings = population.step(
        batch._replace(inputs=batch.inputs.to(meta), targets=batch.targets.to(meta)), LRS.to(meta)
    )
    assert readings.loss_R.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        readings.loss_R[0].item()


@pytest.mark.parametrize("kind", ["decoder", "mlp"])
@pytest.mark.parametrize("level", ["economy", "standard"])
def test_a_block_of_steps_reads_nothing_before_its_look(kind: str, level: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From drawing the batches on, with clipping; what is measured on the way is read with the block."""
    monkeypatch.setattr(Population, "_autocast", lambda self: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(training, "LOOK_EVERY", {"meta": 20})
    looks: list[int] = []

    def look(rows: tuple[int, ...], pending: list[Any], probe: Any) -> None:
        looks.append(len(pending))
        assert all(readings.loss_R.is_meta for readings, _ in pending)

    monkeypatch.setattr(training, "_block", look)
    one, _, batches = populations(SETTINGS[kind], "pre-ln")
    meta = torch.device("meta")
    how = replace(one.training, device=meta, clip_norm=1.0)
    population = Population(one.model, SEEDS, how)
    steps = training.train(population, Batches(batches.task, meta), SEEDS, np.full((40, 3), 1e-3), 0, Probing(level))
    next(steps)
    assert looks == [20]


def test_a_capture_that_reads_the_device_fails_here() -> None:
    """The tape stands for a graph in this as well: a test that could not fail would be none."""
    with pytest.raises(AssertionError, match="reads the device"):
        capture(lambda: [torch.ones(2) * torch.ones(()).item()])
    values = torch.tensor([1.0, 2.0])
    replay, (doubled,) = capture(lambda: [values.mul(2.0)])
    values.fill_(5.0)
    replay()
    assert doubled.tolist() == [10.0, 10.0]


def test_what_python_counts_is_not_counted_by_a_graph() -> None:
    """Why all that changes must be a tensor: of Python's own counts the first one is repeated."""
    counts = iter(range(10))
    graph = graphs.StepGraph(lambda x: [x + next(counts)], capture)
    assert [graph(torch.zeros(1))[0].item() for _ in range(5)] == [0.0, 1.0, 2.0, 2.0, 2.0]
