"""Generated images: ten shapes, integers only, so that they are the same bytes on every machine.

Each channel of an image is lighter or darker than its ground by chance, so that no pixel says
anything by itself: a linear model stays near chance. Place, size, contrast and noise vary, so that
a small network does not saturate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stresstest.lazy import numpy as np
from stresstest.tasks.task import splitmix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Masks = NDArray[np.bool_]
    # (x, y, |x|, |y|, radius), in half pixels from the shape's centre
    Figure = Callable[[Ints, Ints, Ints, Ints, Ints], Masks]

SIDE = 32
CHANNELS = 3

_JITTER = 4  # pixels that a shape's centre lies off the middle, at most
_RADII = (12, 26)  # in half pixels
_CONTRASTS = (40, 99)  # grey levels between a shape and the middle grey, on either side
_NOISE = 100  # grey levels, at most


FIGURES: Mapping[str, Figure] = {
    "disc": lambda x, y, ax, ay, r: x * x + y * y <= r * r,
    "ring": lambda x, y, ax, ay, r: (x * x + y * y <= r * r) & (2 * (x * x + y * y) >= r * r),
    "square": lambda x, y, ax, ay, r: 5 * np.maximum(ax, ay) <= 4 * r,
    "frame": lambda x, y, ax, ay, r: _box(ax, ay, r) & (3 * np.maximum(ax, ay) >= 2 * r),
    "cross": lambda x, y, ax, ay, r: _box(ax, ay, r) & (3 * np.minimum(ax, ay) <= r),
    "saltire": lambda x, y, ax, ay, r: _box(ax, ay, r) & (3 * abs(ax - ay) <= r),
    "bars across": lambda x, y, ax, ay, r: _box(ax, ay, r) & _even(y, r),
    "bars down": lambda x, y, ax, ay, r: _box(ax, ay, r) & _even(x, r),
    "checkers": lambda x, y, ax, ay, r: _box(ax, ay, r) & (_even(x, r) == _even(y, r)),
    "triangle": lambda x, y, ax, ay, r: (2 * ax <= y + r) & (y <= r),
}


def generate_images(seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(pixels [count, 3, 32, 32], classes [count]): image i depends on (seed, i) only."""
    draws = _draws(2 * seed, count, 9)
    classes = draws[:, 0] % len(FIGURES)
    ink = np.empty((count, SIDE, SIDE), np.bool_)
    for number, figure in enumerate(FIGURES.values()):
        mine = classes == number
        ink[mine] = _inked(figure, draws[mine])
    contrast = _between(draws[:, 4 : 4 + CHANNELS], *_CONTRASTS)
    signs = 1 - 2 * (draws[:, 7:8] >> np.arange(CHANNELS) & 1)
    levels = (contrast * signs)[:, :, None, None]
    pixels = np.where(ink[:, None], levels, -levels).astype(np.int16)
    words = _words(2 * seed + 1, count, CHANNELS * SIDE * SIDE // 8)
    noise = words.astype("<u8").view(np.uint8).reshape(pixels.shape).astype(np.int16)
    pixels += (noise - 128) * _NOISE // 128 + 128
    return pixels.clip(0, 255).astype(np.uint8), classes.astype(np.uint8)


def _inked(figure: Figure, draws: Ints) -> Masks:
    """Where a figure is, [N, 32, 32]."""
    grid = 2 * np.arange(SIDE) - (SIDE - 1)
    x = grid - _between(draws[:, 1], -2 * _JITTER, 2 * _JITTER)[:, None]
    y = grid - _between(draws[:, 2], -2 * _JITTER, 2 * _JITTER)[:, None]
    radius = _between(draws[:, 3], *_RADII)[:, None, None]
    return figure(x[:, None], y[:, :, None], abs(x)[:, None], abs(y)[:, :, None], radius)


def _box(ax: Ints, ay: Ints, r: Ints) -> Masks:
    return np.asarray(np.maximum(ax, ay) <= r)


def _even(along: Ints, r: Ints) -> Masks:
    """Every other bar of a third of the radius."""
    return np.asarray((along + r) // np.maximum(r // 3, 1) % 2 == 0)


def _between(draws: Ints, low: int, high: int) -> Ints:
    return low + draws % (high - low + 1)


def _draws(seed: int, count: int, lanes: int) -> Ints:
    """Non-negative random integers, [count, lanes]."""
    return (_words(seed, count, lanes) >> np.uint64(33)).astype(np.int64)


def _words(seed: int, count: int, lanes: int) -> NDArray[np.uint64]:
    counters = np.arange(count * lanes, dtype=np.uint64).reshape(count, lanes)
    return splitmix64(splitmix64(np.array([seed], np.uint64)) + counters)
