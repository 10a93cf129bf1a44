"""A loss that sits where guessing does, and a start that lies elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step
from stresstest.diagnosis.findings.stretch import Stretch
from stresstest.logs.curve import Floats

_NEAR = 0.01  # of the level
_MIN_ROWS = 20
_CLASSES = (2, 3, 4, 5, 10, 100, 1000)
_VERY_NEAR = 0.002
_HIGH, _LOW = 1.15, 0.9


def at_chance(stretch: Stretch) -> Iterator[Said]:
    """The last half of the log lies within 1 % of the loss of a constant guess that is known."""
    half = _last_half(stretch)
    if half is None:
        return
    level = float(np.median(half))
    for value, name in _levels(stretch):
        if value > 0 and abs(level - value) <= _NEAR * value and abs(float(half[-5:].mean()) - value) <= _NEAR * value:
            yield Said(
                f"The loss sits at {level:.4g}, that of a constant guess: {name}.",
                float(stretch.steps[len(stretch.steps) // 2]),
                float(stretch.steps[-1]),
                {"level": level, "chance": value},
            )
            return


def near_ln_classes(stretch: Stretch) -> Iterator[Said]:
    """Without --vocab: a loss that never learned sits within 0.2 % of ln k for a usual number of classes."""
    half = _last_half(stretch)
    if half is None or stretch.known.vocab is not None or stretch.known.baseline is not None:
        return
    if stretch.course.outcome not in ("flat", "failed-to-train"):
        return
    level = float(np.median(half))
    for classes in _CLASSES:
        if abs(level - math.log(classes)) <= _VERY_NEAR * math.log(classes):
            yield Said(
                f"The loss sits at {level:.4g}; a constant guess among {classes:,} equally frequent classes has "
                f"ln({classes}) = {math.log(classes):.4g}.",
                evidence={"level": level, "chance": math.log(classes), "classes": float(classes)},
            )
            return


def start_off_chance(stretch: Stretch) -> Iterator[Said]:
    """With --vocab: the first row of a run from its first steps lies far from a constant guess."""
    vocab = stretch.known.vocab
    if vocab is None or vocab < 2 or stretch.segment.start == "resume" or not np.isfinite(stretch.losses[0]):
        return
    first, chance = float(stretch.losses[0]), math.log(vocab)
    if abs(first - math.log2(vocab)) <= 0.1 * math.log2(vocab):
        return
    if first > _HIGH * chance:
        text = f"above a constant guess among {vocab:,} ({chance:.4g}): high logits at initialisation, or a sum"
    elif first < _LOW * chance:
        text = f"below a constant guess among {vocab:,} ({chance:.4g}): trained before, or a mean of many steps"
    else:
        return
    yield Said(
        f"The first row (step {at_step(stretch.steps[0])}) has a loss of {first:.4g}, {text}.",
        float(stretch.steps[0]),
        float(stretch.steps[0]),
        {"first": first, "chance": chance},
    )


def _levels(stretch: Stretch) -> Iterator[tuple[float, str]]:
    vocab, baseline = stretch.known.vocab, stretch.known.baseline
    if vocab is not None and vocab > 1:
        yield math.log(vocab), f"ln({vocab}) = {math.log(vocab):.4g}"
        yield math.log2(vocab), f"log2({vocab}) = {math.log2(vocab):.4g} bits"
    if baseline is not None:
        yield baseline, f"the baseline of {baseline:.4g}"


def _last_half(stretch: Stretch) -> Floats | None:
    half = stretch.losses[len(stretch.losses) // 2 :]
    return half if len(stretch.losses) >= _MIN_ROWS and np.isfinite(half).all() else None
