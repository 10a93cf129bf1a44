"""What one block of a foreign model lacks that its peers have: modules and parameters of one kind, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import nn

from stresstest.models.layout import TensorName

ODD_SHARE = 0.25  # of the blocks at most: what more of them have, or lack, is a design
FEWEST = 3  # blocks that are peers
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def tensor_name(name: str) -> TensorName:
    """`layers.3.linear.weight` is of the kind `layers.*.linear.weight`, and of block 3."""
    number = _NUMBER.search(name)
    if number is None:
        return TensorName(name, None, name)
    return TensorName(f"{name[: number.start()]}*{name[number.end() :]}", int(number.group()), name)


def missing_norms(module: nn.Module) -> Iterator[str]:
    """Names of norms that all but a few blocks have."""
    parts = [(tensor_name(name), "norm" in type(part).__name__.lower()) for name, part in module.named_modules()]
    yield from _lacking([name for name, _ in parts], [name for name, is_norm in parts if is_norm])


def frozen_alone(module: nn.Module) -> Iterator[str]:
    """Names of parameters that are frozen where their peers are trained."""
    parameters = [(tensor_name(name), p.requires_grad) for name, p in module.named_parameters()]
    frozen = {name.text for name, trained in parameters if not trained}
    lacking = _lacking([name for name, _ in parameters], [name for name, trained in parameters if trained])
    yield from (name for name in lacking if name in frozen)


def _lacking(everything: Iterable[TensorName], having: Iterable[TensorName]) -> Iterator[str]:
    blocks: dict[str, set[int]] = {}
    for name in everything:
        if name.block is not None:
            blocks.setdefault(name.kind.partition("*")[0], set()).add(name.block)
    kinds: dict[str, set[int]] = {}
    for name in having:
        if name.block is not None:
            kinds.setdefault(name.kind, set()).add(name.block)
    for kind, there in kinds.items():
        peers = blocks[kind.partition("*")[0]]
        lacking = peers - there
        if len(peers) > FEWEST and len(lacking) <= ODD_SHARE * len(peers):
            yield from (kind.replace("*", str(block), 1) for block in sorted(lacking))
