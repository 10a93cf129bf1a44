"""What the native kernel saves of a deep ReZero MLP's step: beside torch's operations and a plain nn.Module loop.

    python tests/benchmarks/native_kernel.py [--depths 1000,10000] [--replicas 1,8] [--rounds 5] [--markdown]

All three train the network of depth_cost.py (width 32, batch 32, Adam; fused in the loop) and take turns; ratios are
taken round by round. A step of ours draws its batch and looks whether loss, gradient and parameters are finite. The
losses of both kernels are compared first. Peak memory is what a process of its own takes beyond the start. One thread,
CPU time; the kernel is built before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from functools import partial

import torch
from depth_cost import BARE, BATCH, LR, WIDTH, bare_chunk, our_chunk, our_model, peak_of
from tables import show
from turns import Chunk, ratio, take_turns

from stresstest.engine import native
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.runs.identity import environment
from stresstest.tasks import load_task

CPU = torch.device("cpu")
CHECKED_STEPS = 5


def ours(depth: int, replicas: int, kernel: str, batches: Batches) -> Chunk:
    return our_chunk(depth, batches, replicas, "native" if kernel == "native" else "torch")


def check_same_losses(batches: Batches) -> None:
    """Both kernels, over some steps from the same weights."""
    kernels = [Training(OPTIMIZERS["adam"], {}, CPU, kernel=kernel) for kernel in ("torch", "native")]
    both = [Population(our_model(50, batches), [0, 1], training) for training in kernels]
    for step in range(CHECKED_STEPS):
        batch, lr_R = batches.batch([0, 1], step), torch.full((2,), LR)
        theirs, natives = (population.step(batch, lr_R).loss_R for population in both)
        torch.testing.assert_close(natives, theirs, rtol=1e-4, atol=1e-4)


def rows_of(depth: int, replicas: int, batches: Batches, rounds: int) -> list[list[str]]:
    names = {f"stresstest, {kernel}": partial(ours, depth, replicas, kernel) for kernel in ("native", "torch")}
    found: dict[str, tuple[int, Callable[[Batches], Chunk]]] = {name: (replicas, make) for name, make in names.items()}
    found[BARE] = (1, partial(bare_chunk, depth))
    chunks = {name: make(batches) for name, (_, make) in found.items()}
    times = take_turns(chunks, rounds, max(1, 4000 // depth // replicas), CPU)
    del chunks
    each = {name: [1000 * taken / count / depth for taken in times[name]] for name, (count, _) in found.items()}
    [first, *_] = each.values()
    rows = []
    for name, (count, make) in found.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(peak_of, (make, "cpu")) / count
        taken = each[name]
        how = f"{statistics.median(taken):.2f} ({min(taken):.2f} to {max(taken):.2f})"
        over = "" if taken is first else ratio(taken, first)
        rows.append([f"{depth:,}", str(replicas), name, how, over, f"{peak / 2**20:.0f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depths", default="1000,10000", help="numbers of blocks")
    parser.add_argument("--replicas", default="1,8", help="populations to time")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not native.ready():
        parser.exit(1, f"{native.why_not()}\n")
    batches = Batches(load_task("images", "synthetic", BATCH, 0), CPU)
    check_same_losses(batches)
    facts = environment("cpu", "float32")
    print(f"{facts['device_name']}, torch {facts['torch']}, {native.built_with()}, one thread")
    print(f"width {WIDTH}, batch {BATCH}")
    headings = [
        "depth",
        "R",
        "step by",
        f"us a layer and replica-step, median of {args.rounds} (min to max)",
        "over native",
    ]
    rows = []
    for depth in (int(text) for text in args.depths.split(",")):
        for replicas in (int(text) for text in args.replicas.split(",")):
            rows += rows_of(depth, replicas, batches, args.rounds)
    show([*headings, "peak MiB a replica"], rows, args.markdown)


if __name__ == "__main__":
    main()
