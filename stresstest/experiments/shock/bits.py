"""Bits that flip: in the weights, in a gradient, or in what the products of a forward pass put out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stresstest.experiments.shock.disturbance import Scene
from stresstest.user_code import UserCodeError

_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number
_PRODUCTS = frozenset(
    {
        torch.bmm,
        torch.matmul,
        torch.mm,
        torch.addmm,
        torch.baddbmm,
        torch.einsum,
        torch.conv1d,
        torch.conv2d,
        torch.nn.functional.linear,
        torch.nn.functional.scaled_dot_product_attention,
        Tensor.matmul,
        Tensor.__matmul__,
        Tensor.bmm,
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
        """Flip bits of what the products of matrices in a step put out, each flip in one of them."""
        generator = scene.generator()
        with _Counting() as counting:
            scene.population.evaluate(scene.batch(scene.step))
        if not counting.number:
            raise UserCodeError("bit-flip where=activation: no product of matrices was seen in its forward pass")
        draws = torch.randint(1 << 62, (self.count, 3), generator=generator).tolist()
        places: dict[int, list[tuple[int, int]]] = {}
        for which, element, bit in draws:
            places.setdefault(which % counting.number, []).append((element, bit))
        with _Flipping(places, self.bit):
            yield

    def _flip(self, scene: Scene, matrix_RP: Tensor) -> None:
        columns = columns_of(scene.population.model, self.layer)
        words = _WORDS[matrix_RP.element_size()]
        draws = torch.randint(1 << 62, (self.count, 2), generator=scene.generator())
        for place, bit in draws.tolist():
            column = columns[place % len(columns)]
            number = matrix_RP[0, column : column + 1].view(words)
            number.bitwise_xor_(_mask(self.bit, bit, words))


def columns_of(model: Any, layer: str) -> Any:
    """The columns of a layer's parameters in a row: of those whose names have it; all without a name."""
    layout = model.layout
    if not layer:
        return range(layout.num_parameters)
    places = getattr(layout, "parameters", None) or layout.tensors()
    found = [range(place.start, place.stop) for place in places if is_part(layer, place.name)]
    if not found:
        known = ", ".join(place.name for place in places[:3])
        raise UserCodeError(f"bit-flip: no parameter is named '{layer}'; there are {known}, ...")
    return [column for columns in found for column in columns]


def is_part(layer: str, name: str) -> bool:
    """Whether a parameter is a layer's: by its whole name, or by the parts that it begins with."""
    return name == layer or name.startswith((f"{layer}.", f"{layer} "))


def _mask(bit: int, drawn: int, words: torch.dtype) -> int:
    bits = torch.iinfo(words).bits
    place = drawn % bits if bit < 0 else min(bit, bits - 1)
    return -(1 << place) if place == bits - 1 else 1 << place


class _Counting(TorchFunctionMode):
    """Counts the products of matrices that are taken while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _PRODUCTS and isinstance(found, Tensor) and found.is_floating_point():
            self.seen(found)
        return found

    def seen(self, found: Tensor) -> None:
        """One product."""
        self.number += 1


class _Flipping(_Counting):
    """Flips bits of what these products put out; the gradient passes through as if nothing had happened."""

    def __init__(self, places: dict[int, list[tuple[int, int]]], bit: int) -> None:
        super().__init__()
        self._places = places
        self._bit = bit

    def seen(self, found: Tensor) -> None:
        for element, drawn in self._places.get(self.number, []):
            words = _WORDS[found.element_size()]
            flat = found.data.view(words).reshape(-1) if found.is_contiguous() else found.data.view(words).flatten()
            place = element % flat.numel()
            index = torch.unravel_index(torch.tensor(place), found.shape)
            found.data[index] = (flat[place : place + 1] ^ _mask(self._bit, drawn, words)).view(found.dtype)[0]
        self.number += 1
