"""What reading a replica while it trains costs, beside training it unread. Run by hand:

    python tests/benchmarks/probe_cost.py [--rounds 10] [--steps 200] [--device auto] [--markdown]

Each level of `--probes` trains a replica of its own for as many steps as the default ramp has, with its looks; all take
turns, and ratios are taken round by round. On a CPU the clock is CPU time on one thread; on a GPU it waits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import show
from turns import Chunk, ratio, take_turns

from stresstest.engine.probes import Probing
from stresstest.engine.train import train
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import resolve_device
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench
from stresstest.runs.identity import environment
from stresstest.specs.profiles import make_spec

LEVELS = ("off", "economy", "standard", "full")
OWN = f"{Path(__file__).parent / 'planted_faults.py'}:build"
CASES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "decoder, 6 blocks, width 64": ({}, "pre-ln"),
    "mlp, 32 blocks, width 32": ({"model": "mlp"}, "rezero"),
    "mlp, 1,000 blocks, width 32": ({"model": "mlp", "depth": 1000}, "rezero"),
    "own model, 6 blocks, width 64": ({"model": OWN}, "as-built"),
}


def chunk_of(bench: Bench, level: str) -> Chunk:
    """Trains that many steps from step 0 on, and looks back once."""
    population = bench.populate([0], [1e-3])

    def run(steps: int) -> None:
        for _ in train(population, bench.batches, [0], np.full((steps, 1), 1e-4), 0, Probing(level)):
            pass
        if level != "off":
            population.look(bench.batches.batch([0], steps))

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    device = resolve_device(asked.device)
    rows = []
    for name, (settings, variant) in CASES.items():
        spec = make_spec(LrRangeSpec, "quick", settings)
        bench = make_bench(spec, variant, spec.depth, spec.optimizer, device)
        chunks = {level: chunk_of(bench, level) for level in LEVELS}
        found = take_turns(chunks, asked.rounds, asked.steps, torch.device(device))
        ratios = [ratio(found[level], found["off"]) for level in LEVELS[1:]]
        rows.append([name, f"{statistics.median(found['off']):.1f}", *ratios])
    print(environment(device, "float32")["device_name"], f"torch {torch.__version__}")
    show(["model", "ms per step, off", *LEVELS[1:]], rows, asked.markdown)


if __name__ == "__main__":
    sys.exit(main())
