"""The two measurements on a population: the ramp and the hold, from a fresh initialisation each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresstest.engine.divergence import Detector, Reason, Reference, Rules
from stresstest.engine.memory import in_halves, replicas_that_fit
from stresstest.engine.population import (
    BAD_GRADIENT,
    BAD_LOSS,
    BAD_PARAMETER,
    Population,
    Training,
)
from stresstest.engine.train import Batches, Block, initialise, judged_loss, train, validation_loss
from stresstest.models.transformer import Transformer
from stresstest.tasks.language import CHANCE_LOSS

_REASONS: dict[int, Reason] = {BAD_LOSS: "loss", BAD_GRADIENT: "gradient", BAD_PARAMETER: "parameter"}


@dataclass
class Bench:
    """What every measurement of one variant shares."""

    model: Transformer
    training: Training
    batches: Batches
    rules: Rules = field(default_factory=Rules)

    @property
    def capacity(self) -> int:
        """How many replicas the device's memory holds at once, by estimate."""
        return replicas_that_fit(self.model, self.training, self.batches.task.batch_size)


@dataclass
class Run:
    """What became of one replica: a judged curve. Losses are nats, one a step."""

    seed: int
    detector: Detector
    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)  # losses without the luck of the batch
    grad_norms: list[float] = field(default_factory=list)
    clipped: int = 0
    skipped: int = 0
    validation_loss: float = math.nan

    def take(self, lr: float, judged: float, block: Block, step: int, column: int) -> None:
        """Append one step of a block."""
        self.lrs.append(lr)
        self.losses.append(float(block.loss[step, column]))
        self.judged.append(judged)
        self.grad_norms.append(float(block.grad_norm[step, column]))
        self.clipped += int(block.clipped[step, column])
        self.skipped += int(block.skipped[step, column])
        self.detector.update(judged, _REASONS.get(int(block.health[step, column]), ""))

    def record(self) -> dict[str, Any]:
        """The outcome and its evidence, as the cell stores it; steps count from 0."""
        judgement = self.detector.judgement()
        return {
            **asdict(judgement),
            "onset_lr": self.lr_before(judgement.onset_step),
            "explosion_lr": self.lr_before(judgement.explosion_step),
            "steps": len(self.losses),
            "initial_loss": self.detector.reference.initial_loss,
            "clip_fraction": self.clipped / max(1, len(self.losses)),
            "skipped_steps": self.skipped,
        }

    def lr_before(self, step: int | None) -> float | None:
        """The LR of the step before, which caused the loss of `step`."""
        return None if step is None else self.lrs[max(0, step - 1)]


def ramp(bench: Bench, seeds: Sequence[int], lrs: NDArray[np.float64]) -> list[Run]:
    """Raise the learning rate through `lrs` (one a step) until each replica explodes."""

    def measure(part: Sequence[int]) -> list[Run]:
        lr_TR = np.repeat(lrs[:, None], len(part), axis=1)
        _, runs, _ = _train(bench, part, lr_TR, lambda run: run.detector.over)
        return runs

    return in_halves(seeds, bench.capacity, measure)


def hold(bench: Bench, trials: Sequence[tuple[int, float]], num_steps: int) -> list[Run]:
    """Train each (seed, lr) at its constant learning rate for `num_steps`, unless it breaks first."""

    def measure(part: Sequence[tuple[int, float]]) -> list[Run]:
        seeds = [seed for seed, _ in part]
        lr_TR = np.repeat([[lr for _, lr in part]], num_steps, axis=0)
        population, runs, held = _train(bench, seeds, lr_TR, lambda run: run.detector.settled)
        if held:
            losses = validation_loss(population, bench.batches, [seeds[row] for row in held])
            for row, loss in zip(held, losses, strict=True):
                if not runs[row].detector.settled:
                    runs[row].validation_loss = float(loss)
        return runs

    return in_halves(trials, bench.capacity, measure)


def _train(
    bench: Bench, seeds: Sequence[int], lr_TR: NDArray[np.float64], finished: Callable[[Run], bool]
) -> tuple[Population, list[Run], tuple[int, ...]]:
    """Train a fresh population; a run takes no further step once it is finished.

    Returns the population, a run for each seed, and the rows that the population still holds.
    """
    population = Population(bench.model, seeds, bench.training)
    runs = _runs(bench, seeds, initialise(population, bench.batches, seeds))
    blocks = train(population, bench.batches, seeds, lr_TR)
    step, dropped = 0, None
    while True:
        try:
            block = blocks.send(dropped)
        except StopIteration as end:
            return population, runs, end.value
        judged = judged_loss(block.loss, block.constant, bench.batches.task)
        for column, row in enumerate(block.rows):
            for i in range(len(block.loss)):
                if not finished(runs[row]):
                    runs[row].take(float(lr_TR[step + i, row]), float(judged[i, column]), block, i, column)
        step += len(block.loss)
        dropped = [row for row in block.rows if finished(runs[row])]


def _runs(bench: Bench, seeds: Sequence[int], initial: NDArray[np.float64]) -> list[Run]:
    task = bench.batches.task
    return [
        Run(
            seed,
            Detector(
                Reference(
                    initial_loss=float(losses.mean()),
                    initial_std=float(losses.std(ddof=1)),
                    baseline_loss=task.baseline_loss,
                    chance_loss=CHANCE_LOSS,
                ),
                bench.rules,
            ),
        )
        for seed, losses in zip(seeds, initial.T, strict=True)
    ]
