"""How a loss comes from the user's model and a batch: what they say themselves, or else what can be inferred."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.models.own import Factory
from stresstest.user_code import UserCodeError, user_code

_TARGET_NAMES = ("targets", "target", "labels", "y")
_IGNORED = -100  # torch's ignore_index


@dataclass(frozen=True)
class Contract:
    """What one batch and one model give: `loss(model, batch)` is a scalar in the units of the user's loss.

    `text` says where it comes from. `targets(batch)` are the classes to predict where the loss is a mean
    cross-entropy over `num_classes`, or numbers where it is a mean squared error (`num_classes` 0);
    `None` where nothing is known about it.
    """

    loss: Callable[[nn.Module, Any], Tensor]
    text: str
    num_classes: int = 0
    targets: Callable[[Any], Tensor] | None = None


_NEAR_CHANCE = 0.25  # a first loss within this share of ln C is taken for a cross-entropy over C classes


def contract(factory: Factory, module: nn.Module, batch: Any) -> Contract:
    """Infer how the loss is taken, by one forward pass; a `UserCodeError` says why it cannot be."""
    found = _said_or_inferred(factory, module, batch)
    return found if found.targets is not None else _taken_for_cross_entropy(found, module, batch)


def _taken_for_cross_entropy(found: Contract, module: nn.Module, batch: Any) -> Contract:
    """A loss of the user's own that starts near that of a uniform guess among the batch's classes is one of them."""
    targets = _second if isinstance(batch, Sequence) and len(batch) == 2 else _labels
    labels = targets(batch) if targets is _second or isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.is_floating_point() or not labels.numel() or labels.max() < 1:
        return found
    classes = int(labels.max()) + 1
    with torch.no_grad():
        share = float(found.loss(module, batch)) / math.log(classes)
    if abs(share - 1.0) > _NEAR_CHANCE:
        return found
    text = f"{found.text}, taken for a cross-entropy over the classes of its targets, as it starts near ln {classes}"
    return Contract(found.loss, text, classes, targets)


def _said_or_inferred(factory: Factory, module: nn.Module, batch: Any) -> Contract:
    if factory.loss_fn is not None:
        function, call = factory.loss_fn, "loss_fn(model, batch)"
        return Contract(lambda model, data: _scalar(call, function, model, data), call)
    if callable(getattr(module, "training_step", None)):
        step = "training_step(batch, 0)"
        return Contract(lambda model, data: _scalar(step, _training_step, model, data), f"the model's {step}")
    if isinstance(batch, Mapping):
        return _of_dict(factory, module, batch)
    if isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return _of_pair(module, batch)
    raise UserCodeError(
        f"no loss can be inferred from a batch of {shape_words(batch)}; give (x, y), a dict, or a loss_fn(model, batch)"
    )


def shape_words(batch: Any) -> str:
    """Types and shapes of a batch, as printed: (int64 [8, 64], int64 [8, 64])."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {shape_words(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return "(" + ", ".join(shape_words(part) for part in batch) + ")"
    return type(batch).__name__


def _training_step(model: nn.Module, batch: Any) -> Any:
    return model.training_step(batch, 0)  # type: ignore[operator]  # a LightningModule's, found by its name


def _of_dict(factory: Factory, module: nn.Module, batch: Mapping[str, Any]) -> Contract:
    def loss(model: nn.Module, data: Mapping[str, Any]) -> Tensor:
        return _scalar("model(**batch)", lambda m, d: m(**d), model, data)

    with torch.no_grad():
        loss(module, batch)
    classes, targets = 0, None
    labels = batch.get("labels")
    if factory.shifts_labels and isinstance(labels, Tensor):
        classes, targets = int(module.config.vocab_size), lambda data: data["labels"][:, 1:]  # type: ignore[union-attr,arg-type]  # its config's
    return Contract(loss, "the loss that model(**batch) returns", classes, targets)


