"""Learning-rate schedules: a warm-up to the peak, then a decay, as the share of the peak at each step.

Steps t count from 1, and the first already trains. With T steps of warm-up the peak is reached at t = T;
T = 0 and T = 1 are the same schedule, without a warm-up. N is the number of steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stresstest.lazy import numpy as np
from stresstest.registry import OptionValue, Registry
from stresstest.specs.parsing import parse_choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """One entry of the table of warm-ups or of decays; `share` is its part of the peak."""

    name: str
    summary: str
    source: str
    options: Mapping[str, OptionValue]
    share: Callable[..., Array]


def _entry(name: str, source: str, share: Callable[..., Array], given: int) -> Schedule:
    parameters = list(inspect.signature(share).parameters.values())[given:]
    summary = inspect.cleandoc(share.__doc__ or "").splitlines()[0]
    return Schedule(name, summary, source, {p.name: p.default for p in parameters}, share)


def _none(x: Array) -> Array:
    """The peak from the first step on, whatever warmup_steps says."""
    return np.ones_like(x)


def _linear(x: Array) -> Array:
    """t / T."""
    return x


def _exponential(x: Array, start_share: float = 0.01) -> Array:
    """start_share^(1 - t/T): every step by the same factor, from a share of the peak."""
    return np.asarray(np.maximum(start_share, 1e-12) ** (1.0 - x))


def _cosine(x: Array) -> Array:
    """(1 - cos(pi t/T)) / 2: slow at both ends."""
    return (1.0 - np.cos(np.pi * x)) / 2.0


def _inverse_sqrt(x: Array) -> Array:
    """1 / sqrt(T/t): fast at first, the mirror of the inverse-sqrt decay."""
    return np.sqrt(x)


def _constant(t: Array, warmup: float, steps: float) -> Array:
    """The peak to the end."""
    return np.ones_like(t)


def _inverse_sqrt_decay(t: Array, warmup: float, steps: float, since: float = 0.0) -> Array:
    """sqrt(T/t), as fairseq has it: without a warm-up, 1/sqrt(t); with since=T0, min(1, sqrt(T0/t)) for every T."""
    return np.sqrt(np.minimum(1.0, (since or warmup) / t))


def _linear_decay(t: Array, warmup: float, steps: float, end_share: float = 0.0) -> Array:
    """In a straight line to `end_share` of the peak, which the step after the last would have."""
    return end_share + (1.0 - end_share) * (1.0 - _elapsed(t, warmup, steps))


def _cosine_decay(t: Array, warmup: float, steps: float, end_share: float = 0.0) -> Array:
    """Half a cosine to `end_share` of the peak, which the step after the last would have."""
    return end_share + (1.0 - end_share) * (1.0 + np.cos(np.pi * _elapsed(t, warmup, steps))) / 2.0


def _polynomial_decay(t: Array, warmup: float, steps: float, power: float = 2.0, end_share: float = 0.0) -> Array:
    """(1 - share of the decay that is over)^power."""
    return np.asarray(end_share + (1.0 - end_share) * (1.0 - _elapsed(t, warmup, steps)) ** power)


def _step_decay(
    t: Array, warmup: float, steps: float, first_share: float = 0.5, second_share: float = 0.75, to_share: float = 0.1
) -> Array:
    """To `to_share` of what it was, twice: when these shares of the run are over (0: never)."""
    over = [t > round(share * steps) for share in (first_share, second_share) if share]
    return np.asarray(to_share ** np.sum(over, axis=0, initial=0.0))


def _elapsed(t: Array, warmup: float, steps: float) -> Array:
    """How much of the decay is over: 0 at the peak, 1 one step after the last."""
    return np.clip((t - warmup) / (steps - warmup + 1.0), 0.0, 1.0)


WARMUPS: Registry[Schedule] = Registry(
    "warm-up",
    [
        _entry("none", "", _none, 1),
        _entry("linear", "Vaswani et al. 2017; Xiong et al. 2020; torch's LinearLR", _linear, 1),
        _entry("exponential", "torch's ExponentialLR", _exponential, 1),
        _entry("cosine", "torch's OneCycleLR", _cosine, 1),
        _entry("inverse-sqrt", "this project", _inverse_sqrt, 1),
    ],
)

DECAYS: Registry[Schedule] = Registry(
    "decay",
    [
        _entry("constant", "", _constant, 3),
        _entry("inverse-sqrt", "Vaswani et al. 2017; fairseq's inverse_sqrt", _inverse_sqrt_decay, 3),
        _entry("linear", "Devlin et al. 2019; torch's LinearLR", _linear_decay, 3),
        _entry("cosine", "Loshchilov & Hutter 2017; torch's CosineAnnealingLR", _cosine_decay, 3),
        _entry("polynomial", "fairseq's and torch's PolynomialLR", _polynomial_decay, 3),
        _entry("step", "He et al. 2016, Sec. 4.2; torch's MultiStepLR", _step_decay, 3),
    ],
)


def schedule(warmup: str, warmup_steps: int, decay: str, num_steps: int) -> Array:
    """The share of the peak LR at each step, [num_steps].

    `warmup` and `decay` are NAME[:key=value,...] of `WARMUPS` and `DECAYS`. Where a decay falls faster
    than the warm-up rises (inverse-sqrt with since below the warm-up), the smaller of both counts.
    """
    rise, fall = parse_choice(warmup, WARMUPS), parse_choice(decay, DECAYS)
    top = 1.0 if rise.name == "none" else float(max(1, warmup_steps))
    t = np.arange(1.0, num_steps + 1.0)
    rising = WARMUPS[rise.name].share(np.minimum(1.0, t / top), **rise.options)
    return np.minimum(rising, DECAYS[fall.name].share(t, top, float(num_steps), **fall.options))
