"""Batches from a transformers Trainer: those of its own loop with the same seed, an optimizer step's at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from stresstest.tasks.task import TRAINING, VALIDATION, splitmix64
from stresstest.user_code import UserCodeError
from stresstest.user_model.dataloader.epochs import Epochs
from stresstest.user_model.dataloader.random_state import RandomState, put_back, start_all
from stresstest.user_model.dataloader.stream import LoaderStream
from stresstest.user_model.dataloader.workers import of_workers


class Loaders(Protocol):
    """What makes the loaders of one training, as Trainer's own loop does."""

    accumulation: int
    num_workers: int

    def start(self, seed: int) -> None:
        """Let the generators stand where they do in the native loop when it makes its loader."""
        ...

    def training(self) -> Any:
        """A new loader of training batches."""
        ...

    def held_out(self) -> Any:
        """A new loader of held-out batches."""
        ...

    def ordered_by(self, seed: int | None) -> AbstractContextManager[None]:
        """A context in which orders are drawn from this seed, even where the arguments fix one; `None`: as they say."""
        ...


class TrainerStream(LoaderStream):
    """Batches of a Trainer by seed and step; see `BatchStream`.

    Step t of seed s is what `trainer.train()` trains on with `TrainingArguments(seed=s)`: one batch, or with gradient
    accumulation a list of them. Whatever a dataset or collator draws comes from generators that start as that loop's
    do and that nothing else draws from.
    """

    def __init__(self, loaders: Loaders, held_out: bool, what: str) -> None:
        super().__init__(loaders, loaders if held_out else None)
        self._loaders = loaders
        self._what = what

    def words(self) -> str:
        """Where batches come from, in words."""
        loaders = self._loaders
        each = f", {loaders.accumulation} for each step" if loaders.accumulation > 1 else ""
        workers = (
            f", {loaders.num_workers} worker{'s' if loaders.num_workers > 1 else ''}" if loaders.num_workers else ""
        )
        return f"the {self._what}'s train_dataset{' and eval_dataset' if self.held_out else ''}{each}{workers}"

    def description(self) -> Mapping[str, int | str | float]:
        """What a result stores."""
        return {"num_workers": self._loaders.num_workers, "accumulation": self._loaders.accumulation}

    def _words_of(self, stream: int) -> str:
        return f"the {self._what}'s {'eval' if stream == VALIDATION and self.held_out else 'train'}_dataset"

    def _epochs(self, stream: int, seed: int, first: int = 0) -> Epochs:
        return _Training(self._loaders, stream, seed, stream == VALIDATION and self.held_out)


class _Training(Epochs):
    """The batches of one call of `train()`, step by step."""

    def __init__(self, loaders: Loaders, stream: int, seed: int, held_out: bool) -> None:
        self._loaders = loaders
        self._held_out = held_out
        self._native_seed = seed if stream == TRAINING else None
        self._own_seed = int(splitmix64(np.array([seed * 4 + stream], np.uint64))[0] >> np.uint64(33))
        self._steps: Iterator[Any] | None = None
        self._state: RandomState | None = None

    def __next__(self) -> Any:
        """The batches of the next step; a `UserCodeError` where there are none."""
        with put_back(), of_workers(self._loaders):
            if self._state is not None:
                self._state.put()
            if self._steps is None:
                self._steps = self._begin()
            try:
                return next(self._steps)
            except StopIteration:
                raise UserCodeError("is not there: the dataset gives no batch") from None
            finally:
                self._state = RandomState.now()

    def _begin(self) -> Iterator[Any]:
        loaders, size = self._loaders, self._loaders.accumulation
        if self._native_seed is None:
            start_all(self._own_seed)
        else:
            loaders.start(self._native_seed)
        with loaders.ordered_by(self._own_seed if self._native_seed is None else None):
            loader = loaders.held_out() if self._held_out else loaders.training()  # reads the order's seed
        if not self._held_out or size == 1:
            return _endless(loader, size)
        return ([batch] for batch in _endless(loader, 1))

    def close(self) -> None:
        """End the workers."""
        self._steps = None


def micro_batches(data: Any, accumulation: int) -> list[list[Any]]:
    """The batches of a step in the groups that are normalised together: one, unless an epoch ended within a step."""
    if accumulation == 1:
        return [[data]]
    before = [list(part) for part in data if _is_group(part)]
    return [*before, [part for part in data if not _is_group(part)]]


def _is_group(part: Any) -> bool:
    return isinstance(part, Sequence) and len(part) > 0 and isinstance(part[0], Mapping)


def _endless(loader: Any, accumulation: int) -> Iterator[Any]:
    """Epoch after epoch, as many batches as a step takes at a time.

    As in Trainer's loop the last step of an epoch may have fewer; where the loader has no length, their gradients are
    left to the next epoch's first step.
    """
    left: list[Any] = []
    epoch = 0
    try:
        while True:
            _set_epoch(loader, epoch)
            drawn = 0
            for group in _groups(iter(loader), accumulation):
                drawn += len(group)
                if len(group) < accumulation and not _has_length(loader):
                    left = [group]
                else:
                    yield group[0] if accumulation == 1 else [*left, *group]
                    left = []
            if not drawn:
                return
            epoch += 1
    finally:  # accelerate remembers a loader until it has come to its end
        if callable(getattr(loader, "end", None)):
            loader.end()


def _groups(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _set_epoch(loader: Any, epoch: int) -> None:
    """As Trainer's loop tells its loader and the sampler within."""
    inner = getattr(getattr(loader, "batch_sampler", None), "batch_sampler", None)
    for part in (loader, inner):
        if callable(tell := getattr(part, "set_epoch", None)):
            tell(epoch)


def _has_length(loader: Any) -> bool:
    try:
        return len(loader) is not None
    except (TypeError, AttributeError):
        return False


@contextmanager
def unregistered(accelerator: Any) -> Iterator[None]:
    """What is prepared here is not kept by the accelerator, which would hold every model and loader for ever."""
    lists = [getattr(accelerator, name) for name in ("_models", "_optimizers", "_schedulers", "_dataloaders")]
    before = [list(each) for each in lists]
    try:
        yield
    finally:
        for each, kept in zip(lists, before, strict=True):
            each[:] = kept
