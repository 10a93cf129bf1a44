"""How a loss comes from the user's model and a batch: what they say themselves, or else what can be inferred."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.brought import Backward
from stresstest.user_model.carried import kept
from stresstest.user_model.constants.targets import IGNORED, TARGET_NAMES, Targets
from stresstest.user_model.factory import Factory
from stresstest.user_model.micro_batches import MicroBatches, evaluated, parts_of

NATS = "nats"
_TOTALS = ("loss", "total_loss")  # entries of a dict of losses that are trained on, the first that is there
_ORDINALS = {0: "first", 1: "second", 2: "third"}
_MASKS = (-1, 255)  # what marks a position without a target in many data sets, beside torch's -100


@dataclass(frozen=True)
class Contract:
    """What one batch and one model give: `loss(model, batch)` is a scalar in the unit of the user's loss.

    Of `MicroBatches` it is the sum of the parts' by their shares.

    `text` says where it comes from, `unit` is "nats" of a likelihood and else empty. Where the loss was inferred,
    `targets` says what is predicted: of `num_classes` by cross-entropy, or numbers (0) by mean squared error.
    `differentiates`: the loss takes gradients itself, so that it cannot be evaluated without autograd.
    """

    loss: Callable[[nn.Module, Any], Tensor]
    text: str
    unit: str = ""
    targets: Targets | None = None
    num_classes: int = 0
    differentiates: bool = False
    stepped: bool = False  # the loss is what a whole step of the user's returns: a number without a gradient
    backward: Backward | None = None  # how the user's code takes the gradient, where it does so itself
    in_training: bool = False  # the loss cannot be taken in evaluation mode


def only_in_training(found: Contract, module: nn.Module, batch: Any) -> bool:
    """Whether the loss fails in evaluation mode, as that of models which return it in training alone."""
    if found.stepped:
        return False
    try:
        with torch.no_grad(), kept(module):
            found.loss(module.eval(), batch)
    except UserCodeError:
        return True
    finally:
        module.train()
    return False


def contract(factory: Factory, module: nn.Module, batch: Any) -> Contract:
    """Infer how the loss is taken, by one or two forward passes; a `UserCodeError` says why it cannot be."""
    batch = parts_of(batch).parts[0]
    found = replace(_said_or_inferred(factory, module, batch), backward=factory.backward)
    found = replace(found, loss=partial(evaluated, found.loss))
    try:
        with torch.no_grad():
            found.loss(module, batch)
    except UserCodeError as error:
        if "RuntimeError" not in error.line:
            raise
        with torch.enable_grad():
            found.loss(module, batch)  # raises what it has to say by itself
        return _with_gradients(found)
    return found


def _with_gradients(found: Contract) -> Contract:
    def loss(model: nn.Module, data: Any) -> Tensor:
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            value = found.loss(model, data)
        return value if wanted else value.detach()

    return replace(found, loss=loss, differentiates=True)


def _said_or_inferred(factory: Factory, module: nn.Module, batch: Any) -> Contract:
    if factory.loss_fn is not None:
        return _called(factory.loss_words, factory.loss_fn, module, batch)
    if callable(getattr(module, "training_step", None)):
        found = _called("training_step(batch, 0)", _training_step, module, batch)
        return replace(found, text=f"the model's {found.text}")
    if isinstance(batch, Mapping):
        found = _called("model(**batch)", lambda model, data: model(**data), module, batch)
        return _returned(found, "model(**batch)", batch.get("labels"))
    if isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return _of_pair(module, batch)
    raise UserCodeError(
        f"cannot infer a loss from a batch of {shape_words(batch)}; give (x, y), a dict, or a loss_fn(model, batch)"
    )


def shape_words(batch: Any) -> str:
    """Types and shapes of a batch, as printed: (int64 [8, 64], int64 [8, 64])."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}"
    if isinstance(batch, MicroBatches):
        return f"{len(batch)} x {shape_words(batch.parts[0])}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {shape_words(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return "(" + ", ".join(shape_words(part) for part in batch) + ")"
    return type(batch).__name__


def _called(call: str, function: Callable[..., Any], module: nn.Module, batch: Any) -> Contract:
    """The loss in what a call returns; `text` says which part of it, where there is a choice."""

    def loss(model: nn.Module, data: Any) -> Tensor:
        return loss_in(call, function, model, data)

    with torch.enable_grad(), user_code(call):
        choice = _choice(function(module, batch))
    return Contract(loss, f"{call}{choice}")


def _returned(found: Contract, call: str, targets: Any) -> Contract:
    text = f"the loss that {call} returns{found.text.removeprefix(call)}"
    return replace(found, text=text, unit=NATS if _are_classes(targets) else "")


def _training_step(model: nn.Module, batch: Any) -> Any:
    return model.training_step(batch, 0)  # type: ignore[operator]  # a LightningModule's, found by its name


def _of_pair(module: nn.Module, batch: Sequence[Any]) -> Contract:
    named = next((name for name in TARGET_NAMES if name in _parameters(module)), None)
    if named is not None:
        call = f"model(x, {named}=y)"
        return _returned(_called(call, lambda m, d: m(d[0], **{named: d[1]}), module, batch), call, batch[1])
    with torch.no_grad():
        return _of_output(_output(module, batch), batch)


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Those of the forward; a compiled module's wrapper says nothing, what it wraps does."""
    try:
        return inspect.signature(plain_module(module).forward).parameters
    except ValueError:  # a traced module says nothing
        return {}


