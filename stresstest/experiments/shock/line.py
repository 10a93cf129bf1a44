"""One replica in training, which can be branched: the undisturbed run, its twin, and the same under a shock."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine.divergence import Detector
from stresstest.engine.probes import Probing
from stresstest.engine.replicas import BAD_PARAMETER, DTYPES, FINITE, Replicas
from stresstest.engine.train import BatchSource, StepBlock, judged_loss, train
from stresstest.experiments.shock.disturbance import Disturbance, Scene
from stresstest.experiments.shock.guards import GuardedTraining
from stresstest.measurements.base import Bench
from stresstest.measurements.replica import ReplicaRun
from stresstest.runs.live import LiveRecord, pulse
from stresstest.tasks.task import TRAINING
from stresstest.user_model.bench import UserBench, known_targets

Array = NDArray[np.float64]
UNGUARDED = GuardedTraining()


@dataclass(frozen=True)
class Course:
    """What became of a run from the step of the shock on: losses [T], learning rates [T], frames [T, 3, N] if any."""

    loss_T: Array
    lr_T: Array
    frames: NDArray[np.float32]


@dataclass
class Line:
    """A population of one replica, and what has become of it so far."""

    bench: Bench
    population: Replicas[Any]
    run: ReplicaRun
    lr_N: Array  # of every step of the whole run
    step: int = 0
    doing: str = "before the shock"  # as its progress has it

    @classmethod
    def fresh(cls, bench: Bench, seed: int, lr_N: Array) -> Line:
        """A replica at its start."""
        population = bench.populate([seed], [float(lr_N.max())])
        start = bench.starts(population, [seed])[0]
        run = ReplicaRun(seed, Detector(start.reference, bench.rules, math.inf), start.paired, start.losses)
        return cls(bench, population, run, lr_N)

    def branch(self, doing: str = "twin") -> Line:
        """A copy, which goes on as this one would, bit for bit; `doing` names it while it trains."""
        return Line(self.bench, self.population.branch(0), copy.deepcopy(self.run), self.lr_N, self.step, doing)

    def go(self, stop: int) -> None:
        """Train up to a step, undisturbed."""
        self._train(self.lr_N[self.step : stop], self.bench.batches)

    def shocked(self, disturbance: Disturbance, draw: str, guard: GuardedTraining = UNGUARDED) -> None:
        """Train to the end, under a disturbance that comes now; `draw` names what is drawn."""
        first, seed = self.step, self.run.seed
        scene = scene_of(self.bench, self.population, seed, first, draw)
        if disturbance.state is not None:
            disturbance.state(scene)
        lr_T = self.lr_N[first:] if disturbance.lrs is None else disturbance.lrs(self.lr_N, first)
        lr_T = guard.lrs(lr_T, disturbance.steps)
        lasts = len(lr_T) if disturbance.endless else disturbance.steps
        if lasts and disturbance.frozen:
            self._stand_still(lasts)
        elif lasts:
            self._disturbed(disturbance, scene, lr_T[:lasts])
        if not self.run.detector.over:
            self._train(lr_T[lasts:], self.bench.batches)

    def _disturbed(self, disturbance: Disturbance, scene: Scene, lr_T: Array) -> None:
        """The steps that a disturbance lasts."""
        fed: BatchSource[Any] = self.bench.batches
        if disturbance.disturbs_the_loss:
            fed = _Fed(self.bench.batches, self.population, disturbance.batch, scene)
        with _under(disturbance, scene):
            self._train(lr_T, fed, disturbed=True)

    def _stand_still(self, steps: int) -> None:
        """Steps whose updates are lost: their losses are those of the weights as they are."""
        source = _Fed(self.bench.batches, self.population, None, None)
        for step in range(self.step, self.step + steps):
            source.batch([self.run.seed], step)
        losses, constants = source.taken()
        judged = judged_loss(losses, constants, self.bench.batches.baseline_loss) if self.run.paired else losses
        for loss, value in zip(losses[:, 0], judged[:, 0], strict=True):
            self.run.lrs.append(0.0)
            self.run.losses.append(float(loss))
            self.run.judged.append(float(value))
            self.run.grad_norms.append(math.nan)
            if self.run.frames:
                self.run.frames.append(np.full_like(self.run.frames[-1], np.nan))
            self.run.detector.update(float(value))
        self.step += steps

    def _train(self, lr_T: Array, source: BatchSource[Any], disturbed: bool = False) -> None:
        if not len(lr_T) or self.run.detector.over:
            return
        probing = replace(self.bench.probing, at_start=False) if self.bench.probing.frames else Probing("off")
        stepping = train(self.population, source, [self.run.seed], lr_T[:, None], self.step, probing)
        told = time.perf_counter()
        block = next(stepping, None)
        taken = 0
        while block is not None:
            if disturbed:  # loss or norm may overflow that the weights survive; if not, the next loss says so
                block = replace(block, health=np.where(block.health == BAD_PARAMETER, BAD_PARAMETER, FINITE))
            self._take(block, lr_T[taken : taken + len(block.loss)], source)
            taken += len(block.loss)
            told = self._tell(len(block.loss), told)
            self.bench.journal.offer("", _not_kept)
            block = _sent(stepping, [0] if self.run.detector.over else [])
        self.step += taken

    def _take(self, block: StepBlock, lr_T: Array, source: BatchSource[Any]) -> None:
        """Hand the steps of a block to the run, those of a disturbed batch with the loss of the undisturbed one."""
        if isinstance(source, _Fed):
            losses, constants = source.taken()
            block = replace(block, loss=losses, constant=constants)
        judged = judged_loss(block.loss, block.constant, self.bench.batches.baseline_loss)
        for t, lr in enumerate(lr_T):
            if not self.run.detector.over:
                self.run.take(float(lr), float((judged if self.run.paired else block.loss)[t, 0]), block, t, 0)
        self.run.probe_seconds += block.probe_seconds

    def _tell(self, steps: int, since: float) -> float:
        now = time.perf_counter()
        if listener := pulse():
            listener.stepped(steps, now - since, self._live)
        return now

    def _live(self) -> LiveRecord:
        lr, loss = self.run.lrs[-1], self.run.losses[-1]
        told = loss if math.isfinite(loss) else None
        return LiveRecord(doing=self.doing, step=self.step, num_steps=len(self.lr_N), lrs=[lr, lr], loss=told, left=0)

    def read(self, first: int) -> Course:
        """What became of it from a step on."""
        lr_T, frames = np.array(self.run.lrs[first:]), self.run.frames[first:]
        return Course(self.losses_from(first), lr_T, np.array(frames, np.float32))

    def losses_from(self, first: int) -> Array:
        """The losses from a step on, NaN from where the run was not finite, [T]."""
        loss_T = np.full(len(self.lr_N) - first, np.nan)
        seen = np.array(self.run.losses[first:])
        end = self.run.detector.judgement().explosion_step if self.run.detector.over else None
        kept = seen if end is None else seen[: max(0, end - first)]
        loss_T[: len(kept)] = kept
        return loss_T


def scene_of(bench: Bench, population: Replicas[Any], seed: int, step: int, draw: str) -> Scene:
    """What a shock meets at a step; `draw` names what is drawn."""
    targets = known_targets(bench) if isinstance(bench, UserBench) else None
    return Scene(population, bench.batches, seed, step, partial(_generator, draw, seed), targets)


@contextmanager
def _under(disturbance: Disturbance, scene: Scene) -> Iterator[None]:
    """Here the population trains as a disturbance says."""
    population, training = scene.population, scene.population.training
    try:
        if disturbance.gradient is not None:
            population.between = partial(disturbance.gradient, scene)
        if disturbance.forward is not None:
            population.within = partial(disturbance.forward, scene)
        if disturbance.dtype:
            population.training = replace(training, dtype=DTYPES[disturbance.dtype])
        yield
    finally:
        population.training, population.between, population.within = training, None, nullcontext


class _Fed:
    """Batches as a shock gives them. The loss of each step is taken of the undisturbed batch, before its update."""

    def __init__(
        self,
        batches: BatchSource[Any],
        population: Replicas[Any],
        change: Callable[[Scene, int], Any] | None,
        scene: Scene | None,
    ) -> None:
        self.device = batches.device
        self._batches = batches
        self._population = population
        self._change = change
        self._scene = scene
        self._training = population.training
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def baseline_loss(self) -> float:
        return self._batches.baseline_loss

    @property
    def chance_loss(self) -> float:
        return self._batches.chance_loss

    def batch(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> Any:
        """What the step trains on."""
        batch = self._batches.batch(seeds, step, stream)
        self._seen.append((self._undisturbed(batch), self._batches.constant_loss(batch)))
        if self._change is None or self._scene is None:
            return batch
        return self._change(self._scene, step - self._scene.step)

    def _undisturbed(self, batch: Any) -> Tensor:
        """Its loss in the arithmetic of the run."""
        disturbed, self._population.training = self._population.training, self._training
        try:
            return self._population.step_loss(batch)
        finally:
            self._population.training = disturbed

    def constant_loss(self, batch: Any) -> Tensor:
        """Of the undisturbed batch."""
        return self._seen[-1][1]

    def taken(self) -> tuple[Array, Array]:
        """(losses, the constant predictor's) of the steps since the last call, [T, 1]."""
        losses, constants = (torch.stack(parts).double().cpu().numpy() for parts in zip(*self._seen, strict=True))
        self._seen = []
        return losses, constants


def _generator(draw: str, seed: int) -> torch.Generator:
    """Draws the same for a shock and a seed on every machine."""
    digest = hashlib.blake2b(f"{draw} {seed}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _sent(
    stepping: Generator[StepBlock, Sequence[int] | None, tuple[int, ...]], done_with: Sequence[int]
) -> StepBlock | None:
    try:
        return stepping.send(done_with)
    except StopIteration:
        return None


def _not_kept() -> Any:
    from stresstest.measurements.journal import NotKeptError

    raise NotKeptError("what is finished is kept; the run under way starts anew")
