"""Epoch after epoch of a loader: in the order, and with the random numbers, that a script has which sets the seed."""

from __future__ import annotations

import itertools
import random
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from stresstest.tasks.task import TRAINING, splitmix64
from stresstest.user_code import UserCodeError
from stresstest.user_model.dataloader.random_state import RandomState, put_back, start_all
from stresstest.user_model.dataloader.workers import death_of_worker, end_with_the_process, of_workers

_SEEDS = ("seed", "initial_seed")  # a sampler's own, of torch and of accelerate
_PARTS = ("base_dataloader", "batch_sampler", "sampler", "base_sampler")  # of a loader, and of a sampler
_LATER_EPOCH = 1_000_003  # of what is told the epoch: from there on another stream counts


class Loader:
    """A loader as it was given, and what decides the order of its batches."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.torchs: Any = getattr(given, "base_dataloader", given)  # accelerate's holds torch's
        self.parts = _parts(given)
        self.own = [g for part in self.parts for g in vars(part).values() if isinstance(g, torch.Generator)]
        self.num_workers = int(getattr(given, "num_workers", 0))
        self._in_order: bool | None = None

    @property
    def by_index(self) -> bool:
        """Whether it is torch's over a dataset with indices."""
        return isinstance(self.torchs, DataLoader) and not isinstance(
            self.torchs.dataset, torch.utils.data.IterableDataset
        )

    @property
    def known_length(self) -> int | None:
        """Batches of each epoch; `None` where only reading tells."""
        if not self.by_index or self.given is not self.torchs or type(self.torchs.batch_sampler) is not BatchSampler:
            return len(self.given) if isinstance(self.given, Sequence) else None
        if type(self.torchs.sampler) not in (RandomSampler, SequentialSampler):
            return None
        return len(self.torchs)

    def start(self, seed: int, stream: int, epoch: int) -> Iterator[Any]:
        """An epoch of a seed, with all generators started; its first batch must be drawn within `beginning`."""
        start_all(_epoch_seed(seed, stream, epoch), self.own)
        told = epoch + _LATER_EPOCH * stream
        for part in (self.given, *self.parts, getattr(self.torchs, "dataset", None)):
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(told)
        if isinstance(self.given, Sequence):
            first = _first(len(self.given), stream)
            return iter(itertools.chain(self.given[first:], self.given[:first]))
        return iter(self.given)

    @contextmanager
    def beginning(self, seed: int, stream: int) -> Iterator[None]:
        """While this lasts, an epoch may begin: workers are new, samplers have the seed, and other streams than
        training begin later in an order that no seed changes.
        """
        changed: list[tuple[dict[str, Any], str, Any]] = []

        def change(part: Any, name: str, value: Any) -> None:
            changed.append((vars(part), name, vars(part)[name]))
            vars(part)[name] = value  # a DataLoader refuses to be changed, and this is changed back

        if isinstance(self.torchs, DataLoader) and "_iterator" in vars(self.torchs):
            change(self.torchs, "_iterator", None)  # of persistent workers, whose generators run on
        for part in self.parts:
            for name in _SEEDS:
                if isinstance(vars(part).get(name), int) and callable(getattr(part, "set_epoch", None)):
                    change(part, name, _stream_seed(seed, stream) % (1 << 32))
        if stream != TRAINING and self.in_order and hasattr(self._order[1], "__len__"):
            change(self.torchs, self._order[0], _Rotated(self._order[1], stream))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*'pin_memory' argument is set as true")
                yield
        finally:
            for where, name, value in reversed(changed):
                where[name] = value

    @property
    def in_order(self) -> bool:
        """Whether its indices come in the same order for every seed."""
        if self._in_order is None:
            self._in_order = self.by_index and self._indices(1) == self._indices(2)
        return self._in_order

    @property
    def _order(self) -> tuple[str, Any]:
        """The attribute of torch's loader that has the indices, and those."""
        name = "sampler" if self.torchs.batch_sampler is None else "batch_sampler"
        return name, getattr(self.torchs, name)

    def _indices(self, seed: int) -> list[Any]:
        with put_back(self.own), self.beginning(seed, TRAINING):
            start_all(seed, self.own)
            return list(itertools.islice(self._order[1], 2))


