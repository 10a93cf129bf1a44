"""The batches of a LightningModule or its data module, by seed and step."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from stresstest.errors import ConfigError
from stresstest.tasks.task import TRAINING
from stresstest.user_code import described
from stresstest.user_model.brought import BatchStream, Brought
from stresstest.user_model.dataloader.from_dataloader import from_dataloader
from stresstest.user_model.lightning.from_lightning import Lightning, loaders_of, overrides
from stresstest.user_model.lightning.loop import LightningLoop, quiet


def data_of_lightning(loop: LightningLoop, given: Lightning) -> Brought | None:
    """The batches of the data module, or of the module; `None` where neither has any."""
    if loop.datamodule is None and not (given.datamodule or overrides(given.module, "train_dataloader")):
        _tell(loop.trainer, None, math.inf)
        return None
    source = loop.datamodule if loop.datamodule is not None else copy.deepcopy(given.module)
    try:
        with quiet():
            loop.attach(source if loop.datamodule is None else copy.deepcopy(given.module))
            train, held_out = _loaders(source, given.datamodule if loop.datamodule is None else None)
    except Exception as error:
        raise ConfigError(f"the data of {type(source).__name__}: {described(error)}") from None
    notes = []
    if isinstance(held_out, list | tuple):
        if len(held_out) > 1:
            notes.append(f"note: of {len(held_out)} validation loaders the first is used")
        held_out = held_out[0] if held_out else None
    loader, length = _one_loader(loop.trainer, train)
    _tell(loop.trainer, train, length)
    found = from_dataloader(loader, validation=held_out)
    if loop.accumulate == 1:
        return replace(found, notes=(*notes, *found.notes))
    assert found.stream is not None, "a loader has batches"
    stream = Accumulated(found.stream, loop.accumulate, length)
    return replace(found, stream=stream, notes=(*notes, *found.notes))


def _loaders(source: Any, given: Any) -> tuple[Any, Any]:
    """The loaders for training and validation: those that are given, or those that a module makes."""
    source.prepare_data()
    source.setup("fit")
    if given is not None:
        return loaders_of(given)
    return source.train_dataloader(), source.val_dataloader() if overrides(source, "val_dataloader") else None


def _one_loader(trainer: Any, train: Any) -> tuple[Any, float]:
    """What gives the batches of an epoch, and how many there are."""
    library = importlib.import_module(type(trainer).__module__.partition(".trainer")[0])
    combined = importlib.import_module(f"{library.__name__}.utilities.combined_loader").CombinedLoader
    mode = getattr(train, "_mode", "max_size_cycle") if isinstance(train, combined) else "max_size_cycle"
    if isinstance(train, combined):
        train = train.iterables
    several = isinstance(train, dict | list | tuple)
    if several:
        one = combined(train, mode)
        with quiet():
            iter(one)
            length = _length(one)
    else:
        length = _length(train)
    limit = trainer.limit_train_batches
    most = limit if isinstance(limit, int) else (length if limit == 1.0 else int(length * limit))
    if several or most < length:
        return Combined(lambda: combined(train, mode) if several else train, several, most), min(most, length)
    return train, length


def _length(loader: Any) -> float:
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return math.inf


def _tell(trainer: Any, loaders: Any, length: float) -> None:
    """Let the Trainer know its batches, of which it draws none itself."""
    fit = trainer.fit_loop
    fit._combined_loader = _Known(loaders)
    fit.max_batches = length


class _Known:
    """Stands for the loaders where the Trainer is asked for them."""

    def __init__(self, iterables: Any) -> None:
        self.iterables = iterables
        self.flattened: list[Any] = []
        self._mode = "max_size_cycle"


class Combined:
    """Several loaders as Lightning joins them, or the first `most` batches of one; read from the start each time."""

    def __init__(self, make: Callable[[], Any], several: bool, most: float) -> None:
        self._make = make
        self._several = several
        self._most = most

    def __iter__(self) -> Iterator[Any]:
        batches = (batch for batch, _, _ in iter(self._make())) if self._several else iter(self._make())
        yield from itertools.islice(batches, None if math.isinf(self._most) else int(self._most))


class Accumulated:
    """Batches of a stream as they are accumulated: a tuple a step, the last of an epoch shorter, as Lightning's."""

    def __init__(self, stream: BatchStream, count: int, length: float) -> None:
        self.held_out = stream.held_out
        self._stream = stream
        self._count = count
        self._length = length

    def draw(self, seed: int, step: int, stream: int) -> Any:
        """The batches of a step."""
        first, count = step * self._count, self._count
        if stream == TRAINING and not math.isinf(self._length):
            length = int(self._length)
            epoch, place = divmod(step, math.ceil(length / count))
            first, count = epoch * length + place * count, min(count, length - place * count)
        return tuple(self._stream.draw(seed, first + i, stream) for i in range(count))

    def named(self, step: int, stream: int) -> str:
        """A batch in words."""
        return f"the {self._count} batches of step {step}"

    def words(self) -> str:
        """Where batches come from, in words."""
        return f"{self._stream.words()}, {self._count} a step"

    def description(self) -> Mapping[str, int | str | float]:
        """What a result stores."""
        return {**self._stream.description(), "accumulate": self._count}

    def check_repeatable(self) -> None:
        """As that of the loader."""
        check = getattr(self._stream, "check_repeatable", None)
        if check is not None:
            check()
