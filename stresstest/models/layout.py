"""Where each parameter of a replica lives in its row of `theta_RP`, and how it is drawn.

Parameters of one kind in several layers form a bank, iterated with `unbind`: indexing a bank
inside autograd costs a pass over all of it per layer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from stresstest.models.scales import Scales, UpdateSize

if TYPE_CHECKING:
    from stresstest.models.parametrization import Growth

SAMPLED_BLOCKS = 16  # of a deep model, of whose tensors statistics are kept

Leaves = dict[str, Tensor]  # banks by kind, each [R, layers, *shape]
Parameters = dict[tuple[str, int], Tensor]  # tensors by (kind, layer), each [R, *shape]


@dataclass(frozen=True)
class Init:
    """How one tensor starts: normal with `std` (times one gain per leading slice), plus `mean`."""

    std: float = 0.0
    mean: float = 0.0
    gains: tuple[float, ...] = ()

    def draw(self, seed: int, name: str, shape: Sequence[int]) -> Tensor:
        """The float64 tensor of (seed, name): the same on every machine, whoever the neighbours are."""
        values = torch.full(tuple(shape), self.mean, dtype=torch.float64)
        if self.std == 0.0:
            return values
        generator = torch.Generator().manual_seed(_seed_of(seed, name))
        values += self.std * torch.randn(tuple(shape), dtype=torch.float64, generator=generator)
        if self.gains:
            gains = torch.tensor(self.gains, dtype=torch.float64)
            values *= gains.view(-1, *[1] * (len(shape) - 1))
        return values


def xavier(fan_in: int, fan_out: int, gain: float = 1.0, gains: tuple[float, ...] = ()) -> Init:
    """Xavier's normal initialisation, N(0, gain^2 * 2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return Init(std=gain * math.sqrt(2.0 / (fan_in + fan_out)), gains=gains)


