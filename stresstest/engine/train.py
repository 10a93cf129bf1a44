"""The one training loop: a generator of blocks of steps, read by whoever asks the question."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine.probes import ActivationSnapshot, Frames, Probing
from stresstest.engine.replicas import B, Readings, Replicas
from stresstest.models.block import Model, profile
from stresstest.tasks.masked import MaskedTask
from stresstest.tasks.smoothing import constants
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION, Batch, Task, splitmix64
from stresstest.tasks.translation import TranslationTask

LOOK_EVERY = {"cpu": 4, "cuda": 20}
INITIAL_BATCHES = 8
VALIDATION_BATCHES = 8


@dataclass(frozen=True)
class StepBlock:
    """Some consecutive steps of the rows still in training; arrays are [steps, rows].

    `constant` is the loss of the best constant predictor on the same batch. Of what was asked for of `Probing`:
    `frames`, [steps, rows, 3, N], and `looks`: of each row, by place in the block; and the time that they took.
    """

    rows: tuple[int, ...]
    loss: NDArray[np.float64]
    constant: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    health: NDArray[np.int64]
    clipped: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    frames: NDArray[np.float32] | None
    looks: dict[int, list[dict[tuple[str, str], float]]]
    probe_seconds: float


class BatchSource(Protocol[B]):
    """Batches of the kind B by seed and step: of a built-in task, or of the user's own."""

    device: torch.device

    @property
    def baseline_loss(self) -> float:
        """Loss of the best constant predictor; NaN where none is known."""
        ...

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess; NaN where nothing is known of it."""
        ...

    def batch(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> B:
        """Each replica's batch."""
        ...

    def constant_loss(self, batch: B) -> Tensor:
        """Loss of the best constant predictor on each batch, [R]."""
        ...


class Batches:
    """Batches of one task on the device, drawn by seed and step, and what the loss that is trained is judged by.

    That loss has `smoothing` of its labels over `num_classes` outputs (off: the task's).
    """

    def __init__(
        self, task: Task, device: torch.device, smoothing: float = 0.0, num_classes: int | None = None
    ) -> None:
        self.task = task
        self.device = device
        self._smoothing = smoothing
        self._num_classes = num_classes
        self.constants = constants(task, smoothing, num_classes)
        self._arrays = {stream: _to_device(task.arrays(stream), device) for stream in (TRAINING, VALIDATION)}
        self._log_prior = torch.from_numpy(self.constants.log_prior).float().to(device)
        self._all_asked = not isinstance(task, MaskedTask | TranslationTask)

    @property
    def baseline_loss(self) -> float:
        """Loss of the best constant predictor; NaN where none is known."""
        return self.constants.baseline_loss

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess; NaN where nothing is known of it."""
        return self.constants.chance_loss

    def of(self, task: Task) -> Batches:
        """The same of another task."""
        return Batches(task, self.device, self._smoothing, self._num_classes)

    def batch(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> Batch:
        """Each replica's batch, [R, B, ...]."""
        places = torch.from_numpy(self.task.places(seeds, step, stream))
        if self.device.type == "cuda":
            places = places.pin_memory().to(self.device, non_blocking=True)
        batch = self.task.read(self._arrays[VALIDATION if stream == VALIDATION else TRAINING], places)
        return batch._replace(keys_R=splitmix64(splitmix64(np.array(seeds, np.uint64)) + np.uint64(step * 4 + stream)))

    def constant_loss(self, batch: Batch) -> Tensor:
        """Loss of the best constant predictor on each batch, [R]."""
        loss_R = self._constant_loss(batch)
        if self._smoothing:
            return (1.0 - self._smoothing) * loss_R - self._smoothing * self._log_prior.mean()
        return loss_R

    def _constant_loss(self, batch: Batch) -> Tensor:
        if not self._all_asked:
            asked = batch.targets >= 0
            losses = torch.where(asked, -self._log_prior[batch.targets.clamp(min=0)], 0.0)
            return losses.flatten(1).sum(1) / asked.flatten(1).sum(1)
        return -self._log_prior[batch.targets].flatten(1).mean(1)


def initial_parameters(model: Model, seed: int, batches: Batches) -> Tensor:
    """The parameters [P] from which a population trains the replica `seed`, in float32."""
    theta_RP = model.initial_row(seed).float().to(batches.device)[None]
    if model.variant.profiled:
        leaves = {kind: bank.detach() for kind, bank in model.layout.leaves(theta_RP).items()}
        profile(model, model.layout.unbind(leaves), batches.batch([seed], 0, INITIAL).inputs)
    return theta_RP[0]


def initialise(population: Replicas[B], batches: BatchSource[B], seeds: Sequence[int]) -> NDArray[np.float64]:
    """Run the variant's profiling pass; return losses at initialisation, [batches, R], as judged."""
    population.profile(batches.batch(seeds, 0, INITIAL))
    loss, constant = evaluate_batches(population, batches, seeds, INITIAL, INITIAL_BATCHES)
    return judged_loss(loss, constant, batches.baseline_loss)


