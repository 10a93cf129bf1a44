"""What a step of a deep ReZero MLP costs beside a plain nn.Module loop with fused Adam. Run by hand:

    python tests/benchmarks/depth_cost.py [--depths 100,1000,10000] [--replicas 1,4,8] [--markdown]

Both train the same network (x + alpha ReLU(W x + b), width 32, batch 32) from the same weights on the
same batches, checked first: the same losses over some steps. They take turns, and ratios are taken
round by round. A step of ours also draws the batch and looks whether loss, gradient and parameters are
finite. Peak memory is what a process of its own takes beyond the start, for one contender and depth.
On a CPU one thread, and CPU time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from tables import show
from torch import Tensor, nn
from turns import Chunk, ratio, take_turns

from stresstest.engine.memory import PeakMemory
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.experiments.plan import resolve_device
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.runs.identity import environment
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task

WIDTH, BATCH, LR = 32, 32, 1e-4
CHECKED_STEPS = 4
BARE = "nn.Module loop, Adam(fused=True)"


class Block(nn.Module):
    """A ReZero block as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] to [B, D]."""
        return x + self.alpha * F.relu(self.linear(x))


class BareMlp(nn.Module):
    """Input layer, ReZero blocks, output layer."""

    def __init__(self, depth: int, num_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(num_inputs, WIDTH), nn.Linear(WIDTH, num_classes)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        x = F.relu(self.first(inputs))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.last(x), targets)


def our_model(depth: int, batches: Batches) -> ResidualMlp:
    spec = ModelSpec(model="mlp", depth=depth, width=WIDTH)
    return ResidualMlp(spec, "rezero", {}, batches.task.num_inputs, batches.task.num_classes)


def bare_copy(model: ResidualMlp, device: torch.device) -> BareMlp:
    """The bare network with the initial weights of seed 0."""
    bare = BareMlp(model.spec.depth, model.num_inputs, model.num_classes)
    ours = model.layout.unbind(model.layout.leaves(model.initial_row(0)[None].float()))
    with torch.no_grad():
        for kind, linear in (("input", bare.first), ("output", bare.last)):
            linear.weight.copy_(ours[f"{kind}.weight", 0][0])
            linear.bias.copy_(ours[f"{kind}.bias", 0][0])
        for layer, block in enumerate(bare.blocks, start=1):
            assert isinstance(block, Block), "all are"
            block.linear.weight.copy_(ours["weight", layer][0])
            block.linear.bias.copy_(ours["bias", layer][0])
    return bare.to(device)


def our_chunk(depth: int, batches: Batches, replicas: int, kernel: Literal["torch", "native"] = "torch") -> Chunk:
    seeds = list(range(replicas))
    training = Training(OPTIMIZERS["adam"], {}, batches.device, kernel=kernel)
    population = Population(our_model(depth, batches), seeds, training)
    lr_R = torch.full((replicas,), LR, device=batches.device)
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for step in range(done, done + steps):
            population.step(batches.batch(seeds, step), lr_R)
        done += steps

    return run


def bare_chunk(depth: int, batches: Batches) -> Chunk:
    bare = bare_copy(our_model(depth, batches), batches.device)
    optimizer = torch.optim.Adam(bare.parameters(), lr=LR, fused=True)
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for step in range(done, done + steps):
            batch = batches.batch([0], step)
            optimizer.zero_grad()
            bare(batch.inputs[0], batch.targets[0]).backward()
            optimizer.step()
        done += steps

    return run


def check_same_losses(batches: Batches) -> None:
    """Both networks with both optimizers, on the same batches from the same weights."""
    model = our_model(50, batches)
    population = Population(model, [0], Training(OPTIMIZERS["adam"], {}, batches.device))
    bare = bare_copy(model, batches.device)
    optimizer = torch.optim.Adam(bare.parameters(), lr=LR, fused=True)
    lr_R = torch.full((1,), LR, device=batches.device)
    for step in range(CHECKED_STEPS):
        batch = batches.batch([0], step)
        loss = bare(batch.inputs[0], batch.targets[0])
        torch.testing.assert_close(loss[None], population.step(batch, lr_R).loss_R, rtol=1e-4, atol=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def contenders(depth: int, replicas: list[int]) -> dict[str, tuple[int, Callable[[Batches], Chunk]]]:
    """(replicas, how to make it) by name."""
    ours = {f"stresstest, R = {r}": (r, partial(_ours, depth, r)) for r in replicas}
    return {BARE: (1, partial(bare_chunk, depth)), **ours}


def _ours(depth: int, replicas: int, batches: Batches) -> Chunk:
    return our_chunk(depth, batches, replicas)


def peak_of(make: Callable[[Batches], Chunk], device: str) -> float:
    """Bytes that a contender takes over three steps, in this process."""
    torch.set_num_threads(1)
    batches = Batches(load_task("images", "synthetic", BATCH, 0), torch.device(device))
    batches.batch([0], 0)
    memory = PeakMemory(batches.device)
    make(batches)(3)
    return float(memory.read() or "nan")


def rows_of(depth: int, replicas: list[int], batches: Batches, rounds: int, steps: int, device: str) -> list[list[str]]:
    found = contenders(depth, replicas)
    times = take_turns({name: make(batches) for name, (_, make) in found.items()}, rounds, steps, batches.device)
    rows = []
    for name, (count, make) in found.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(peak_of, (make, device)) / count
        each = [time_ / count for time_ in times[name]]
        rows.append(
            [
                f"{depth:,}",
                name,
                f"{statistics.median(each):.1f}",
                f"{1000 * statistics.median(each) / depth:.1f}",
                "" if name == BARE else ratio(times[BARE], each),
                f"{peak / 2**20:.0f}",
                f"{peak / depth / 2**10:.1f}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depths", default="100,1000,10000", help="numbers of blocks")
    parser.add_argument("--replicas", default="1,4,8", help="populations to time")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contender")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = resolve_device(args.device)
    batches = Batches(load_task("images", "synthetic", BATCH, 0), torch.device(device))
    check_same_losses(batches)
    facts = environment(device, "float32")
    print(f"{facts['device_name']}, torch {facts['torch']}, width {WIDTH}, batch {BATCH}, one thread")
    replicas = [int(size) for size in args.replicas.split(",")]
    rows = []
    for depth in (int(text) for text in args.depths.split(",")):
        rows += rows_of(depth, replicas, batches, args.rounds, max(1, 1000 // depth), device)
    how = f"loop over ours, median of {args.rounds} rounds (min to max)"
    headings = ["depth", "loop", "ms per replica-step", "us per layer", how, "peak MiB per replica", "KiB per layer"]
    show(headings, rows, args.markdown)


if __name__ == "__main__":
    main()
