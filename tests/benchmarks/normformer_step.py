"""What a step of NormFormer costs beside one of Pre-LN (Shleifer et al. 2021: 2 to 6 % more). Run by hand:

    python tests/benchmarks/normformer_step.py [--rounds 15] [--chunk 4] [--device auto]

Both train the same decoder at R = 1 and take turns in chunks of steps; ratios are taken round by round. On a CPU the
clock is CPU time on one thread.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from tables import show
from turns import Chunk, ratio, take_turns

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import resolve_device
from stresstest.experiments.training import make_bench
from stresstest.runs.identity import environment
from stresstest.specs.profiles import make_spec

VARIANTS = ("pre-ln", "normformer", "normformer:res_scale=true")
SIZES = ((32, 2, 6), (128, 4, 6), (512, 8, 2), (768, 12, 2))  # width, heads, depth
LR = 1e-3


def chunk_of(variant: str, width: int, heads: int, depth: int, device: str) -> Chunk:
    """So many steps of a decoder at one LR, batches drawn by step."""
    size = {"width": width, "heads": heads, "depth": depth, "seq_len": 64, "batch_size": 8}
    spec = make_spec(LrRangeSpec, "quick", {**size, "device": device, "seeds": "1", "variant": variant})
    bench = make_bench(spec, variant, depth, "adam", device)
    population = bench.populate([0], [LR])
    lr_R, done = torch.full((1,), LR, device=device), 0

    def chunk(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            population.step(bench.batches.batch([0], done), lr_R)
            done += 1

    return chunk


def main(rounds: int, chunk: int, device: str) -> None:
    """A row for each size: milliseconds a step, and how many times Pre-LN's."""
    rows = []
    for width, heads, depth in SIZES:
        chunks = {variant: chunk_of(variant, width, heads, depth, device) for variant in VARIANTS}
        times = take_turns(chunks, rounds, chunk, torch.device(device))
        first, *others = (times[variant] for variant in VARIANTS)
        row = [str(width), str(depth), f"{statistics.median(first):.1f}"]
        rows.append(row + [ratio(other, first) for other in others])
    print(f"{environment(device, 'float32')['device_name']}, {rounds} rounds of {chunk} steps, batch 8 of 64 bytes")
    show(["width", "blocks", "pre-ln, ms a step", "normformer", "with res_scale"], rows, True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(1)
    main(given.rounds, given.chunk, resolve_device(given.device))
