"""0.0 that was written for NaN, told from a loss that is 0.0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Floats

Bools = NDArray[np.bool_]

_FEWEST = 3  # zeros at the end that are taken for NaN without another sign
_RISE = 3.0  # times the level before: zeros after it need no other sign
_ROUNDINGS = 20.0  # how far above its rounding a loss cannot honestly fall to 0.0 from one row to the next


@dataclass(frozen=True)
class Zeros:
    """The loss with NaN for those zeros that stand for it, how many they are, and what is to be said."""

    loss: Floats
    count: int = 0
    note: str = ""


def zeros_told_apart(
    loss: Floats, grad_norm: Floats, norm_is_nan: Bools, zero_for_nan: bool, decimals: int | None = None
) -> Zeros:
    """NaN where 0.0 stands for it. grad_norm: [n] at the same rows, NaN where there is none or, by norm_is_nan, it was.

    It does where the gradient norm of the row is logged as NaN, and at the end of a log that falls to 0.0 for good
    from far above its rounding. Seen in transformers' Trainer, whose `logging_nan_inf_filter` is on by default.
    """
    zero = loss == 0.0
    if not zero.any():
        return Zeros(loss)
    stands = zero & norm_is_nan
    if not stands.any() and not _are_honest(loss, grad_norm, zero, zero_for_nan, decimals):
        stands = _tail(zero)
    if not stands.any():
        return Zeros(loss, 0, _as_logged(loss, zero, decimals))
    stands |= _tail(zero) & stands.any()
    before = _untrusted_before(stands, norm_is_nan)
    note = f"{int(stands.sum())} losses of 0.0 stand for NaN"
    if before.any():
        rows = "the row before them has" if before.sum() == 1 else f"{int(before.sum())} rows before them have"
        note += f"; {rows} a gradient norm of NaN, and no loss that can be trusted"
    return Zeros(np.where(stands | before, np.nan, loss), int(stands.sum()), note)


def _as_logged(loss: Floats, zero: Bools, decimals: int | None) -> str:
    """What is said of zeros that are kept; those that cannot be rounding may stand for NaN all the same."""
    many = f"{int(zero.sum())} losses are" if zero.sum() > 1 else "1 loss is"
    last = zero & _tail(zero)
    if last.any() and not zero.all() and loss[~last][-1] > _honest_below(loss[~zero], decimals):
        return f"{many} 0.0 at the end, far below those before: taken as logged, but it may stand for NaN"
    return f"{many} 0.0: taken as logged (rounded)"


def _tail(zero: Bools) -> Bools:
    """The zeros that are followed by zeros alone."""
    return np.logical_and.accumulate(zero[::-1])[::-1]


def _are_honest(
    loss: Floats,
    grad_norm: Floats,
    zero: Bools,
    zero_for_nan: bool,
    decimals: int | None,
) -> bool:
    """Whether the zeros at the end can be small losses."""
    tail = _tail(zero)
    if not tail.any():
        return True
    if tail.all():
        return not zero_for_nan or bool(np.isfinite(grad_norm).all() and (grad_norm > 0).any())
    at_zero = grad_norm[tail]
    if np.isfinite(at_zero).any() and (at_zero[np.isfinite(at_zero)] > 0).any():
        return True
    last = loss[~tail][-1]
    if not np.isfinite(last) or last > _RISE * _level(loss[~tail][-6:]):
        return False
    if tail.sum() < (1 if zero_for_nan else _FEWEST):
        return True
    return bool(last <= _honest_below(loss[~zero], decimals))


def _level(losses: Floats) -> float:
    """The median of losses without those that are 0.0: a loss of the size of its rounding is 0.0 now and then."""
    return float(np.median(losses[losses != 0.0]))


def _honest_below(loss: Floats, decimals: int | None) -> float:
    """From where a loss can fall to 0.0 by rounding: some units of its last place, and far below its beginning."""
    finite = loss[np.isfinite(loss)]
    if not len(finite):
        return 0.0
    if decimals is None:
        shown = (places for places in range(1, 8) if np.allclose(finite, np.round(finite, places), rtol=0, atol=1e-12))
        decimals = next(shown, None)
    start = float(np.median(np.abs(finite[:5])))
    unit = 10.0**-decimals if decimals is not None else 0.0
    return max(1e-3 * start, min(_ROUNDINGS * unit, max(3 * unit, 0.1 * start)))


def _untrusted_before(stands: Bools, norm_is_nan: Bools) -> Bools:
    """Rows straight before the zeros whose gradient norm is NaN already: their mean left out what was not finite."""
    before = np.zeros(len(stands), dtype=bool)
    row = int(np.flatnonzero(stands)[0]) - 1
    while row >= 0 and norm_is_nan[row]:
        before[row] = True
        row -= 1
    return before
