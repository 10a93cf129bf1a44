"""Memory: estimated before training, measured while training, and an allocation too many is `oom`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stresstest.engine.machine import free_memory, limited_memory
from stresstest.engine.memory import PeakMemory, gib, in_halves, probe_need, training_need
from stresstest.errors import ConfigError
from stresstest.experiments.depth_sweep.measure import plan
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.plan import need_of
from stresstest.models.build import make_model
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")

PROGRAM = """
import torch
torch.set_num_threads(1)
import numpy as np
from stresstest.engine.memory import PeakMemory, probe_need, training_need
from stresstest.experiments.training import make_bench
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.measurements.course import initial_signals, recipe
from stresstest.specs.profiles import make_spec
spec = make_spec(DepthSweepSpec, "quick", {settings})
bench = make_bench(spec, "{variant}", {depth}, spec.optimizer, "cpu")
bench.batches.batch([0], 0)
size, activations = bench.model.layout.num_parameters, bench.model.activation_bytes(spec.batch_size)
memory = PeakMemory(torch.device("cpu"))
initial_signals(bench, [0], False)
print(memory.read() / probe_need(size, activations).total)
[run] = recipe(bench, [(0, np.full(2, 1e-4))])
print(run.peak_bytes / training_need(size, 2, activations).total)
"""


@pytest.mark.parametrize(
    ("settings", "variant", "depth"),
    [
        ({"model": "mlp", "width": 64, "batch_size": 32}, "rezero", 2000),
        ({"model": "mlp", "width": 32, "batch_size": 100}, "pre-ln", 1000),
        ({"model": "decoder"}, "post-ln", 60),
    ],
)
def test_the_estimates_are_near_what_probe_and_training_take(
    settings: dict[str, object], variant: str, depth: int
) -> None:
    program = PROGRAM.format(settings=settings, variant=variant, depth=depth)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    probe, training = map(float, done.stdout.split())
    assert 0.6 < probe < 1.6
    assert 0.6 < training < 1.6


def test_the_need_of_a_depth_is_that_of_the_model_itself() -> None:
    spec = make_spec(DepthSweepSpec, "quick", {"model": "mlp", "width": 16, "variant": "pre-ln"})
    model = make_model(spec, "pre-ln", 70, load_task("images", "synthetic", 100, 0))
    size, activations = model.layout.num_parameters, model.activation_bytes(100)
    assert need_of("train", spec, "pre-ln", 70, "adam") == training_need(size, 2, activations)
    assert need_of("probe", spec, "pre-ln", 70, "adam") == probe_need(size, activations)


@pytest.mark.parametrize("model", ["decoder", "mlp"])
def test_a_depth_that_cannot_fit_is_refused_at_once_with_its_estimate(model: str) -> None:
    spec = make_spec(DepthSweepSpec, "quick", {"model": model, "variant": "pre-ln", "depths": "4,100000000"})
    said = (
        r"depth 100000000 of pre-ln needs about \S+ GiB \(parameters .* GiB.*\) to train one replica, "
        r"but only \S+ [GM]iB are free; use fewer blocks, a smaller --width or a smaller --batch-size"
    )
    with pytest.raises(ConfigError, match=said):
        plan(spec)
    only = spec.model_copy(update={"init_only": True})
    with pytest.raises(ConfigError, match="to probe one replica"):
        plan(only)


@pytest.mark.parametrize(("size", "text"), [(1 << 20, "1 MiB"), (3 << 30, "3 GiB"), (1.5 * (1 << 30), "1.5 GiB")])
def test_bytes_are_printed_in_their_unit(size: float, text: str) -> None:
    assert gib(size) == text


def test_free_memory_is_less_than_all_of_it_and_sees_a_limit() -> None:
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < free_memory() <= total
    program = (
        "import resource; from stresstest.engine.machine import free_memory;"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 28, 1 << 28)); print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 1 << 28


def test_an_allocation_beyond_the_free_memory_fails_instead_of_killing() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(), pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(free_memory() + (1 << 30), dtype=torch.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_such_an_allocation_is_halved_like_any_other_out_of_memory() -> None:
    tried: list[int] = []

    def work(rows: list[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 2:
            torch.empty(1 << 50, dtype=torch.uint8)
        return rows

    assert in_halves([1, 2, 3, 4], 4, work) == [1, 2, 3, 4]  # type: ignore[arg-type]  # takes any sequence
    assert tried == [4, 2, 2]


def test_the_peak_is_what_was_taken_since_the_start() -> None:
    held = torch.ones(1 << 24)
    memory = PeakMemory(torch.device("cpu"))
    torch.ones(1 << 25)  # 128 MiB, given back at once
    peak = memory.read()
    assert peak is not None
    assert 0.95 * (1 << 27) < peak < 1.3 * (1 << 27)
    later = PeakMemory(torch.device("cpu")).read()
    assert later is not None
    assert later < 1 << 24
    assert held[0] == 1
