"""Where the trainable parameters of the user's own model lie in a replica's row."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stresstest.engine.rounded import Stretch
from stresstest.models.layout import Segment, TensorName
from stresstest.models.peers import tensor_name
from stresstest.models.scales import Scales, UpdateSize
from stresstest.user_code import UserCodeError

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class OwnParameter:
    """Where a trainable parameter lies in a replica's row, from `start` on."""

    name: str
    shape: torch.Size
    start: int
    dtype: torch.dtype = torch.float32
    hidden: bool = False  # a matrix between the model's ends, or the filters of a convolution

    @property
    def stop(self) -> int:
        return self.start + self.shape.numel()


class OwnLayout:
    """The trainable parameters of a module, in its order.

    `dtypes` are theirs, `dtype` holds the numbers of all of them; an update of what `rounds` is rounded as torch
    rounds it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters: list[OwnParameter] = []
        start, ends = 0, _ends(module)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if is_lazy(parameter):
                raise UserCodeError(
                    f"parameter {name} has no shape yet; run its lazy module once before you return the model"
                )
            if parameter.is_complex():
                raise UserCodeError(f"parameter {name} is complex; use real parameters")
            if parameter.dtype not in DTYPES:
                raise UserCodeError(
                    f"parameter {name} is {str(parameter.dtype).removeprefix('torch.')}; trainable parameters must be "
                    "bfloat16, float16, float32 or float64"
                )
            if any(size > 1 and stride == 0 for size, stride in zip(parameter.shape, parameter.stride(), strict=True)):
                raise UserCodeError(
                    f"parameter {name} is expanded, several of its entries are one number in memory, which no "
                    f"optimizer can step; build it with .clone() after expand()"
                )
            hidden = _is_matrix(parameter) and parameter not in ends
            self.parameters.append(OwnParameter(name, parameter.shape, start, parameter.dtype, hidden))
            start = self.parameters[-1].stop
        if not start:
            raise UserCodeError("no parameter of the model has requires_grad, so there is nothing to train")
        self.num_parameters = start
        self.dtypes = tuple(dict.fromkeys(parameter.dtype for parameter in self.parameters))
        self.mixed = len(self.dtypes) > 1
        self.rounds = self.mixed or self.dtypes[0].itemsize < torch.float32.itemsize
        self.dtype = functools.reduce(torch.promote_types, self.dtypes)

    def names(self) -> list[TensorName]:
        """The matrices that `parts` has, in its order; the first number in a name is its block's."""
        return [tensor_name(parameter.name) for parameter in self._read]

    def parts(self, matrix_RP: Tensor) -> list[Tensor]:
        """The rows' matrices (where there are none, all parameters), each [R, 1, its size]."""
        return [matrix_RP[:, p.start : p.stop].unsqueeze(1) for p in self._read]

    @cached_property
    def _read(self) -> list[OwnParameter]:
        return [p for p in self.parameters if len(p.shape) > 1] or self.parameters

    def decay_mask(self) -> Tensor:
        """[P]: 1 where weight decay applies (matrices), 0 for gains and biases."""
        return torch.cat([torch.full((p.stop - p.start,), float(len(p.shape) > 1)) for p in self.parameters])

    @cached_property
    def stretches(self) -> list[Stretch]:
        """Each parameter by itself: what does not fill a vector at a tensor's end may round otherwise."""
        return [Stretch(p.start, p.stop, p.dtype, len(p.shape) > 1) for p in self.parameters]

    def scales(self, size: UpdateSize) -> Scales:
        """Nothing: a model of the user's own is trained as it is."""
        return Scales()

    def segments(self) -> list[Segment]:
        """Each parameter by itself: LAMB's layers, and the matrices of Muon."""
        return [
            Segment(
                p.start,
                p.stop,
                1,
                len(p.shape) > 1,
                (p.shape[0], math.prod(p.shape[1:])) if p.hidden else None,
            )
            for p in self.parameters
        ]


def _ends(module: nn.Module) -> set[Tensor]:
    """The weights of all embeddings, and those of the first and the last layer in a module's own order."""
    embeddings = [part.weight for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    matrices = [p for _, p in module.named_parameters(remove_duplicate=False) if _is_matrix(p)]
    return {*embeddings, *matrices[:1], *matrices[-1:]}


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Whether it maps vectors to vectors: of three axes no one can tell."""
    return not is_lazy(parameter) and (len(parameter.shape) == 2 or len(parameter.shape) > 3)
