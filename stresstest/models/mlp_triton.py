"""The blocks of a residual MLP by the Triton kernel: two launches a step, whatever the depth.

It stands for `mlp_backward.MlpStack`, and its gradients go to the same places.
Dimension key: N layers, R replicas, B batch, D width, V vectors of a layer, K rows of a batch that a program has.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from stresstest.models.layout import Leaves
from stresstest.models.mlp_backward import Key, MlpStack, Workspace, banks_of
from stresstest.models.variants import Wiring

WIDEST = 256  # whose stream stays on chip
_NORMS = {"none": 0, "layer-norm": 1, "rms-norm": 2}
_ROWS = 16  # of a program: the fewest that tl.dot takes
_WHOLE = 64  # up to this width a layer's matrix is read in one piece
_SLICE = 32
_KINDS = {  # where a layer may have vectors, in the kernel's order, and their names in a layout
    "pre": ("mlp.pre",),
    "out": ("mlp.out", "mlp.inner"),  # one place in an MLP
    "post": ("mlp.post",),
    "skip": ("mlp.skip",),
    "gate": ("gate", "mlp.gate"),
}
_FORWARD = (
    "weight", "bias", "pre.gain", "pre.bias", "out.gain", "out.bias", "post.gain", "post.bias", "skip", "gate"
)  # fmt: skip
_BACKWARD = ("weight", "pre.gain", "out.gain", "out.bias", "post.gain", "skip", "gate")


def missing() -> str:
    """What has to be installed for the kernel, in plain words; empty where it is there."""
    return "" if importlib.util.find_spec("triton") else "install triton, which comes with torch's CUDA builds"


def takes(width: int, norm: str, dtype: str, device_type: str) -> str:
    """Why the kernel cannot train such blocks, in plain words; empty where it can.

    On a CPU Triton's interpreter runs it where TRITON_INTERPRET is 1: for tests, since it is slow.
    """
    if width > WIDEST:
        return f"the Triton kernel has widths up to {WIDEST}, and this is {width}"
    if norm not in _NORMS:
        return f"the Triton kernel has the norms {', '.join(_NORMS)}, and this is {norm}"
    if dtype != "float32":
        return f"the Triton kernel computes in float32, and the dtype is {dtype}"
    if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the Triton kernel runs on a GPU, and the device is {device_type}"
    return ""


def launch_sizes(width: int) -> dict[str, int]:
    """How a program is cut at a width: rows, columns, the part of a matrix that is read at once, and warps."""
    padded = max(_ROWS, 1 << (width - 1).bit_length())
    whole = padded <= _WHOLE
    return {"K": _ROWS, "D": padded, "SLICE": padded if whole else _SLICE, "num_warps": 4 if whole else 8}


class TritonStack(MlpStack):
    """All blocks of one architecture, by the kernel."""

    def _workspace(self, key: Key, x_RBD: Tensor, banks: Leaves) -> Workspace:
        return _Passes(key, self._norm, self._wirings, x_RBD, banks)


class _Passes:
    """Both passes for tensors of one shape and place."""

    def __init__(self, key: Key, norm: str, wirings: Sequence[Wiring], x_RBD: Tensor, banks: Leaves) -> None:
        from stresstest.models import mlp_triton_kernel  # triton is an extra

        self.key = key
        self._kernel = mlp_triton_kernel
        replicas, batch, width = x_RBD.shape
        self._places = _Places(wirings, banks, x_RBD.device)
        constants = [(wiring.skip, wiring.gate, wiring.pre_gain) for wiring in wirings]
        self._constants = torch.tensor(constants, dtype=torch.float32, device=x_RBD.device)
        self._forward, self._backward = self._given(banks, _FORWARD), self._given(banks, _BACKWARD)
        self._stream = torch.empty_like(x_RBD, memory_format=torch.contiguous_format)
        self._x = x_RBD.new_empty(len(wirings), *x_RBD.shape)
        self._h = torch.empty_like(self._x)
        self._u = torch.empty_like(self._x) if self._places.there["PRE"] else self._x
        self._grid = (replicas, math.ceil(batch / _ROWS))
        self._sums = x_RBD.new_empty(self._grid[1], replicas, len(wirings), len(self._places.vectors), width)
        assert all(bank[0].is_contiguous() for bank in banks.values()), "each is a part of a row"
        self._sizes = (len(wirings), replicas, batch, width)
        self._fixed = {**self._places.there, "NORM": _NORMS[norm], **launch_sizes(width)}

    @torch.inference_mode()
    def forward(self, x_RBD: Tensor) -> Tensor:
        """The stream after the last layer."""
        tensors = (self._stream.copy_(x_RBD), self._x, self._u, self._h)
        self._kernel.forward[self._grid](*tensors, *self._forward, *self._sizes, **self._fixed)
        return self._stream

    @torch.inference_mode()
    def backward(self, d_RBD: Tensor, grads: Leaves | None) -> Tensor:
        """The gradient before the first layer, given that after the last."""
        tensors = (self._stream.copy_(d_RBD), self._x, self._h, self._sums)
        self._kernel.backward[self._grid](*tensors, *self._backward, *self._sizes, **self._places.sums, **self._fixed)
        if grads is not None:
            for replica, weight_NDD in enumerate(grads["weight"]):
                torch.bmm(self._h[:, replica].mT, self._u[:, replica], out=weight_NDD)
            self._places.write(self._sums.sum(0), grads)
        return self._stream

    def _given(self, banks: Leaves, parts: Sequence[str]) -> tuple[Tensor, ...]:
        """What a pass reads of parameters and constants; for a bank that no layer has the weights, not read there."""
        read = [banks.get(self._places.names.get(part, ""), banks["weight"]) for part in parts]
        strides = torch.tensor([bank.stride(0) for bank in read], device=self._constants.device)
        return (*read, self._places.rows, self._constants, strides)


class _Places:
    """Where each layer's vectors lie: in the banks, and among the sums that the kernel leaves."""

    def __init__(self, wirings: Sequence[Wiring], banks: Leaves, device: torch.device) -> None:
        seen: Counter[str] = Counter()
        rows = []
        for wiring in wirings:
            has = [(0 if wiring.shared_norm and kind == "mlp.out" else seen[kind], kind) for kind in banks_of(wiring)]
            seen.update(kind for _, kind in has)
            rows.append([next((row for row, kind in has if kind in kinds), -1) for kinds in _KINDS.values()])
        self.rows = torch.tensor(rows, dtype=torch.int32, device=device)
        self.layers = {
            part: torch.tensor([layer for layer, row in enumerate(rows) if row[place] >= 0], device=device)
            for place, part in enumerate(_KINDS)
        }
        self.names = {"weight": "weight", "bias": "bias"}
        self.vectors = ["bias"]
        for part, kinds in _KINDS.items():
            for suffix in ("", ".gain", ".bias"):
                for kind in (f"{kind}{suffix}" for kind in kinds if f"{kind}{suffix}" in banks):
                    self.names[part + suffix] = kind
                    self.vectors.append(part + suffix)
        first = {part: next((i for i, one in enumerate(self.vectors) if one.startswith(part)), -1) for part in _KINDS}
        self.sums = {"SUMS": len(self.vectors), **{f"{part.upper()}_SUM": place for part, place in first.items()}}
        self.there: dict[str, int] = {part.upper(): int(place >= 0) for part, place in first.items()}
        self.there["GATE"] = 1 if "gate" in banks else 2 * self.there["GATE"]

    def write(self, sums_RNVD: Tensor, grads: Leaves) -> None:
        """The gradients of all vectors, from their sums over the batch."""
        for place, vector in enumerate(self.vectors):
            sums_RND, grad = sums_RNVD[:, :, place], grads[self.names[vector]]
            if vector != "bias":
                sums_RND = sums_RND.index_select(1, self.layers[vector.partition(".")[0]])
            if grad.dim() == 2:  # a scalar of each layer
                grad.copy_(sums_RND.sum(2))
            else:  # one row is that of all layers
                grad.copy_(sums_RND if grad.shape[1] == sums_RND.shape[1] else sums_RND.sum(1, keepdim=True))
