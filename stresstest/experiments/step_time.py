"""Steps that are timed before the training, alone on the machine: a forecast's first numbers.

One kind of cell is timed, and then others that differ from it in one thing: each variant and optimizer, and the largest
depth and batch that are quick enough. The rest follows, as a step's time is about linear in depth and batch, and the
variants' and optimizers' ratios are about the same everywhere. On a CPU the clock is the processor's, which other
programs disturb little; how much longer all of it took by the wall is what they take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

import torch

from stresstest.experiments.training import make_bench
from stresstest.runs.forecast import Kind
from stresstest.specs.base import TrainingSpec
from stresstest.user_model.constants.constant import Constant

_SECONDS = 0.25  # for the steps of one kind, at least two of them
_MOST_STEPS = 8
_FARTHEST = 64.0  # times the smallest depth or batch: a longer line is drawn from there
_LR = 1e-6
NO_CONSTANTS: Mapping[tuple[str, int, int], Constant] = MappingProxyType({})


def time_steps(
    spec: TrainingSpec,
    device: str,
    kinds: Sequence[Kind],
    replicas: int = 1,
    constants: Mapping[tuple[str, int, int], Constant] = NO_CONSTANTS,
) -> dict[Kind, float]:
    """Seconds of a step of one replica, of every kind; so many replicas are stepped at once.

    `constants` are the best constant predictors of the user's model that are known, by variant, depth and batch size.
    """
    if not kinds:
        return {}
    smallest = min(kinds, key=lambda kind: (kind.depth, kind.batch_size))
    first = replace(kinds[0], depth=smallest.depth, batch_size=smallest.batch_size)
    clock = _Clock(spec, device, replicas, constants)
    with _one_thread():
        base = clock.timed(first)
        variants = {each.variant: clock.timed(replace(first, variant=each.variant)) / base for each in kinds}
        optimizers = {each.optimizer: clock.timed(replace(first, optimizer=each.optimizer)) / base for each in kinds}
        deep = replace(first, depth=_within(first.depth, [each.depth for each in kinds]))
        wide = replace(first, batch_size=_within(first.batch_size, [each.batch_size for each in kinds]))
        a_block = _slope(first.depth, deep.depth, clock.timed(deep) / base)
        an_example = _slope(first.batch_size, wide.batch_size, clock.timed(wide) / base)
    return {
        each: base
        * clock.load
        * variants[each.variant]
        * optimizers[each.optimizer]
        * (1.0 + a_block * (each.depth - first.depth))
        * (1.0 + an_example * (each.batch_size - first.batch_size))
        for each in kinds
    }


def step_seconds(spec: TrainingSpec, device: str, kind: Kind) -> float:
    """Seconds of a step of one replica of one kind."""
    with _one_thread():
        return _Clock(spec, device, 1, NO_CONSTANTS).timed(kind)


def _within(least: int, values: Sequence[int]) -> int:
    """The largest of these that is not too far from the smallest."""
    return max(value for value in (least, *values) if value <= _FARTHEST * least)


def _slope(start: int, end: int, times: float) -> float:
    """How much a unit more adds, as a share of the first time, where the last is `times` that; at least nothing."""
    return max(0.0, times - 1.0) / (end - start) if end > start else 0.0


class _Clock:
    """Times a kind once, in seconds of the processor; on a GPU by the wall."""

    def __init__(
        self, spec: TrainingSpec, device: str, replicas: int, constants: Mapping[tuple[str, int, int], Constant]
    ) -> None:
        self._constants = constants
        self._spec, self._device, self._replicas = spec, device, replicas
        self._now = time.thread_time if device == "cpu" else time.perf_counter
        self._seconds: dict[Kind, float] = {}
        self._walls = self._counted = 0.0

    @property
    def load(self) -> float:
        """How many times longer the steps took by the wall."""
        return max(1.0, self._walls / self._counted)

    def timed(self, kind: Kind) -> float:
        """Of one kind: the quickest step, after one that is not counted, for each replica."""
        if kind not in self._seconds:
            self._seconds[kind] = self._time(kind)
        return self._seconds[kind]

    def _time(self, kind: Kind) -> float:
        sized = self._spec.model_copy(update={"batch_size": kind.batch_size})
        constant = self._constants.get((kind.variant, kind.depth, kind.batch_size))
        bench = make_bench(sized, kind.variant, kind.depth, kind.optimizer, self._device, constant=constant)
        seeds = list(range(max(1, min(self._replicas, bench.capacity))))
        population = bench.populate(seeds, [_LR] * len(seeds))
        lr_R = torch.full((len(seeds),), _LR, device=bench.training.device)
        found: list[float] = []
        while len(found) < 3 or (sum(found) < _SECONDS and len(found) < _MOST_STEPS):
            started, wall = self._now(), time.perf_counter()
            readings = population.step(bench.batches.batch(seeds, len(found)), lr_R)
            readings.loss_R.tolist()  # which waits for a GPU
            found.append(self._now() - started)
            self._walls += time.perf_counter() - wall
            self._counted += found[-1]
        return min(found[1:]) / len(seeds)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
