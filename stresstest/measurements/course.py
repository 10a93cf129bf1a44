"""The measurements on a population, from a fresh initialisation each: ramp, hold, fixed recipe."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresstest.engine.divergence import Detector
from stresstest.engine.memory import PeakMemory, in_halves
from stresstest.engine.replicas import FIRST_LR
from stresstest.engine.signal_propagation import Signal
from stresstest.engine.train import (
    INITIAL_BATCHES,
    StepBlock,
    judged_loss,
    train,
    validation_loss,
)
from stresstest.measurements.ahead import Question
from stresstest.measurements.base import Bench
from stresstest.measurements.replica import BEFORE, ReplicaRun
from stresstest.results.outcome import HARMLESS
from stresstest.runs.live import LiveRecord, pulse
from stresstest.tasks.task import INITIAL


def ramp(bench: Bench, seeds: Sequence[int], lrs: NDArray[np.float64]) -> list[ReplicaRun]:
    """Raise the learning rate through `lrs` (one a step) until each replica explodes."""

    def measure(part: Sequence[int]) -> list[ReplicaRun]:
        return _train(bench, part, np.repeat(lrs[:, None], len(part), axis=1), None)

    return in_halves(seeds, bench.capacity, measure)


def hold(bench: Bench, trials: Sequence[tuple[int, float]], num_steps: int) -> list[ReplicaRun]:
    """Train each (seed, lr) at its constant learning rate for `num_steps`, unless it breaks first."""

    def measure(part: Sequence[tuple[int, float]]) -> list[ReplicaRun]:
        return _train(bench, [seed for seed, _ in part], _constant(part, num_steps), bench.rules.patience)

    return in_halves(trials, bench.capacity, measure)


def held_elsewhere(bench: Bench, question: Question, run: ReplicaRun) -> None:
    """Take over a hold that another process trained, as one of this journal."""
    lr_TR = _constant([(question.seed, question.lr)], question.num_steps)
    bench.journal.finish(_key([question.seed], lr_TR, bench.rules.patience), [run])
    if told := pulse():
        told.passed(len(run.losses))


def _constant(trials: Sequence[tuple[int, float]], num_steps: int) -> NDArray[np.float64]:
    return np.repeat([[lr for _, lr in trials]], num_steps, axis=0)


def recipe(
    bench: Bench,
    trials: Sequence[tuple[int, NDArray[np.float64]]],
    probe_steps: Sequence[int] = (),
    noise_input: bool = False,
) -> list[ReplicaRun]:
    """Train each (seed, lr of every step) while it is finite; `signals` are taken before `probe_steps`.

    Nothing else is final before the end: the learning rate may yet fall.
    """

    def measure(part: Sequence[tuple[int, NDArray[np.float64]]]) -> list[ReplicaRun]:
        lr_TR = np.stack([lrs for _, lrs in part], axis=1)
        return _train(bench, [seed for seed, _ in part], lr_TR, math.inf, probe_steps, noise_input)

    return in_halves(trials, bench.capacity, measure)


def _train(
    bench: Bench,
    seeds: Sequence[int],
    lr_TR: NDArray[np.float64],
    patience: float | None,
    probe_steps: Sequence[int] = (),
    noise_input: bool = False,
) -> list[ReplicaRun]:
    """One course of training, from wherever the journal has got to; a ramp (no `patience`) has no validation."""
    key = _key(seeds, lr_TR, patience, probe_steps, noise_input)
    found: list[ReplicaRun] | None = bench.journal.finished(key)
    if found is not None:
        if told := pulse():
            told.passed(sum(len(run.losses) for run in found))
        return found
    training = _Course(bench, seeds, lr_TR, patience, key)
    for step in sorted({*probe_steps, len(lr_TR)}):
        training.go(step)
        if step in probe_steps:
            training.probe(step, noise_input)
    training.look()
    if patience is not None:
        training.validate()
    bench.journal.finish(key, training.runs)
    return training.runs


def _key(
    seeds: Sequence[int],
    lr_TR: NDArray[np.float64],
    patience: float | None,
    probe_steps: Sequence[int] = (),
    noise_input: bool = False,
) -> str:
    """What a journal knows a course by."""
    parts = (tuple(seeds), patience, tuple(probe_steps), noise_input, lr_TR.shape)
    return hashlib.blake2b(repr(parts).encode() + lr_TR.tobytes(), digest_size=12).hexdigest()


def initial_signals(bench: Bench, seeds: Sequence[int], noise_input: bool) -> list[Signal | None]:
    """The signal of each seed at initialisation, one replica at a time."""

    def measure(part: Sequence[int]) -> list[Signal | None]:
        (seed,) = part
        return [bench.initial_signal(seed, noise_input)]

    return in_halves(seeds, 1, measure)


class _Course:
    """The training of one fresh population; a run takes no further step once it is settled.

    `patience`: steps after which an explosion or a relapse is final; `None` on a ramp.
    """

    def __init__(
        self, bench: Bench, seeds: Sequence[int], lr_TR: NDArray[np.float64], patience: float | None, key: str
    ) -> None:
        self._bench = bench
        self._key = key
        self._doing = "ramp" if patience is None else "hold" if math.isfinite(patience) else "schedule"
        self._seeds = seeds
        self._lr_TR = lr_TR
        held = patience is not None and math.isfinite(patience)  # the ramp before it has looked at the start
        self._probing = replace(bench.probing, at_start=not held)
        bench.model.release()
        self._memory = PeakMemory(bench.training.device)
        state = bench.journal.under_way(key)
        self._held = list(range(len(seeds))) if state is None else state["held"]  # rows that the population holds
        built_at = np.full(len(seeds), FIRST_LR) if patience is None else lr_TR.max(0)  # a ramp is scaled
        built_at[built_at == 0.0] = FIRST_LR
        self._population = bench.populate([seeds[row] for row in self._held], built_at[self._held].tolist())
        self._step = 0
        self._seconds = 0.0
        self._replica_steps = 0
        if state is None:
            starts = bench.starts(self._population, seeds)
            self.runs = [
                ReplicaRun(
                    seed, Detector(start.reference, bench.rules, patience), paired=start.paired, start=start.losses
                )
                for seed, start in zip(seeds, starts, strict=True)
            ]
            self._look_at_the_start()
        else:
            self._restore(state)

    def go(self, stop: int) -> None:
        """Train up to step `stop`."""
        started = time.perf_counter()
        first, held = self._step, self._held
        lr_TR = self._lr_TR[first:stop, held]
        if held and len(lr_TR):
            seeds = [self._seeds[row] for row in held]
            blocks = train(self._population, self._bench.batches, seeds, lr_TR, first, self._probing)
            dropped, told = None, started
            while True:
                try:
                    block = blocks.send(dropped)
                except StopIteration as end:
                    self._held = [held[i] for i in end.value]
                    break
                dropped = self._take(block, held)
                told = self._tell(block, held, told)
                rows = [held[i] for i in block.rows]
                seconds = self._seconds + time.perf_counter() - started
                self._bench.journal.offer(self._key, partial(self._state, rows, seconds))
        self._seconds += time.perf_counter() - started
        self._note_cost()

    def validate(self) -> None:
        """The validation loss of every run that got through."""
        if self._held:
            seeds = [self._seeds[row] for row in self._held]
            losses = validation_loss(self._population, self._bench.batches, seeds)
            scores = self._bench.scores(self._population, seeds, losses)
            for row, loss, score in zip(self._held, losses, scores, strict=True):
                if not self.runs[row].detector.settled:
                    self.runs[row].validation_loss = float(loss)
                    self.runs[row].scores = score
            self._bench.finish(self._population, [self.runs[row] for row in self._held])

    def look(self, rows: Sequence[int] | None = None, only_settled: bool = False) -> None:
        """A last look at the runs that broke, for good or at the end, of these rows of the population: all it holds."""
        if not self._probing.frames:
            return
        rows = self._held if rows is None else rows
        runs = [self.runs[row] for row in rows]
        asked = [i for i, run in enumerate(runs) if run.detector.settled or not only_settled]
        asked = [i for i in asked if runs[i].detector.judgement().outcome not in HARMLESS]
        asked = [i for i in asked if len(runs[i].losses) not in runs[i].looks]
        for last in sorted({len(runs[i].losses) for i in asked}):
            started = time.perf_counter()
            seeds = [self._seeds[row] for row in rows]
            mine = [i for i in asked if len(runs[i].losses) == last]
            batch = self._bench.batches.batch(seeds, last - 1)  # on which it broke
            seen = self._population.look(batch).numbers()
            for i in mine:
                runs[i].looks[last] = seen[i]
                runs[i].probe_seconds += (time.perf_counter() - started) / len(mine)

    def _look_at_the_start(self) -> None:
        """Where a loss at initialisation is not finite, a look at what it was taken of: the largest of each value."""
        broken = [i for i, run in enumerate(self.runs) if not math.isfinite(run.detector.reference.initial_loss)]
        if broken and self._probing.frames:
            batches = [self._bench.batches.batch(self._seeds, k, INITIAL) for k in range(INITIAL_BATCHES)]
            seen = [self._population.look(batch).numbers() for batch in batches]
            for i in broken:
                self.runs[i].looks[BEFORE] = {place: max(look[i][place] for look in seen) for place in seen[0][i]}

    def probe(self, step: int, noise_input: bool) -> None:
        """Signal propagation of every run that is still in training, unless that was before an interruption."""
        if self._step > step:
            return
        for i, row in enumerate(self._held):
            if not self.runs[row].detector.settled:
                theta_P = self._population.theta_RP[i]
                signal = self._bench.signal(theta_P, self._seeds[row], noise_input)
                self.runs[row].signals[step] = signal

    def _state(self, held: Sequence[int], seconds: float) -> dict[str, Any]:
        return {
            "population": self._population.state(),
            "held": list(held),
            "step": self._step,
            "seconds": seconds,
            "replica_steps": self._replica_steps,
            "runs": self.runs,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._population.restore(state["population"])
        self._step = state["step"]
        self._seconds = state["seconds"]
        self._replica_steps = state["replica_steps"]
        self.runs = state["runs"]
        if told := pulse():
            told.passed(self._replica_steps)

    def _take(self, block: StepBlock, held: Sequence[int]) -> list[int]:
        """Hand a block's steps to the runs; returns which of `held` are done with."""
        judged = judged_loss(block.loss, block.constant, self._bench.batches.baseline_loss)
        for column, i in enumerate(block.rows):
            run = self.runs[held[i]]
            for t in range(len(block.loss)):
                if not run.detector.settled:
                    lr = float(self._lr_TR[self._step + t, held[i]])
                    run.take(lr, float((judged if run.paired else block.loss)[t, column]), block, t, column)
                    if run.detector.over and run.detector.judgement().reason in ("loss", "gradient"):
                        self._bench.blame(run.seed, len(run.losses) - 1)
            run.probe_seconds += block.probe_seconds / len(block.rows)
        self._step += len(block.loss)
        self.look([held[i] for i in block.rows], only_settled=True)
        self._replica_steps += len(block.loss) * len(block.rows)
        return [i for i in block.rows if self.runs[held[i]].detector.settled]

    def _tell(self, block: StepBlock, held: Sequence[int], since: float) -> float:
        """Let whoever listens know how far it is; returns when that was."""
        now = time.perf_counter()
        if listener := pulse():
            rows = [held[i] for i in block.rows]
            listener.stepped(len(block.loss) * len(rows), now - since, partial(self._live, block, rows))
        return now

    def _live(self, block: StepBlock, rows: Sequence[int]) -> LiveRecord:
        """What is told; the loss is the median of those that are finite."""
        lrs = self._lr_TR[self._step - 1, rows]
        losses = block.loss[-1][np.isfinite(block.loss[-1])]
        going = sum(not self.runs[row].detector.settled for row in rows)
        return LiveRecord(
            doing=self._doing,
            step=self._step,
            num_steps=len(self._lr_TR),
            lrs=[float(lrs.min()), float(lrs.max())],
            loss=float(np.median(losses)) if len(losses) else None,
            left=going * (len(self._lr_TR) - self._step),
        )

    def _note_cost(self) -> None:
        peak = self._memory.read()
        seconds = self._seconds - sum(run.probe_seconds for run in self.runs)
        for run in self.runs:
            run.seconds_per_step = seconds / max(1, self._replica_steps)
            if math.isnan(run.peak_bytes) and peak is not None:  # once: a probe in float64 needs more
                run.peak_bytes = peak / len(self.runs)
