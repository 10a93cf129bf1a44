"""What a step costs on a DataLoader, beside the loop that a person writes over it. Run by hand:

    python tests/benchmarks/loader_cost.py [--rounds 20] [--chunk 10] [--markdown]

The same loader, model and torch.optim.SGD in both, from the same weights (checked first: the same losses). Theirs:
for x, y in loader, loss, zero_grad, backward, step, loss.item(). Ours: a population of one replica, which draws by
seed and step; "again" are batches that have been drawn before, as every hold of a search meets them. In turn, on one
thread; ratios are taken round by round. The clock is CPU time of the process that trains: workers are not in it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from tables import show
from torch import nn
from torch.utils.data import DataLoader, Dataset
from turns import Chunk, ratio, take_turns

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.kinds import AS_BUILT
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.factory import register_callable

LR = 1e-3
WIDTHS = (64, 256)
BATCH_SIZE = 256


class Examples(Dataset[Any]):
    """50,000 examples of 256 numbers, with noise."""

    def __init__(self) -> None:
        self.x = torch.randn(50_000, 256, generator=torch.Generator().manual_seed(0))
        self.y = self.x[:, :10].argmax(1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + 0.1 * torch.randn(256), self.y[i]


def build(width: int) -> nn.Module:
    """Twelve layers."""
    hidden = [part for _ in range(10) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(256, width), nn.ReLU(), *hidden, nn.Linear(width, 10))


def sgd(params: Any, lr: float) -> torch.optim.Optimizer:
    """The optimizer of both."""
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def loader_with(workers: int) -> DataLoader[Any]:
    """What both read."""
    return DataLoader(Examples(), BATCH_SIZE, shuffle=True, num_workers=workers)


class Theirs:
    """A plain loop, a chunk at a time."""

    def __init__(self, width: int, workers: int) -> None:
        torch.manual_seed(0)
        self.model = build(width)
        self.optimizer = sgd(self.model.parameters(), LR)
        torch.manual_seed(0)
        self.batches = _forever(loader_with(workers))
        self.losses: list[float] = []

    def __call__(self, steps: int) -> None:
        for x, y in itertools.islice(self.batches, steps):
            loss = F.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())


class Ours:
    """A population of one, a chunk at a time; `again` it starts over with step 0 each time."""

    def __init__(self, name: str, again: bool) -> None:
        spec = resolve_user_model(LrRangeSpec(model=name), sweeps_depth=False)
        self.bench = user_bench(spec, AS_BUILT, spec.depth, "own", "cpu")
        self.population = self.bench.populate([0], [LR])
        self.again = again
        self.step = 0
        self.losses: list[float] = []

    def __call__(self, steps: int) -> None:
        lr_R = torch.tensor([LR])
        first = 0 if self.again else self.step
        for step in range(first, first + steps):
            batch = self.bench.batches.batch([0], step)
            self.losses.append(float(self.population.step(batch, lr_R).loss_R[0]))
        self.step += steps


def _forever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def compared(width: int, workers: int, rounds: int, chunk: int) -> list[tuple[str, ...]]:
    """A row for each contender."""
    with register_callable(build, {"width": width}, batch=loader_with(workers), optimizer=sgd) as name:
        chunks: dict[str, Chunk] = {"plain loop": Theirs(width, workers)}
        chunks |= {"stresstest": Ours(name, again=False), "stresstest, drawn before": Ours(name, again=True)}
    times = take_turns(chunks, rounds, chunk, torch.device("cpu"))
    theirs, ours = chunks["plain loop"].losses[:chunk], chunks["stresstest"].losses[:chunk]  # type: ignore[attr-defined]
    assert max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) < 1e-6, "not the same losses"
    return [
        (
            str(width),
            str(workers),
            loop,
            f"{statistics.median(found):.2f}",
            "" if loop == "plain loop" else ratio(found, times["plain loop"]),
        )
        for loop, found in times.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row for width in WIDTHS for workers in (0, 2) for row in compared(width, workers, asked.rounds, asked.chunk)
    ]
    heads = ("width", "workers", "loop", "ms per step", f"over the plain loop, median of {asked.rounds} (min to max)")
    show(heads, rows, asked.markdown)


if __name__ == "__main__":
    main()
