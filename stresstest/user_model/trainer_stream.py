"""Batches from a transformers Trainer: those of its own loop with the same seed, an optimizer step's at once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from stresstest.tasks.task import TRAINING, VALIDATION, splitmix64
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.factory import seeded

_MOST_OPEN = 8  # passes over the data that are kept open: each may hold worker processes


@dataclass
class Generators:
    """Where the global generators of torch, numpy and Python stand."""

    torch_state: torch.Tensor
    numpy_state: Any
    python_state: Any

    @classmethod
    def now(cls) -> Generators:
        """Where they stand now."""
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate())

    def resume(self) -> None:
        """Let them stand there again."""
        torch.set_rng_state(self.torch_state)
        np.random.set_state(self.numpy_state)
        random.setstate(self.python_state)


class Loaders(Protocol):
    """What makes the loaders of one training, as Trainer's own loop does."""

    accumulation: int
    num_workers: int

    def start(self, seed: int) -> Generators:
        """Where the generators stand in the native loop when it makes its loader."""
        ...

    def training(self) -> Any:
        """A new loader of training batches."""
        ...

    def held_out(self) -> Any:
        """A new loader of held-out batches; `None` without."""
        ...

    def ordered_by(self, seed: int | None) -> Any:
        """A context in which orders are drawn from this seed, even where the arguments fix one; `None`: as they say."""
        ...


@dataclass
class _Pass:
    """One training's way through the data."""

    steps: Iterator[Any]
    stands: Generators
    seed: int
    next: int = 0
    last: list[Any] = field(default_factory=list)  # of the step before `next`: rows of one seed ask for it in turn


class TrainerStream:
    """Batches of a Trainer by seed and step; see `BatchStream`.

    Step t of seed s is what `trainer.train()` trains on with `TrainingArguments(seed=s)`: one batch, or with gradient
    accumulation a list of them. Whatever a dataset or collator draws comes from generators that start as that loop's
    do and that nothing else draws from.
    """

    def __init__(self, loaders: Loaders, held_out: bool, what: str) -> None:
        self.held_out = held_out
        self._loaders = loaders
        self._what = what
        self._passes: dict[tuple[int, int], _Pass] = {}

    def draw(self, seed: int, step: int, stream: int) -> Any:
        """The batch, or a list of those that are accumulated; a `UserCodeError` where there is none."""
        key = seed, stream
        found = self._passes.pop(key, None)
        if found is None or step < found.next - 1:
            found = self._begin(seed, stream)
        self._passes[key] = found  # the last used stands last
        while len(self._passes) > _MOST_OPEN:
            del self._passes[next(iter(self._passes))]
        with user_code(self.named(step, stream)):
            while found.next <= step:
                self._advance(found, step)
        return _owned(found.last[0])

    def named(self, step: int, stream: int) -> str:
        """A batch in words."""
        part = "evaluation" if stream == VALIDATION and self.held_out else "training"
        return f"batch {step} of the Trainer's {part} data"

    def words(self) -> str:
        """Where batches come from, in words."""
        each = f", {self._loaders.accumulation} for each step" if self._loaders.accumulation > 1 else ""
        return f"{self._what}{each}"

    def description(self) -> Mapping[str, int | str | float]:
        """What a result stores."""
        return {"loader": self._what, "accumulation": self._loaders.accumulation, "workers": self._loaders.num_workers}

    def _begin(self, seed: int, stream: int) -> _Pass:
        """A new way through the data: that of the native loop, or of a seed of its own for any other stream."""
        native = stream == TRAINING
        own = seed if native else int(splitmix64(np.array([seed * 4 + stream], np.uint64))[0] >> np.uint64(1))
        held_out = stream == VALIDATION and self.held_out
        with seeded(own), self._loaders.ordered_by(None if native else own):
            if native:
                self._loaders.start(seed).resume()
            loader = self._loaders.held_out() if held_out else self._loaders.training()  # reads the order's seed
            return _Pass(_steps(loader, self._loaders.accumulation, held_out), Generators.now(), own)

    def _advance(self, one: _Pass, step: int) -> None:
        with seeded(one.seed):
            one.stands.resume()
            try:
                one.last = [next(one.steps)]
            except StopIteration:
                raise UserCodeError(f"is not there: the data have no batch (asked for step {step})") from None
            one.stands = Generators.now()
        one.next += 1


def micro_batches(data: Any, accumulation: int) -> list[list[Any]]:
    """The batches of a step in the groups that are normalised together: one, unless an epoch ended within a step."""
    if accumulation == 1:
        return [[data]]
    before = [list(part) for part in data if _is_group(part)]
    return [*before, [part for part in data if not _is_group(part)]]


def _is_group(part: Any) -> bool:
    return isinstance(part, Sequence) and len(part) > 0 and isinstance(part[0], Mapping)


def _steps(loader: Any, accumulation: int, held_out: bool) -> Iterator[Any]:
    """What a step is given: of held-out data one batch, in the form that training has."""
    if not held_out or accumulation == 1:
        return _endless(loader, accumulation)
    return ([batch] for batch in _endless(loader, 1))


def _endless(loader: Any, accumulation: int) -> Iterator[Any]:
    """Epoch after epoch, as many batches as a step takes at a time.

    As in Trainer's loop the last step of an epoch may have fewer; where the loader has no length, their gradients are
    left to the next epoch's first step.
    """
    left: list[Any] = []
    epoch = 0
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
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def _has_length(loader: Any) -> bool:
    try:
        return len(loader) is not None
    except (TypeError, AttributeError):
        return False


def _owned(data: Any) -> Any:
    """The same in containers and tensors of the caller's own."""
    if isinstance(data, torch.Tensor):
        return data.clone()
    if isinstance(data, list):
        return [_owned(part) for part in data]
    if isinstance(data, Mapping):
        found = {key: _owned(value) for key, value in data.items()}
        return found if type(data) is dict else _like(data, found)
    return data


def _like(data: Any, found: Mapping[str, Any]) -> Any:
    try:
        return type(data)(found)
    except TypeError:
        return dict(found)


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
