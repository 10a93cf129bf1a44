"""What a DataLoader brings: batch t of seed s, the same in every run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stresstest.errors import ConfigError
from stresstest.tasks.task import TRAINING
from stresstest.user_code import described
from stresstest.user_model.brought import KINDS, Brought, Kind, brings, is_instance
from stresstest.user_model.copies import copied
from stresstest.user_model.dataloader.batch_parts import length_of
from stresstest.user_model.dataloader.epochs import Epochs, Loader
from stresstest.user_model.dataloader.stream import LoaderStream

_NO_BATCHES = (str, bytes, int, float, Mapping, Tensor, np.ndarray, np.generic)


def from_dataloader(
    loader: Any,
    build: Callable[..., nn.Module] | None = None,
    *,
    validation: Any = None,
    loss_fn: Callable[[nn.Module, Any], Any] | None = None,
    optimizer: Callable[..., Any] | None = None,
) -> Brought:
    """See `stresstest.from_dataloader`."""
    _check(loader, "from_dataloader")
    if validation is not None:
        _check(validation, "validation")
    if isinstance(build, nn.Module):
        build = partial(copied, build)
    elif build is not None and not callable(build):
        raise ConfigError(f"build is {type(build).__name__}; give build(**kwargs) -> nn.Module, or a module")
    stream = LoaderStream(loader, validation)
    size = _batch_size(loader)
    workers = [str(getattr(one, "num_workers", 0)) for one in (loader, validation) if one is not None]
    return Brought(
        "a DataLoader",
        build=build,
        stream=stream,
        loss_fn=loss_fn,
        optimizer=optimizer,
        fixed={} if size is None else {"batch_size": size},
        key=f"workers={','.join(workers)}",
    )


def is_loader(thing: Any) -> bool:
    """Whether an object is a DataLoader, torch's or one that says so."""
    return isinstance(thing, DataLoader)


def is_data(thing: Any, by_name_alone: bool = False) -> bool:
    """Whether an object is read for batches; a list that a file happens to call `batch` is not, `by_name_alone`."""
    if brings(thing):
        return True
    plain = (*_NO_BATCHES, *((list, tuple, set) if by_name_alone else (tuple,)))
    return isinstance(thing, Iterable) and not isinstance(thing, (*plain, nn.Module, type))


def data_of(thing: Any) -> Any:
    """What stands for batches, where a file or a call names it: itself, what it returns, or what it brings.

    A function with parameters is `batch(step, batch_size, generator)`; one without returns a loader.
    """
    if brings(thing):
        return thing
    if not callable(thing):
        return from_dataloader(thing)
    if not _takes_nothing(thing):
        return thing
    found = thing()
    if brings(found):
        return found
    if isinstance(found, (tuple, *_NO_BATCHES)) or not isinstance(found, Iterable):
        raise ConfigError(
            f"batch() has no parameters and returned {type(found).__name__}; return a DataLoader, or take "
            "(step, batch_size, generator)"
        )
    return from_dataloader(found)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind()
    except TypeError:
        return False
    try:
        signature.bind(0, 1, None)
    except TypeError:
        return True
    return False


def _check(loader: Any, who: str) -> None:
    """A `ConfigError` for what is no loader, or one that cannot give the same batches twice."""
    name = type(loader).__name__
    of_torch = isinstance(loader, Dataset) and not isinstance(loader, IterableDataset)
    if of_torch or is_instance(loader, "datasets.arrow_dataset.Dataset"):
        raise ConfigError(f"{who} got a dataset, {name}; wrap it: DataLoader(dataset, batch_size=32, shuffle=True)")
    if callable(getattr(loader, "train_dataloader", None)):
        raise ConfigError(f"{who} got {name}; give its train_dataloader()")
    if inspect.isroutine(loader):
        raise ConfigError(f"{who} got a function; give what it returns: {loader.__name__}()")
    if isinstance(loader, _NO_BATCHES) or not isinstance(loader, Iterable) or isinstance(loader, type):
        raise ConfigError(f"{who} got {name}; give a DataLoader, or a list of batches")
    if hasattr(loader, "__next__") and iter(loader) is loader:
        raise ConfigError(
            f"{who} got {name}, which is its own iterator, so it cannot be read from the start again; give a "
            "DataLoader, a list, or an object whose __iter__ yields the batches"
        )
    if isinstance(loader, list | tuple) and not loader:
        raise ConfigError(f"{who} got an empty {name}; give a DataLoader, or a list of batches")
    if getattr(loader, "num_workers", 0) and not getattr(loader, "in_order", True):
        raise ConfigError(f"{who}: in_order=False gives batches in the order in which workers are done; leave it out")


def _batch_size(loader: Any) -> int | None:
    """Examples in a batch: what the loader says, or else those of its first batch; `None` where that has no length."""
    said = getattr(loader, "batch_size", None)
    if isinstance(said, int) and said > 0:
        return said
    order = getattr(loader, "batch_sampler", None)
    try:
        epochs = Epochs(Loader(order if isinstance(order, Iterable) else loader), 0, TRAINING)
        first = next(epochs)
        epochs.close()
    except Exception as error:
        raise ConfigError(f"the first batch of the DataLoader: {described(error)}") from None
    return len(first) if isinstance(order, Iterable) and isinstance(first, list) else length_of(first)


KINDS.append(Kind(is_loader, from_dataloader))
