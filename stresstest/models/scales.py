"""What a parametrization asks of an optimizer; apart, since tables of optimizers are read without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# What the size of an update follows: as in SGD, Adam, LAMB, Muon.
UpdateSize = Literal["gradient", "unit", "weights", "shape"]


class Scales(NamedTuple):
    """What multiplies the learning rate and eps of each parameter, [P]; `None` where all are 1."""

    lr_P: Tensor | None = None
    eps_P: Tensor | None = None

    def like(self, tensor: Tensor) -> Scales:
        """The same on a tensor's device, in its dtype."""
        return Scales(*(None if one_P is None else one_P.to(tensor) for one_P in self))

    def part(self, columns: slice) -> Scales:
        """Those of some parameters."""
        return Scales(*(None if one_P is None else one_P[columns] for one_P in self))
