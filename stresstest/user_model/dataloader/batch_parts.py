"""What a batch of any kind holds: how large it is, and whether it is the same as another."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MOST_BYTES = 1 << 14  # of a tensor that are compared, spread evenly
_LEAF_BYTES = 64  # of what is no array


def leaves(data: Any, depth: int = 8) -> Iterator[Any]:
    """The parts that have no parts, in order."""
    if isinstance(data, Tensor | np.ndarray | str | bytes | int | float | None) or depth == 0:
        yield data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield str(key)
            yield from leaves(value, depth - 1)
    elif isinstance(data, list | tuple | set | frozenset):
        for part in data:
            yield from leaves(part, depth - 1)
    elif hasattr(data, "__dict__") and not callable(data):
        yield from leaves(vars(data), depth - 1)
    else:
        yield data


def with_entries(batch: Mapping[Any, Any], entries: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A batch like it, of its own class, with some entries replaced."""
    if isinstance(batch, dict) or not isinstance(batch, MutableMapping):
        return {**batch, **entries}
    found = copy.copy(batch)
    found.update(entries)
    return found


def size_of(data: Any) -> int:
    """Bytes that a batch takes."""
    return sum(getattr(leaf, "nbytes", None) or _LEAF_BYTES for leaf in leaves(data))


def length_of(data: Any) -> int | None:
    """How many examples a batch holds: the length of its first part that has one; `None` where none has."""
    lengths = (leaf.shape[0] for leaf in leaves(data) if isinstance(leaf, Tensor | np.ndarray) and leaf.ndim)
    return next((int(length) for length in lengths if length), None)


def digest_of(data: Any) -> bytes:
    """The same for two batches that are: of a large array evenly spread numbers are read."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in leaves(data):
        if isinstance(leaf, np.ndarray) and leaf.dtype != object:
            leaf = torch.from_numpy(leaf) if leaf.dtype.kind in "biufc" else leaf.astype(str).tolist()
        if isinstance(leaf, Tensor):
            digest.update(f"{leaf.dtype} {tuple(leaf.shape)}".encode())
            digest.update(_spread(leaf))
        elif isinstance(leaf, str | bytes | int | float | None | list):
            digest.update(repr(leaf).encode())
        else:
            digest.update(type(leaf).__name__.encode())
    return digest.digest()


def _spread(tensor: Tensor) -> bytes:
    """Some of a tensor's bytes."""
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    elif tensor.layout != torch.strided:
        return b""
    flat = tensor.detach().reshape(-1)
    every = math.ceil(flat.numel() * flat.element_size() / _MOST_BYTES)
    if every > 1:
        flat = flat[:: every | 1]  # an odd stride meets every column of a row of even length
    flat = flat.cpu().contiguous()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
