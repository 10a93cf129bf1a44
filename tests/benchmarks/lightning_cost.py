"""What a step on what Lightning brings costs beside Lightning's own loop, measured in turn.

    python tests/benchmarks/lightning_cost.py

Medians of the time from batch to batch, one thread; a network of 4 layers on batches of 32 examples.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.factory import register_callable

STEPS, TURNS, LR = 100, 5, 1e-3


class Net(pl.LightningModule):
    """A network of `width`, trained with AdamW."""

    def __init__(self, width: int, manual: bool) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        hidden = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.Tanh())]
        self.net = nn.Sequential(nn.Linear(8, width), nn.Tanh(), *hidden, nn.Linear(width, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        if not self.automatic_optimization:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), LR)


class Clock(pl.Callback):
    """The time at each batch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.times.append(time.perf_counter())


def loader() -> DataLoader[Any]:
    x = torch.randn(32 * (STEPS + 1), 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 32, shuffle=True)


def native(width: int, manual: bool) -> float:
    """Seconds a step of `Trainer.fit`."""
    clock = Clock()
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(width, manual), loader())
    return statistics.median(b - a for a, b in itertools.pairwise(clock.times))


def ours(width: int, manual: bool) -> float:
    """Seconds a step of a population of one."""
    with register_callable(lambda: (Net(width, manual), loader()), {}) as name:
        spec = resolve_user_model(LrRangeSpec(model=name, device="cpu"), sweeps_depth=False)
        bench = user_bench(spec, "as-built", 1, "own", "cpu", constant=Constant("not looked for"))
        population = bench.populate([0], [LR])
        times = [time.perf_counter()]
        for step in range(STEPS):
            population.step(bench.batches.batch([0], step), torch.tensor([LR]))
            times.append(time.perf_counter())
    return statistics.median(b - a for a, b in itertools.pairwise(times))


def main() -> None:
    """Print a line for each width and kind of optimization."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for width, manual in itertools.product((32, 256), (False, True)):
        turns = [(native(width, manual), ours(width, manual)) for _ in range(TURNS)]
        theirs, mine = (statistics.median(column) for column in zip(*turns, strict=True))
        kind = "manual" if manual else "automatic"
        print(f"width {width:3d}, {kind:9}: {1e3 * theirs:6.2f} ms, here {1e3 * mine:6.2f} ms: {mine / theirs:.2f}")


if __name__ == "__main__":
    main()
