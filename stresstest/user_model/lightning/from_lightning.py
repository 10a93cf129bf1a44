"""How a LightningModule is handed over, with its data and its Trainer: `from_lightning`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stresstest.errors import ConfigError
from stresstest.user_model.brought import KINDS, Brought, Kind, is_instance

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
    `datamodule`, or of the module; a DataLoader, or (loader, validation loader), stands in its place. `trainer` brings
    clipping, accumulation, precision and length. A function that returns this is called anew for each seed; of an
    object each seed has a copy, with the same weights.

    Raises `ConfigError` where an argument is none of these.
    """
    found = Lightning(module, datamodule, trainer, monitor)
    for kind, name in zip(_KINDS, ("module", "datamodule", "trainer"), strict=True):
        given = getattr(found, name)
        if name == "datamodule" and _are_loaders(given):
            continue
        if (given is not None or name == "module") and library_of(given, kind) is None:
            also = ", a DataLoader, or (loader, validation loader)" if name == "datamodule" else ""
            raise ConfigError(f"from_lightning: {name} is {type(given).__name__}; give a {kind}{also}")
    return found


def is_lightning(thing: Any) -> bool:
    """Whether an object is, or holds, a LightningModule that brings more than a loss and an optimizer."""
    if isinstance(thing, Lightning):
        return True
    if isinstance(thing, tuple):
        kinds = [_kind_of(part) for part in thing]
        return "LightningModule" in kinds and all(kind or _are_loaders(p) for kind, p in zip(kinds, thing, strict=True))
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
    whole = thing if isinstance(thing, tuple) else (thing,)
    parts = {_kind_of(part): part for part in whole}
    loaders = tuple(part for part in whole if _are_loaders(part))
    datamodule = parts.get("LightningDataModule", loaders or None)
    return from_lightning(parts["LightningModule"], datamodule, parts.get("Trainer"))


def loaders_of(datamodule: Any) -> tuple[Any, Any]:
    """(loader, validation loader) where these are given in the place of a data module."""
    parts = datamodule if isinstance(datamodule, tuple) else (datamodule,)
    return parts[0], parts[1] if len(parts) > 1 else None


def _are_loaders(thing: Any) -> bool:
    parts = thing if isinstance(thing, tuple) else (thing,)
    return 0 < len(parts) < 3 and all(is_instance(part, "torch.utils.data.dataloader.DataLoader") for part in parts)


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
    from stresstest.user_model.lightning.parts import what_lightning_brings  # which imports this

    return what_lightning_brings(thing)


KINDS.insert(0, Kind(is_lightning, _brings))