def _of_pair(module: nn.Module, batch: Sequence[Any]) -> Contract:
    parameters = inspect.signature(module.forward).parameters
    named = next((name for name in _TARGET_NAMES if name in parameters), None)
    if named is not None:
        call = f"model(x, {named}=y)"

        def loss(model: nn.Module, data: Sequence[Any]) -> Tensor:
            return _scalar(call, lambda m, d: m(d[0], **{named: d[1]}), model, data)

        with torch.no_grad():
            loss(module, batch)
        return Contract(loss, f"the loss that {call} returns", *_known_classes(module, batch))
    with torch.no_grad():
        return _of_output(_output(module, batch), batch)


def _of_output(output: Tensor, batch: Sequence[Any]) -> Contract:
    target = batch[1]
    if target.is_floating_point():
        if output.shape != target.shape:
            raise UserCodeError(
                f"model(x) is {shape_words(output)} and y is {shape_words(target)}; "
                "for a mean squared error they must agree, or give a loss_fn(model, batch)"
            )
        text = f"mean squared error of model(x) {list(output.shape)}"
        return Contract(lambda model, data: F.mse_loss(_output(model, data).float(), data[1]), text, 0, _second)
    axis = _class_axis(output, target)
    classes = output.shape[axis]

    def loss(model: nn.Module, data: Sequence[Any]) -> Tensor:
        logits = _output(model, data).movedim(axis, -1)
        return F.cross_entropy(logits.reshape(-1, classes).float(), data[1].reshape(-1))

    return Contract(loss, f"cross-entropy of model(x) {list(output.shape)}", classes, _second)


def _second(batch: Any) -> Tensor:
    target: Tensor = batch[1]
    return target


def _labels(batch: Any) -> Tensor:
    labels: Tensor = batch.get("labels")
    return labels


def _class_axis(output: Tensor, target: Tensor) -> int:
    """-1 where classes come last, [..., C]; 1 where they come second, [B, C, ...]."""
    if output.shape[:-1] == target.shape:
        return -1
    if output.ndim == target.ndim + 1 and output.shape[:1] + output.shape[2:] == target.shape:
        return 1
    raise UserCodeError(
        f"model(x) is {shape_words(output)} and y is {shape_words(target)}; for a cross-entropy model(x) must be "
        "[..., classes] or [batch, classes, ...] over the shape of y, or give a loss_fn(model, batch)"
    )


def _known_classes(module: nn.Module, batch: Sequence[Any]) -> tuple[int, Callable[[Any], Tensor] | None]:
    """The classes of a model that takes its loss itself: those of the logits beside it, where there are some."""
    with torch.no_grad():
        output = module(batch[0], batch[1])
    for part in output if isinstance(output, tuple | list) else ():
        if (
            isinstance(part, Tensor)
            and part.is_floating_point()
            and part.shape[:-1] == batch[1].shape
            and part.ndim > 1
        ):
            return part.shape[-1], _second
    return 0, None


def _output(model: nn.Module, batch: Sequence[Any]) -> Tensor:
    """The tensor of a model's output: itself, its `logits`, or the first of several."""
    with user_code(f"model(x) on x of {shape_words(batch[0])}"):
        return _tensor(model(batch[0]))


def _tensor(output: Any) -> Tensor:
    if isinstance(output, Mapping):
        output = output.get("logits", next((value for value in output.values() if isinstance(value, Tensor)), None))
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list):
        output = next((value for value in output if isinstance(value, Tensor)), None)
    if not isinstance(output, Tensor):
        raise UserCodeError(f"returned {type(output).__name__}, and no tensor; give a loss_fn(model, batch)")
    return output


def _scalar(what: str, function: Callable[..., Any], model: nn.Module, batch: Any) -> Tensor:
    """The loss in what a function returns: a scalar, `.loss`, the entry `loss`, or the sum of several losses."""
    with user_code(what):
        found = function(model, batch)
        loss = getattr(found, "loss", None) if not isinstance(found, Tensor | Mapping) else found
        if isinstance(found, Mapping):
            named = [value for key, value in found.items() if "loss" in str(key) and isinstance(value, Tensor)]
            loss = found["loss"] if "loss" in found else sum(named[1:], named[0]) if named else None
        elif loss is None and isinstance(found, tuple | list):
            loss = next((part for part in found if isinstance(part, Tensor) and part.ndim == 0), None)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shown = shape_words(found)
            raise UserCodeError(f"returned {shown}, and no loss; return one number, or a dict with 'loss'")
        return loss.reshape(())
