"""The normal distribution, for arrays: numpy has none, and its logarithm far from the middle is needed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_END = 8.0  # standard deviations: beyond, the asymptotic series is as exact as the table
_A_UNIT = 200  # steps of the table a standard deviation
_LOG_CDF = np.array(
    [
        math.log(0.5 * math.erfc(-z / _A_UNIT / math.sqrt(2.0)))
        for z in range(int(-_END * _A_UNIT), int(_END * _A_UNIT) + 2)
    ]
)
_SLOPE = np.diff(_LOG_CDF)
_LOG_ROOT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_FAR = 1e6  # stands for an open side


def log_density(z: Array) -> Array:
    """Of the standard normal, at z."""
    return -0.5 * z * z - _LOG_ROOT_TWO_PI


def log_cdf(z: Array) -> Array:
    """log P(Z <= z), to 1e-4 of its value or better: linear in a table of steps of 1/200.

    Below -8 by the asymptotic series (Abramowitz & Stegun 26.2.12).
    """
    place = (np.clip(z, -_END, _END) + _END) * _A_UNIT
    below = place.astype(np.int64)
    found = _LOG_CDF[below] + (place - below) * _SLOPE[below]
    tail = z < -_END
    if tail.any():
        square = z[tail] ** -2.0
        found[tail] = log_density(z[tail]) - np.log(-z[tail]) + np.log1p(-square + 3.0 * square**2)
    return found


def cdf(z: Array) -> Array:
    """P(Z <= z)."""
    return np.asarray(np.exp(log_cdf(z)))


def log_between(low: Array, high: Array) -> Array:
    """log P(low <= Z <= high) for low < high, either of which may be infinite; exact in both tails."""
    mirrored = low > 0.0
    left = np.clip(np.where(mirrored, -high, low), -_FAR, _FAR)
    right = np.clip(np.where(mirrored, -low, high), -_FAR, _FAR)
    upper = log_cdf(right)
    below = np.minimum(log_cdf(left) - upper, -1e-12)
    return np.asarray(upper + np.log(-np.expm1(below)))


def mixture_quantiles(means: Array, sds: Array, shares: Array) -> Array:
    """The values below which those shares of an equal mixture of normals lie, by bisection."""
    low = np.full(shares.shape, float(np.min(means - _END * sds)))
    high = np.full(shares.shape, float(np.max(means + _END * sds)))
    for _ in range(28):
        middle = 0.5 * (low + high)
        below = cdf((middle[:, None] - means) / sds).mean(axis=1) < shares
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray(0.5 * (low + high))
