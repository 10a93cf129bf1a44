"""What is made before a loop: a model, its optimizer and its loader, of torch or prepared by accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from stresstest.errors import ConfigError
from stresstest.user_model.brought import Brought, is_instance
from stresstest.user_model.copies import copied, rebuilt
from stresstest.user_model.dataloader.from_dataloader import from_dataloader

_WHAT = "what is made before the loop"


def is_made(thing: Any) -> bool:
    """Whether it is a tuple, list or dict with one module and a DataLoader or an optimizer beside it."""
    parts = _parts(thing)
    modules = [part for part in parts if isinstance(part, nn.Module) and not _is_loss(part)]
    return len(modules) == 1 and any(isinstance(part, DataLoader | torch.optim.Optimizer) for part in parts)


def from_made(thing: Any) -> Brought:
    """The parts of a loop, in any order: a module, and an optimizer, one or two loaders, a loss_fn(model, batch).

    The first loader trains, a second one is held out. A function is called anew for each seed, which draws its weights;
    of the parts themselves every seed starts from the module's weights.
    """
    parts = _parts(thing)
    module = _module_of(thing)
    optimizers = [_unwrapped(part) for part in parts if isinstance(part, torch.optim.Optimizer)]
    loaders = [part for part in parts if isinstance(part, DataLoader)]
    functions = [part for part in parts if _is_function(part)]
    if len(optimizers) > 1 or len(loaders) > 2 or len(functions) > 1:
        raise ConfigError(
            f"{_WHAT} has {len(optimizers)} optimizers, {len(loaders)} loaders and {len(functions)} functions; return "
            "one optimizer, a loader or two (the second is held out) and at most one loss_fn(model, batch)"
        )
    losses = [part for part in parts if _is_loss(part)]
    if losses:
        raise ConfigError(
            f"{_WHAT} has {type(losses[0]).__name__}, and what it is called with is not known; return a function "
            "loss_fn(model, batch) in its place"
        )
    held = [optimizer for optimizer in optimizers if any(group["params"] for group in optimizer.param_groups)]
    data = from_dataloader(loaders[0], validation=loaders[1] if len(loaders) > 1 else None) if loaders else None
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return Brought(
        _WHAT,
        build=lambda: copied(module),
        stream=data.stream if data is not None else None,
        loss_fn=functions[0] if functions else None,
        optimizer=(lambda model: rebuilt(held[0], names, model, "the optimizer")) if held else None,
        optimizer_words="what is made before the loop",
        settings=_accumulated(parts),
        fixed=data.fixed if data is not None else {},
        pick=_module_of,
        key=data.key if data is not None else "",
    )


def _parts(thing: Any) -> Sequence[Any]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    return thing if isinstance(thing, list | tuple) else ()


def _module_of(thing: Any) -> nn.Module:
    return next(part for part in _parts(thing) if isinstance(part, nn.Module) and not _is_loss(part))


def _is_loss(part: Any) -> bool:
    """Whether it is one of torch's losses, a module without parameters that takes outputs and targets."""
    return isinstance(part, nn.modules.loss._Loss)


def _is_function(part: Any) -> bool:
    other = (nn.Module, torch.optim.Optimizer, DataLoader, torch.optim.lr_scheduler.LRScheduler)
    named = is_instance(part, "accelerate.accelerator.Accelerator", "accelerate.scheduler.AcceleratedScheduler")
    return callable(part) and not isinstance(part, other) and not named


def _accumulated(parts: Sequence[Any]) -> dict[str, Any]:
    """The batches of a step that Accelerator(gradient_accumulation_steps=N) was told of, as a setting."""
    states = [getattr(part, "gradient_state", None) for part in parts if isinstance(part, torch.optim.Optimizer)]
    steps = max((int(getattr(state, "num_steps", 1)) for state in states), default=1)
    return {"accumulate": steps} if steps > 1 else {}


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer within accelerate's."""
    if not is_instance(optimizer, "accelerate.optimizer.AcceleratedOptimizer"):
        return optimizer  # type: ignore[no-any-return]  # one of torch's
    inner: torch.optim.Optimizer = optimizer.optimizer
    return inner