class Epochs:
    """The batches of one seed and stream, from an epoch on, with random numbers of their own.

    Nothing that is drawn elsewhere changes them, and they change nothing that is drawn elsewhere.
    """

    def __init__(self, loader: Loader, seed: int, stream: int, first_epoch: int = 0) -> None:
        self._loader = loader
        self._which = seed, stream
        self._epoch = first_epoch - 1
        self._batches: Iterator[Any] | None = None
        self._state: RandomState | None = None

    def __next__(self) -> Any:
        """The next batch; a `UserCodeError` where there is none."""
        with put_back(self._loader.own), of_workers(self._loader.torchs):
            if self._state is not None:
                self._state.put(self._loader.own)
            try:
                return self._next()
            except (RuntimeError, OSError, EOFError):
                if died := death_of_worker(self._batches):
                    raise UserCodeError(f"is not there: {died}", traceback.format_exc()) from None
                raise
            finally:
                self._state = RandomState.now(self._loader.own)

    def _next(self) -> Any:
        if self._batches is not None:
            with suppress(StopIteration):
                return next(self._batches)
        self.close()
        self._epoch += 1
        if self._loader.num_workers:
            end_with_the_process(self)
        with self._loader.beginning(*self._which):
            self._batches = self._loader.start(*self._which, self._epoch)
            try:
                return next(self._batches)
            except StopIteration:
                raise UserCodeError(_none_there(self._loader, self._epoch)) from None

    def close(self) -> None:
        """End the workers."""
        batches, self._batches = self._batches, None
        for name in ("_shutdown_workers", "close"):
            if callable(end := getattr(batches, name, None)):
                end()


class _Rotated:
    """An order of indices that begins later and ends with what it left out."""

    def __init__(self, order: Any, stream: int) -> None:
        self._order = order
        self._stream = stream

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        first = _first(len(self._order), self._stream)
        yield from itertools.islice(self._order, first, None)
        yield from itertools.islice(self._order, first)


def _first(length: int, stream: int) -> int:
    """Where in an epoch's order a stream begins: training at 0, the others in later quarters."""
    return length * stream // 4


def _stream_seed(seed: int, stream: int) -> int:
    return seed if stream == TRAINING else _mixed(seed, stream, 0)


def _epoch_seed(seed: int, stream: int, epoch: int) -> int:
    """The first epoch of training has the seed itself, as a script that sets it before the loop."""
    return seed if (stream, epoch) == (TRAINING, 0) else _mixed(seed, stream, epoch)


def _mixed(seed: int, stream: int, epoch: int) -> int:
    """31 bits: what every generator takes."""
    key = splitmix64(splitmix64(np.array([seed], np.uint64)) + np.uint64(4 * epoch + stream))
    return int(key[0] >> np.uint64(33))


def _parts(given: Any) -> list[Any]:
    """A loader and its samplers, however deep they hold each other."""
    found: list[Any] = []
    waiting = [given]
    while waiting:
        part = waiting.pop(0)
        if part is None or not hasattr(part, "__dict__") or any(part is one for one in found):
            continue
        found.append(part)
        waiting += [vars(part).get(name) for name in _PARTS]
    return found


def own_generators(loader: Loader) -> list[str]:
    """Where a loader's parts keep generators that cannot be seeded from outside, in words: "Noisy.rng"."""
    dataset = getattr(loader.torchs, "dataset", None)
    holders = [loader.given, *loader.parts, dataset, getattr(loader.torchs, "collate_fn", None)]
    holders += list(getattr(dataset, "__dict__", {}).values())  # what it wraps, or transforms by
    kinds = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
    return [
        f"{type(holder).__name__}.{name}"
        for holder in holders
        for name, value in getattr(holder, "__dict__", {}).items()
        if isinstance(value, kinds) and not any(value is one for one in loader.own)
    ]


def _none_there(loader: Loader, epoch: int) -> str:
    if epoch:
        return (
            "is not there: the loader ended and gives nothing when it is read again; let each iter() of its dataset "
            "start anew"
        )
    if getattr(loader.given, "drop_last", False):
        return "is not there: the dataset has fewer examples than a batch, and drop_last drops them"
    return "is not there: the loader is empty"