def plain_module(module: nn.Module) -> nn.Module:
    """The module that torch.compile was given, or the module itself."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


def _of_output(output: Tensor, batch: Sequence[Any]) -> Contract:
    target = batch[1]
    shown = f"model(x) {list(output.shape)}"
    if target.is_floating_point():
        if output.shape != target.shape:
            raise UserCodeError(
                f"model(x) is {shape_words(output)} and y is {shape_words(target)}; "
                "make their shapes equal (mean squared error), or give a loss_fn(model, batch)"
            )
        return Contract(_squared_error, f"mean squared error of {shown}", targets=Targets(1))
    if _is_one_logit(output, target):
        each = "each logit" if target.shape[1:].numel() > 1 else "the one logit"
        return Contract(_binary, f"binary cross-entropy of {each} of {shown}", NATS)
    axis = _class_axis(output, target)
    classes = output.shape[axis]
    outside = _outside(target, classes)
    ignored = [value for value in _MASKS if not 0 <= value < classes]
    also = ", ignoring targets of " + ", ".join(map(str, outside)) if outside else ""

    def loss(model: nn.Module, data: Any) -> Tensor:
        logits, labels = _output(model, data).movedim(axis, -1), data[1].reshape(-1)
        with user_code("cross-entropy of model(x) and y"):
            for value in ignored:
                labels = labels.masked_fill(labels == value, IGNORED)
            return F.cross_entropy(_single(logits.flatten(0, -2)), labels.long())  # classes may vary by batch

    return Contract(loss, f"cross-entropy of {shown}{also}", NATS, Targets(1), classes)


def _squared_error(model: nn.Module, data: Any) -> Tensor:
    with user_code("mean squared error of model(x) and y"):
        return F.mse_loss(_single(_output(model, data)), data[1])


def _binary(model: nn.Module, data: Any) -> Tensor:
    logits = _output(model, data)
    return F.binary_cross_entropy_with_logits(_single(logits), data[1].reshape(logits.shape).to(_single(logits)))


def _single(logits: Tensor) -> Tensor:
    """Half precision is too coarse for a loss; double stays what it is."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _is_one_logit(output: Tensor, target: Tensor) -> bool:
    if output.numel() != target.numel() or output.shape[: target.ndim] != target.shape or not _are_classes(target):
        return False
    return bool((target.bool() == target).all())


def _are_classes(target: Any) -> bool:
    return isinstance(target, Tensor) and not target.is_floating_point() and not target.is_complex()


def _outside(target: Tensor, classes: int) -> list[int]:
    """The values of y that mark positions without a target; what else lies outside the classes is an error."""
    values: list[int] = torch.unique(target).tolist()
    outside = [value for value in values if not 0 <= value < classes and value != IGNORED]
    wrong = [value for value in outside if value not in _MASKS]
    if wrong and classes == 1:
        raise UserCodeError(
            f"y contains the integer {wrong[0]}, but model(x) has one output; for a regression give y.float() in the "
            "shape of model(x), or a loss_fn(model, batch)"
        )
    if wrong:
        raise UserCodeError(
            f"y contains {wrong[0]}, but model(x) has {classes} classes; use 0 to {classes - 1}, or {IGNORED} where "
            "nothing is to be predicted, or give a loss_fn(model, batch)"
        )
    return outside


def _class_axis(output: Tensor, target: Tensor) -> int:
    """-1 where classes come last, [..., C]; 1 where they come second, [B, C, ...]."""
    if output.shape[:-1] == target.shape:
        return -1
    if output.ndim == target.ndim + 1 and output.shape[:1] + output.shape[2:] == target.shape:
        return 1
    raise UserCodeError(
        f"model(x) is {shape_words(output)} and y is {shape_words(target)}; for a cross-entropy model(x) must be "
        "[..., classes] or [batch, classes, ...] matching the shape of y, or give a loss_fn(model, batch)"
    )


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
        raise UserCodeError(f"returned {type(output).__name__}, not a tensor; give a loss_fn(model, batch)")
    return output


def loss_in(what: str, function: Callable[..., Any], model: nn.Module, batch: Any) -> Tensor:
    """The loss in what a function returns: a scalar, `.loss`, the entry `loss` or `total_loss`, or a sum of losses."""
    with user_code(what):
        found = function(model, batch)
        loss: Any = found if isinstance(found, Tensor) else getattr(found, "loss", None)
        if isinstance(found, Mapping):
            parts = _losses(found)
            loss = sum((value for _, value in parts[1:]), parts[0][1]) if parts else None
        elif loss is None and isinstance(found, tuple | list):
            loss = found[place] if (place := _place(found)) is not None else None
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise UserCodeError(f"returned {shape_words(found)}, not a loss; return one number, or a dict with 'loss'")
        return loss.reshape(())


def _losses(found: Mapping[Any, Any]) -> list[tuple[str, Tensor]]:
    """The entry of a dict that is the loss; where none says so, all that are called a loss."""
    total = next((name for name in _TOTALS if isinstance(found.get(name), Tensor)), None)
    if total is not None:
        return [(total, found[total])]
    return [(str(key), value) for key, value in found.items() if "loss" in str(key) and isinstance(value, Tensor)]


def _place(found: Sequence[Any]) -> int | None:
    """Where in several values the loss is: the first single number."""
    return next((place for place, part in enumerate(found) if isinstance(part, Tensor) and part.ndim == 0), None)


def _choice(found: Any) -> str:
    """Which part of a result is trained on, in words; nothing where there is one alone."""
    if isinstance(found, tuple | list) and not hasattr(found, "loss"):
        place = _place(found)
        return "" if place is None or len(found) < 2 else f", its {_ORDINALS.get(place, f'{place + 1}th')} part"
    if not isinstance(found, Mapping) or len(found) < 2 or hasattr(found, "loss"):
        return ""
    names = [name for name, _ in _losses(found)]
    if len(names) == 1:
        return f", its '{names[0]}'"
    return f", the sum of {', '.join(map(repr, names))}" if names else ""
