"""What is read of a model and its optimizer while they train, without changing anything.

Every step: the learning rate of each group and the norm of a few small gradients. Every `EVERY` steps, and at every
one while there is an alarm: the norm of the whole gradient, the largest weight, the ratio of update to weight of some
matrices, the largest activation of some modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Level = Literal["off", "economy", "full"]
EVERY: dict[Level, int] = {"economy": 20, "full": 1}
_SMALL = 1 << 14  # elements of a gradient that is looked at in every step
_MEDIUM = 1 << 18  # of a matrix whose update is
_SAMPLED = 4  # gradients, matrices and modules each


class Probes:
    """Hooks on the optimizers and, in the steps that are looked at, on some modules.

    `collect` gives the numbers of the step that was just taken, some of them tensors on the model's device.
    """

    def __init__(self, model: nn.Module | None, optimizers: Sequence[Any], level: Level, scaler: Any = None) -> None:
        self._model = model
        self._optimizers = optimizers
        self._level: Level = level
        self._scaler = scaler
        self._found: dict[str, float | Tensor] = {}
        self._looks = level != "off"  # at the coming step
        self._watched: list[Any] = []  # module hooks
        self._before: list[Tensor] = []
        self._handles: list[Any] = []
        parameters = _trainable(model)
        self._parameters: list[Tensor] = [parameter for _, parameter in parameters]
        matrices = [pair for pair in parameters if pair[1].dim() > 1 and pair[1].numel() <= _MEDIUM]
        self._matrices = _spread(matrices)
        self._small = [one for _, one in _spread([pair for pair in parameters if pair[1].numel() <= _SMALL])]
        self._modules = [] if _is_compiled(model) else _spread(_leaves(model))
        if level != "off":
            self._hook_optimizers()
            self._hook_modules()

    def look(self, at_next: bool, next_index: int) -> None:
        """Whether to look at the coming step: in any case, or by its turn."""
        if self._level == "off":
            return
        self._looks = at_next or next_index % EVERY[self._level] == 0
        self._hook_modules()

    def gradients(self) -> None:
        """Take the gradients as they are now: called before clipping."""
        if self._level == "off":
            return
        with torch.no_grad():
            self._note("grad_norm_sample", _norm([one.grad for one in self._small if one.grad is not None]))
            if self._looks:
                self._note("grad_norm", _norm([one.grad for one in self._parameters if one.grad is not None]))

    def collect(self) -> dict[str, float | Tensor]:
        """The numbers since the last call."""
        if self._level == "off":
            return {}
        self._gradients_if_new()  # there may be no optimizer to hook
        if self._looks and self._parameters:
            with torch.no_grad():
                self._note("max_weight", torch.stack(torch._foreach_norm(self._parameters, float("inf"))).amax())
        if "lr" not in self._found:
            self._note_learning_rates()
        if self._scaler is not None:
            self._note("loss_scale", float(self._scaler.get_scale()))
        found, self._found = self._found, {}
        return found

    def first_nonfinite(self) -> str:
        """The name of the first parameter or gradient that is not finite; empty if all are."""
        named = [] if self._model is None else list(self._model.named_parameters())
        for name, weight in named:
            if not bool(torch.isfinite(weight).all()):
                return name
            if weight.grad is not None and not bool(torch.isfinite(weight.grad).all()):
                return f"gradient of {name}"
        return ""

    def close(self) -> None:
        """Take every hook off."""
        for handle in (*self._handles, *self._watched):
            handle.remove()
        self._handles, self._watched, self._modules, self._level = [], [], [], "off"

    def _note(self, name: str, value: float | Tensor | None) -> None:
        if value is not None:
            self._found[name] = value

    def _note_learning_rates(self) -> None:
        rates = [group["lr"] for one in self._optimizers for group in one.param_groups if "lr" in group]
        for i, rate in enumerate(rates):
            self._note("lr" if i == 0 else f"lr_{i}", rate if isinstance(rate, Tensor) else float(rate))

    # Hooks

    def _hook_optimizers(self) -> None:
        for optimizer in self._optimizers:
            if hasattr(optimizer, "register_step_pre_hook"):
                self._handles.append(optimizer.register_step_pre_hook(self._before_step))
                self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not args and kwargs.get("closure") is None:  # which computes the gradients
            self._gradients_if_new()
        self._note_learning_rates()  # a schedule may change them before the step is handed over
        if self._looks and not self._before:
            self._before = [parameter.detach().clone() for _, parameter in self._matrices]

    def _gradients_if_new(self) -> None:
        if "grad_norm_sample" not in self._found:
            self.gradients()

    def _after_step(self, *_args: Any) -> None:
        self._gradients_if_new()
        if not self._before:
            return
        with torch.no_grad():
            sizes = torch._foreach_norm(self._before)
            torch._foreach_sub_(self._before, [weight for _, weight in self._matrices])
            updates = torch._foreach_norm(self._before)
        for (place, _), update, size in zip(self._matrices, updates, sizes, strict=True):
            self._note(f"update_ratio/{place}", update / size)
        self._before = []

    def _hook_modules(self) -> None:
        for handle in self._watched:
            handle.remove()
        hook: Callable[[str], Any] = lambda name: partial(self._after_forward, name)  # noqa: E731
        self._watched = [module.register_forward_hook(hook(name)) for name, module in self._modules if self._looks]

    def _after_forward(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel() and module.training:
            self._note(f"max_activation/{name}", torch.linalg.vector_norm(output.detach(), float("inf")))


def _trainable(model: nn.Module | None) -> list[tuple[str, nn.Parameter]]:
    if model is None:
        return []
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad and one.is_floating_point()]


def _leaves(model: nn.Module | None) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own and no children."""
    if model is None:
        return []
    return [
        (name, one) for name, one in model.named_modules() if name and not [*one.children()] and [*one.parameters()]
    ]


def _is_compiled(model: nn.Module | None) -> bool:
    """A hook that comes and goes would have it compiled again."""
    return hasattr(model, "_orig_mod")


def _spread(items: Sequence[T]) -> list[T]:
    """A few of them from first to last."""
    if len(items) <= _SAMPLED:
        return list(items)
    return [items[round(i * (len(items) - 1) / (_SAMPLED - 1))] for i in range(_SAMPLED)]


def _entries(sparse: Tensor) -> Tensor:
    """Those that are not zero; an embedding's gradient has a row for each time that a token occurs."""
    return sparse.coalesce().values() if sparse.layout == torch.sparse_coo else sparse.to_dense()


def _norm(gradients: Sequence[Tensor]) -> Tensor | None:
    """Of all of them as one vector."""
    dense = [one if one.layout == torch.strided else _entries(one) for one in gradients]
    dense = [one.float() if one.dtype == torch.float16 else one for one in dense]  # a norm above 65,504 is none there
    if not dense:
        return None
    device = dense[0].device
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in torch._foreach_norm(dense)]))
    return total