def judged_loss(loss: NDArray[np.float64], constant: NDArray[np.float64], baseline_loss: float) -> NDArray[np.float64]:
    """The loss without the luck of the batch: relative to the constant predictor on the same batch.

    Near a collapse to the constant predictor this is some ten times less noisy than the loss. Where no
    constant predictor is known, the loss itself.
    """
    return loss if np.isnan(baseline_loss) else loss - constant + baseline_loss


def validation_loss(population: Replicas[B], batches: BatchSource[B], seeds: Sequence[int]) -> NDArray[np.float64]:
    """Mean validation loss of each replica, [R], on the same batches for every seed's every run."""
    return np.asarray(evaluate_batches(population, batches, seeds, VALIDATION, VALIDATION_BATCHES)[0].mean(0))


def train(
    population: Replicas[B],
    batches: BatchSource[B],
    seeds: Sequence[int],
    lr_TR: NDArray[np.float64],
    first_step: int = 0,
    probing: Probing = Probing(),
) -> Generator[StepBlock, Sequence[int] | None, tuple[int, ...]]:
    """Train the rows `seeds` at the learning rates `lr_TR` from `first_step` on; the host looks at every block.

    Send the rows that are done with after each block: on a CPU they are dropped at once, on a GPU
    when they are half of all, so that shapes change seldom. The rest go on as before. Returns the
    rows that the population still holds.
    """
    rows = tuple(range(len(seeds)))
    lrs = torch.from_numpy(lr_TR).float().to(batches.device)
    pending: list[tuple[Readings, Tensor]] = []
    sizes = Frames(population.model.layout) if probing.frames else None
    probe = _Probe(population, probing, sizes)
    for step in range(len(lr_TR)):
        batch = batches.batch([seeds[row] for row in rows], first_step + step)
        probe.before(batch, first_step + step, len(pending))
        readings = population.step(batch, lrs[step])
        probe.after()
        pending.append((readings, batches.constant_loss(batch)))
        if len(pending) < LOOK_EVERY[batches.device.type] and step + 1 < len(lr_TR):
            continue
        dead = set((yield _block(rows, pending, probe)) or ())
        pending, probe = [], _Probe(population, probing, sizes)
        if len(dead) == len(rows):
            return ()
        if dead and (batches.device.type == "cpu" or 2 * len(dead) >= len(rows)):
            kept = [i for i, row in enumerate(rows) if row not in dead]
            rows = tuple(rows[i] for i in kept)
            lrs = lrs[:, kept]
            population.keep(kept)
    return rows


class _Probe(Generic[B]):
    """What is read of the steps of a block, and how long that takes."""

    def __init__(self, population: Replicas[B], probing: Probing, sizes: Frames | None) -> None:
        self._population = population
        self._probing = probing
        self._sizes = sizes
        self.frames: list[Tensor] = []
        self.looks: dict[int, ActivationSnapshot] = {}
        self.seconds = 0.0

    def before(self, batch: B, step: int, place: int) -> None:
        started = time.perf_counter()
        if self._probing.looks_before(step):
            self.looks[place] = self._population.look(batch)
        if self._sizes is not None:
            self._sizes.before(self._population.theta_RP, self._population.grad_RP)
        self.seconds += time.perf_counter() - started

    def after(self) -> None:
        if self._sizes is not None:
            started = time.perf_counter()
            self.frames.append(self._sizes.after())
            self.seconds += time.perf_counter() - started


def evaluate_batches(
    population: Replicas[B], batches: BatchSource[B], seeds: Sequence[int], stream: int, count: int, first: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(loss, the constant predictor's loss) on `count` batches of a stream from the `first` on, each [count, R]."""
    drawn = [batches.batch(seeds, first + i, stream) for i in range(count)]
    losses = torch.stack([population.evaluate(batch, stream != VALIDATION) for batch in drawn])
    constants = torch.stack([batches.constant_loss(batch) for batch in drawn])
    return losses.double().cpu().numpy(), constants.double().cpu().numpy()


def _block(rows: tuple[int, ...], pending: list[tuple[Readings, Tensor]], probe: _Probe[B]) -> StepBlock:
    def stack(name: str) -> NDArray[np.generic]:
        return torch.stack([getattr(readings, name) for readings, _ in pending]).cpu().numpy()

    return StepBlock(
        rows=rows,
        loss=stack("loss_R").astype(np.float64),
        constant=torch.stack([constant for _, constant in pending]).double().cpu().numpy(),
        grad_norm=stack("grad_norm_R").astype(np.float64),
        health=stack("health_R").astype(np.int64),
        clipped=stack("clipped_R").astype(np.bool_),
        skipped=stack("skipped_R").astype(np.bool_),
        frames=torch.stack(probe.frames).cpu().numpy() if probe.frames else None,
        looks={place: look.numbers() for place, look in probe.looks.items()},
        probe_seconds=probe.seconds,
    )


def _to_device(arrays: tuple[NDArray[np.generic], ...], device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array.copy()).to(device) for array in arrays)