def sampled(count: int, most: int = SAMPLED_BLOCKS) -> slice:
    """At most `most` of so many places, evenly spread, the last among them."""
    stride = -(-count // most)
    return slice((count - 1) % stride, None, stride)


def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class TensorName:
    """Which parameter tensor this is: of a kind, which several blocks may have one of."""

    kind: str
    block: int | None
    text: str


@dataclass(frozen=True)
class TensorPlace:
    """The columns of a row that are one tensor's, from `start` to `stop`."""

    name: str
    start: int
    stop: int


class Segment(NamedTuple):
    """The columns of a row from `start` to `stop`: `rows` tensors of equal size.

    `decays` tells whether weight decay applies to them; `matrix` is the shape (out, in) of each that maps one hidden
    layer to another, and `None` of all others: vectors, embeddings and the layers at both ends.
    """

    start: int
    stop: int
    rows: int
    decays: bool
    matrix: tuple[int, int] | None = None


@dataclass
class Bank:
    """The tensors of one kind: one of `shape` per layer that has it."""

    kind: str
    shape: tuple[int, ...]
    layers: list[int] = field(default_factory=list)
    inits: list[Init] = field(default_factory=list)
    start: int = 0

    @property
    def numel(self) -> int:
        """Elements of one layer's tensor."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether its tensors map vectors to vectors."""
        return len(self.shape) > 1 and self.kind not in _VECTORS

    @property
    def is_split(self) -> bool:
        """Whether each of its tensors is several, stored as one."""
        return self.kind in _SPLIT

    @property
    def hidden(self) -> tuple[int, int] | None:
        """The shape (out, in) of a matrix of a block; filters of a convolution as one."""
        if not self.is_matrix or self.layers[0] == 0:
            return None
        out, *into = self.shape[self.is_split :]
        return out, math.prod(into)

    @property
    def stop(self) -> int:
        return self.start + self.numel * len(self.layers)

    def view(self, matrix_RP: Tensor) -> Tensor:
        """The bank's part of a [R, P] matrix, as [R, layers, *shape]."""
        part = matrix_RP[:, self.start : self.stop]
        return part.view(matrix_RP.shape[0], len(self.layers), *self.shape)


class RowLayout(Protocol):
    """Where the tensors of a model lie in a replica's row: of a built-in model, and of the user's own."""

    @property
    def num_parameters(self) -> int:
        """P, the length of a row."""

    def names(self) -> list[TensorName]:
        """The matrices that `parts` has, in its order."""

    def parts(self, matrix_RP: Tensor) -> list[Tensor]:
        """The rows' matrices, [R, some, size] each."""

    def decay_mask(self) -> Tensor:
        """[P]: 1 where weight decay applies, 0 elsewhere."""

    def segments(self) -> list[Segment]:
        """All columns of a row, in their order."""

    def scales(self, size: UpdateSize) -> Scales:
        """What the parametrization asks of an optimizer whose updates have this size."""


class Layout:
    """All banks of a model, in the order they were added."""

    def __init__(self) -> None:
        self.banks: dict[str, Bank] = {}
        self.growth: dict[str, Growth] = {}  # by kind; empty where every tensor is as in the base model
        self.lr_shares: dict[str, float] = {}  # by kind, of those that do not have the whole learning rate

    def add(self, kind: str, layer: int, shape: Sequence[int], init: Init) -> None:
        """Declare the tensor `kind` of `layer` (0 where a model has it once)."""
        bank = self.banks.setdefault(kind, Bank(kind, tuple(shape)))
        assert bank.shape == tuple(shape), f"bank {kind} holds tensors of one shape"
        bank.layers.append(layer)
        bank.inits.append(init)

    def close(self) -> None:
        """Fix the offsets; nothing is added afterwards."""
        start = 0
        for bank in self.banks.values():
            bank.start = start
            start = bank.stop
        self.num_parameters = start

    def draw_row(self, seed: int) -> Tensor:
        """The initial parameters of one replica, [P], drawn in float64."""
        row_P = torch.empty(self.num_parameters, dtype=torch.float64)
        for bank in self.banks.values():
            tensors = bank.view(row_P[None])[0].unbind(0)
            for tensor, layer, init in zip(tensors, bank.layers, bank.inits, strict=True):
                tensor.copy_(init.draw(seed, f"{bank.kind}.{layer}", bank.shape))
        return row_P

    def leaves(self, theta_RP: Tensor) -> Leaves:
        """One detached leaf a bank on theta's storage: autograd views of one leaf are slow."""
        return {kind: bank.view(theta_RP).detach().requires_grad_() for kind, bank in self.banks.items()}

    def views(self, matrix_RP: Tensor) -> Leaves:
        """The banks' parts of a [R, P] matrix."""
        return {kind: bank.view(matrix_RP) for kind, bank in self.banks.items()}

    def split(self, matrix_RP: Tensor) -> Leaves:
        """The same as outputs of one operation, whose derivative is one join: that of a view is as large as a row."""
        banks = self.banks.values()
        parts = matrix_RP.split_with_sizes([bank.stop - bank.start for bank in banks], dim=1)
        return {
            bank.kind: part.reshape(len(part), len(bank.layers), *bank.shape)
            for bank, part in zip(banks, parts, strict=True)
        }

    def gather(self, gradients: Sequence[Tensor], views: Leaves) -> None:
        """Write the leaves' gradients into the views of one matrix, where they are not there already."""
        for view, gradient in zip(views.values(), gradients, strict=True):
            if view.data_ptr() != gradient.data_ptr():
                view.copy_(gradient)

    def unbind(self, leaves: Leaves) -> Parameters:
        """The tensors by (kind, layer), each [R, *shape]."""
        return {
            (kind, layer): tensor
            for kind, bank in self.banks.items()
            for layer, tensor in zip(bank.layers, leaves[kind].unbind(1), strict=True)
        }

    def tensors(self) -> list[TensorPlace]:
        """Every tensor by its name, KIND or KIND.BLOCK, and where it lies in a row."""
        return [
            TensorPlace(f"{bank.kind}.{layer}" if layer else bank.kind, start, start + bank.numel)
            for bank in self.banks.values()
            for layer, start in zip(bank.layers, range(bank.start, bank.stop, bank.numel), strict=True)
        ]

    def names(self) -> list[TensorName]:
        """The matrices that `parts` has, in its order."""
        return [
            TensorName(bank.kind, layer or None, f"{bank.kind} of block {layer}" if layer else bank.kind)
            for bank in self._matrices()
            for layer in bank.layers[sampled(len(bank.layers))]
        ]

    def parts(self, matrix_RP: Tensor) -> list[Tensor]:
        """The rows' matrices, each part [R, some of one size, that size]; of a deep model, those of sampled blocks."""
        return [
            bank.view(matrix_RP).view(len(matrix_RP), len(bank.layers), bank.numel)[:, sampled(len(bank.layers))]
            for bank in self._matrices()
        ]

    def _matrices(self) -> list[Bank]:
        return [bank for bank in self.banks.values() if bank.is_matrix]

    def decay_mask(self) -> Tensor:
        """[P]: 1 where weight decay applies (matrices), 0 for gains, biases and gates."""
        parts = [torch.full((one.stop - one.start,), float(one.decays)) for one in self.segments()]
        return torch.cat(parts)

    def segments(self) -> list[Segment]:
        """Each bank as equal parts, one per tensor: the "layers" of LAMB, and the matrices of Muon."""
        return [
            Segment(
                bank.start,
                bank.stop,
                len(bank.layers) * (bank.shape[0] if bank.is_split else 1),
                bank.is_matrix,
                bank.hidden,
            )
            for bank in self.banks.values()
        ]

    def scales(self, size: UpdateSize) -> Scales:
        """What the parametrization and the variant ask of an optimizer whose updates have this size."""
        grown = self.growth.items()
        return Scales(
            self._spread({kind: growth.lr(size) for kind, growth in grown} | self.lr_shares),
            self._spread({kind: growth.eps for kind, growth in grown}),
        )

    def _spread(self, factors: Mapping[str, float]) -> Tensor | None:
        """[P]: each parameter's factor."""
        if all(factor == 1.0 for factor in factors.values()):
            return None
        return torch.cat([torch.full((b.stop - b.start,), factors.get(b.kind, 1.0)) for b in self.banks.values()])


_VECTORS = {"qkv.bias", "cross.q.bias", "cross.kv.bias"}
_SPLIT = {"qkv.weight", "cross.q.weight", "cross.kv.weight", *_VECTORS}  # tensors stored as one
