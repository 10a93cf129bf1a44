"""Peak memory and time of LAMB's step on the decoder of a batch sweep, by micro-batches: python FILE [cuda] [BATCH].

Each in a process of its own; the whole batch of 32,768 takes some 10 GiB.
"""

from __future__ import annotations

import subprocess
import sys
import time

import torch
from tables import show

from stresstest.engine.memory import PeakMemory, gib
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.plan import need_of
from stresstest.experiments.training import make_bench
from stresstest.runs.identity import environment
from stresstest.specs.profiles import make_spec

BATCH = 32_768
MICRO_BATCHES = (1, 8, 64)


def spec(batch: int, accumulate: int) -> BatchSweepSpec:
    tokens = 10 * 16 * batch
    settings = {"optimizer": "lamb", "batch_sizes": f"{batch}", "accumulate": accumulate, "tokens": tokens}
    found = make_spec(BatchSweepSpec, "quick", settings)
    return found.model_copy(update={"batch_size": batch})


def measure(device: str, batch: int, accumulate: int) -> None:
    """Print peak bytes beyond the data's, the loss, and seconds of a step."""
    torch.set_num_threads(1)
    where, asked = torch.device(device), spec(batch, accumulate)
    lr_R = torch.full((1,), 1e-3, device=where)
    small = make_bench(spec(32, 1), "pre-ln", asked.depth, "lamb", device)
    small.populate([0], [1e-3]).step(small.batches.batch([0], 0), lr_R)  # what kernels take when they are first used
    bench = make_bench(asked, "pre-ln", asked.depth, "lamb", device)
    drawn = bench.batches.batch([0], 0)
    memory = PeakMemory(where)
    population = bench.populate([0], [1e-3])
    started = time.perf_counter()
    readings = population.step(drawn, lr_R)
    loss = float(readings.loss_R[0])
    print(memory.read(), loss, time.perf_counter() - started)


def main(device: str = "cpu", batch: str = str(BATCH)) -> None:
    """A row for each number of micro-batches."""
    rows = []
    for accumulate in MICRO_BATCHES:
        command = [sys.executable, __file__, "measure", device, batch, str(accumulate)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, loss, seconds = map(float, done.stdout.split())
        asked = spec(int(batch), accumulate)
        need = need_of("train", asked, "pre-ln", asked.depth, "lamb").total
        rows.append([f"{accumulate}", gib(peak), gib(need), f"{loss:.6f}", f"{seconds:.1f}"])
    print(f"LAMB, pre-ln, depth 2, width 64, batch {batch} x 16, {environment(device, 'float32')['device_name']}")
    show(["--accumulate", "peak", "estimate", "loss", "seconds per step"], rows, markdown=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
