"""How a LightningModule is handed over, with its data and its Trainer: `from_lightning`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stresstest.errors import ConfigError
from stresstest.user_model.brought import KINDS, Brought, Kind

_LIBRARIES = {"pytorch_lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}
_KINDS = ("LightningModule", "LightningDataModule", "Trainer")


@dataclass(frozen=True)
class Lightning:
    """What `from_lightning` was given. `monitor` names the logged number that is judged."""

    module: Any
    datamodule: Any = None
    trainer: Any = None
    monitor: str | None = None


def from_lightning(
    module: Any, datamodule: Any = None, trainer: Any = None, *, monitor: str | None = None
) -> Lightning:
    """Train a LightningModule on the data and by the settings of its own scripts.

    `training_step` is run by Lightning's own loop, with its hooks, clipping, accumulation and precision; its
    optimizers get the LRs that are tested, and schedulers are off. Manual optimization steps by itself and is judged by
    the loss that it returns, or by the number that it logs as `monitor`. Batches come from the `train_dataloader` of
    `datamodule`, or of the module. `trainer` brings clipping, accumulation, precision and length. A function that
    returns this is called anew for each seed; of an object each seed has a copy, with the same weights.

    Raises `ConfigError` where an argument is none of these.
    """
    found = Lightning(module, datamodule, trainer, monitor)
    for kind, name in zip(_KINDS, ("module", "datamodule", "trainer"), strict=True):
        given = getattr(found, name)
        if (given is not None or name == "module") and library_of(given, kind) is None:
            raise ConfigError(f"from_lightning: {name} is {type(given).__name__}; give a {kind}")
    return found


def is_lightning(thing: Any) -> bool:
    """Whether an object is, or holds, a LightningModule that brings more than a loss and an optimizer."""
    if isinstance(thing, Lightning):
        return True
    if isinstance(thing, tuple):
        return 2 <= len(thing) <= 3 and all(_kind_of(part) for part in thing) and _kind_of(thing[0]) != ""
    if library_of(thing, "LightningModule") is None:
        return False
    return not getattr(thing, "automatic_optimization", True) or overrides(thing, "train_dataloader")


def is_lightning_class(kind: type) -> bool:
    """Whether a class is one of LightningModules."""
    return _library(kind, "LightningModule") is not None


def parts_of(thing: Any) -> Lightning:
    """What was given, in whichever form and order."""
    if isinstance(thing, Lightning):
        return thing
    parts = {_kind_of(part): part for part in (thing if isinstance(thing, tuple) else (thing,))}
    if "LightningModule" not in parts:
        raise ConfigError(f"({', '.join(parts)}) has no LightningModule; give (module, datamodule)")
    return Lightning(*(parts.get(kind) for kind in _KINDS))


def library_of(thing: Any, kind: str) -> str | None:
    """The library whose class of this name an object is of: "pytorch_lightning" or "lightning.pytorch"."""
    return _library(type(thing), kind)


def _library(kind: type, name: str) -> str | None:
    for one in kind.__mro__:
        root = one.__module__.partition(".")[0]
        if one.__qualname__ == name and root in _LIBRARIES:
            return _LIBRARIES[root]
    return None


def _kind_of(thing: Any) -> str:
    return next((kind for kind in _KINDS if library_of(thing, kind) is not None), "")


def overrides(thing: Any, name: str) -> bool:
    """Whether a method is the user's own."""
    method = getattr(type(thing), name, None)
    return callable(method) and method.__module__.partition(".")[0] not in _LIBRARIES


def _brings(thing: Any) -> Brought:
    from stresstest.user_model.lightning_brought import what_lightning_brings  # which imports this

    return what_lightning_brings(thing)


KINDS.append(Kind(is_lightning, _brings))
