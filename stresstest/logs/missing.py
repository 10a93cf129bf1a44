"""A loss that stops while what stood beside it goes on: NaN that was written as nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stresstest.logs.curve import Curve, Floats, Ints, Role

_FEWEST = 3  # rows: one or two may be a summary
_DENSE = 0.9  # of the rows up to the last loss have one


@dataclass(frozen=True)
class Missing:
    """Rows after the last loss that have a learning rate or a gradient norm: [k] their steps and positions.

    norm_is_lost: whether the gradient norm in the first of them is not finite.
    """

    step: Floats
    row: Ints
    norm_is_lost: bool

    def as_nan(self, loss: Curve) -> Curve:
        """The loss with these rows as NaN."""
        lost = np.full(len(self.step), np.nan)
        return Curve(
            np.concatenate([loss.step, self.step]),
            np.concatenate([loss.value, lost]),
            np.concatenate([loss.row, self.row]),
        )


def missing_after(loss: Curve, others: Mapping[Role, Curve]) -> Missing | None:
    """What goes on without a loss that stood in nearly every row before; None where nothing does."""
    rows = loss.row
    if len(rows) < _FEWEST or len(rows) < _DENSE * (rows[-1] - rows[0] + 1):
        return None
    going_on = [others[role] for role in ("grad_norm", "lr") if role in others]
    curve = max(going_on, key=lambda curve: int((curve.row > rows[-1]).sum()), default=None)
    if curve is None:
        return None
    after = (curve.row > rows[-1]) & (curve.step > loss.step[-1])
    if "validation" in others:
        after &= ~np.isin(curve.row, others["validation"].row)
    if after.sum() < _FEWEST:
        return None
    return Missing(curve.step[after], curve.row[after], _is_lost(others.get("grad_norm"), int(curve.row[after][0])))


def _is_lost(norm: Curve | None, row: int) -> bool:
    if norm is None:
        return False
    there = norm.value[norm.row == row]
    return bool(len(there) and not np.isfinite(there[0]))
