"""Bits that flip: in the weights, in a gradient, or in what the products of a forward pass put out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stresstest.experiments.shock.disturbance import Scene
from stresstest.user_code import UserCodeError
from stresstest.user_model.wrapped import uncompiled

BITS = 32  # of the number that a bit's place is given in: the sign is 31 in numbers of any size
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number
_PRODUCTS = frozenset(
    {
        *(torch.bmm, torch.matmul, torch.mm, torch.addmm, torch.baddbmm, torch.einsum),
        *(torch.conv1d, torch.conv2d, torch.conv3d),
        *(torch.nn.functional.linear, torch.nn.functional.scaled_dot_product_attention),
        torch.nn.functional.multi_head_attention_forward,
        *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm, Tensor.mm),
    }
)


@dataclass(frozen=True)
class Flips:
    """So many flips of a bit (-1: any of a number's) of elements drawn at random, of one layer where one is named."""

    count: int
    bit: int
    layer: str = ""

    def in_weights(self, scene: Scene) -> None:
        """Flip bits of the weights."""
        self._flip(scene, scene.population.theta_RP)
        scene.population.changed()

    def in_gradient(self, scene: Scene) -> None:
        """Flip bits of the gradient that was just taken."""
        self._flip(scene, scene.population.grad_RP)

    @contextmanager
    def in_activations(self, scene: Scene) -> Iterator[None]:
        """Flip bits of what the products of matrices in a step put out, or a layer of the user's; each in one of them.

        The gradient passes through as if nothing had happened.
        """
        generator = scene.generator()
        with uncompiled():
            counted = _Outputs()
            with self._watched(scene, counted):
                scene.population.step_loss(scene.batch(scene.step))
            if not counted.number:
                raise UserCodeError(f"bit-flip where=activation: {self._none_seen}")
            places: dict[int, list[tuple[int, int]]] = {}
            for which, element, bit in torch.randint(1 << 62, (self.count, 3), generator=generator).tolist():
                places.setdefault(which % counted.number, []).append((element, bit))
            flipped = _Outputs(places, self.bit)
            with self._watched(scene, flipped):
                yield
        if places:
            raise UserCodeError("bit-flip where=activation: its step takes another forward pass than an evaluation")

    @property
    def _none_seen(self) -> str:
        return f"layer {self.layer} put nothing out" if self.layer else "its forward pass has no product of matrices"

    def _watched(self, scene: Scene, outputs: _Outputs) -> AbstractContextManager[Any]:
        if not self.layer:
            return _Products(outputs)
        module = scene.population.modules[0]  # type: ignore[attr-defined]  # of the user's own, as was checked
        return _layer(module.get_submodule(self.layer), outputs)

    def _flip(self, scene: Scene, matrix_RP: Tensor) -> None:
        places = places_of(scene.population.model, self.layer)
        stops = list(accumulate(place.stop - place.start for place in places))
        for element, drawn in torch.randint(1 << 62, (self.count, 2), generator=scene.generator()).tolist():
            which = bisect_right(stops, element % stops[-1])
            column = places[which].stop - stops[which] + element % stops[-1]
            number = matrix_RP[0, column]
            own = number.to(getattr(places[which], "dtype", number.dtype))  # of a matrix that mirrors others' numbers
            _flip(own, self.bit, drawn)
            number.copy_(own)


def places_of(model: Any, layer: str) -> Any:
    """The columns of a layer's parameters: of those whose names are its own or begin with it; of all without a name."""
    layout = model.layout
    places = getattr(layout, "parameters", None) or layout.tensors()
    return [place for place in places if not layer or place.name == layer or place.name.startswith(f"{layer}.")]


def _flip(number: Tensor, bit: int, drawn: int) -> None:
    """Flip a bit of one number, where it is: counted from its sign down, or any."""
    bits = 8 * number.element_size()
    place = drawn % bits if bit < 0 else max(0, bits - BITS + bit)
    mask = -(1 << place) if place == bits - 1 else 1 << place
    number.view(_WORDS[number.element_size()]).bitwise_xor_(mask)


@dataclass
class _Outputs:
    """Counts tensors as they are put out, and flips bits of some of them: by number, (element, drawn) of each."""

    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    bit: int = -1
    number: int = 0

    def seen(self, found: Any) -> None:
        """One more."""
        tensor = _first_number(found)
        if tensor is None:
            return
        for element, drawn in self.places.pop(self.number, []):
            index = np.unravel_index(element % tensor.numel(), tensor.shape)
            _flip(tensor.data[tuple(int(i) for i in index)], self.bit, drawn)
        self.number += 1


def _first_number(found: Any) -> Tensor | None:
    """The first tensor of floating-point numbers in what is put out."""
    if isinstance(found, Tensor):
        return found if found.is_floating_point() and found.numel() else None
    parts = found.values() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else ()
    return next((tensor for tensor in map(_first_number, parts) if tensor is not None), None)


class _Products(TorchFunctionMode):
    """Shows the products of matrices that are taken while it is on."""

    def __init__(self, outputs: _Outputs) -> None:
        super().__init__()
        self._outputs = outputs

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            self._outputs.seen(found)
        return found


@contextmanager
def _layer(module: nn.Module, outputs: _Outputs) -> Iterator[None]:
    """Shows what a module puts out."""
    handle = module.register_forward_hook(lambda module, inputs, found: outputs.seen(found))
    try:
        yield
    finally:
        handle.remove()
