"""Steps that mixed precision skipped: a few are harmless, all of them mean that nothing was trained."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stresstest.diagnosis.findings.base import Said, at_step, is_flat
from stresstest.diagnosis.findings.stretch import Stretch
from stresstest.logs.curve import Floats

_FEW = 0.2  # of the rows
_ALL = 0.9
_IN_A_ROW = 3
_MIN_ROWS = 5
_SEARCH_STEPS = 50  # a scaler looks for its first scale by skipping steps
_MANY = 0.05


def single_skips(stretch: Stretch) -> Iterator[Said]:
    """A gradient norm that is not finite on single rows, among finite losses."""
    norms = stretch.grad_norm
    if norms is None or not np.isfinite(stretch.losses).all():
        return
    bad = ~np.isfinite(norms.value)
    if not bad.any() or len(bad) < _MIN_ROWS or bad.mean() > _FEW or _longest(bad) > _IN_A_ROW or bad[-1]:
        return
    steps = norms.step[bad]
    yield Said(
        f"The gradient norm is not finite in {int(bad.sum())} of {len(bad):,} rows (first at step "
        f"{at_step(steps[0])}): single steps that fp16's loss scaling skips. Harmless.",
        float(steps[0]),
        float(steps[-1]),
        {"rows": float(bad.sum())},
    )


def no_step_taken(stretch: Stretch) -> Iterator[Said]:
    """A gradient norm that is never finite while the loss stays where it was."""
    bad = _never_finite(stretch)
    if bad and is_flat(stretch.losses[stretch.judged]):
        level = float(np.median(stretch.losses))
        yield Said(
            f"The gradient norm is inf or NaN in every row and the loss flat at {level:.4g}: no step was taken, "
            "nothing was trained.",
            float(stretch.steps[0]),
            float(stretch.steps[-1]),
            {"rows": float(bad), "loss": level},
        )


def norm_not_usable(stretch: Stretch) -> Iterator[Said]:
    """A gradient norm that is never finite though the loss moves."""
    bad = _never_finite(stretch)
    if bad and not is_flat(stretch.losses[stretch.judged]):
        yield Said(
            "The gradient norm is inf or NaN in every row, yet the loss moves: the norm that was logged is not the one "
            "that was stepped with.",
            evidence={"rows": float(bad)},
        )


def no_step_since(stretch: Stretch) -> Iterator[Said]:
    """A gradient norm that is not finite from some row to the end, under a finite loss."""
    norms = stretch.grad_norm
    if norms is None or not np.isfinite(stretch.losses).all():
        return
    finite = np.flatnonzero(np.isfinite(norms.value))
    tail = len(norms) - 1 - (int(finite[-1]) if len(finite) else -1)
    if not len(finite) or tail < _MIN_ROWS or tail >= _ALL * len(norms):
        return
    first = float(norms.step[-tail])
    yield Said(
        f"From step {at_step(first)} to the end the gradient norm is inf or NaN in every row ({tail:,}): no step "
        "counted any more, although the loss is finite.",
        first,
        float(norms.step[-1]),
        {"rows": float(tail)},
    )


def scale_at_its_floor(stretch: Stretch) -> Iterator[Said]:
    """A loss scale that fell at least thousandfold to 1 or below and stayed."""
    scale = stretch.curve("loss_scale")
    if scale is None or len(scale) < _MIN_ROWS:
        return
    highest = float(np.max(scale.value))
    low = (scale.value <= 1.0) & (scale.value > 0)
    above = np.flatnonzero(~low)
    stayed = len(scale) - 1 - (int(above[-1]) if len(above) else len(scale) - 1)
    if highest >= 1024 and stayed >= _MIN_ROWS:
        first = float(scale.step[-stayed])
        yield Said(
            f"The loss scale fell from {highest:,.6g} to {scale.value[-1]:g} by step {at_step(first)} and stayed: "
            "gradients overflow at every scale.",
            first,
            float(scale.step[-1]),
            {"highest": highest, "last": float(scale.value[-1])},
        )


def many_skips(stretch: Stretch) -> Iterator[Said]:
    """More than 5 % of the steps skipped, the scaler's first search left out."""
    skipped = stretch.curve("skipped")
    if skipped is None:
        return
    later = skipped.step > stretch.steps[0] + _SEARCH_STEPS
    total = float(np.nansum(skipped.value[later]))
    steps = float(stretch.steps[-1]) - float(stretch.steps[0]) - _SEARCH_STEPS
    if steps >= 100 and total > _MANY * steps:
        yield Said(
            f"{total:,.0f} of {steps:,.0f} steps were skipped ({total / steps:.0%}), the first {_SEARCH_STEPS} left "
            "out: fewer were trained than the log counts.",
            float(stretch.steps[0]) + _SEARCH_STEPS,
            float(stretch.steps[-1]),
            {"skipped": total, "steps": steps},
        )


def _never_finite(stretch: Stretch) -> int:
    norms = stretch.grad_norm
    if norms is None or len(norms) < _MIN_ROWS or not np.isfinite(stretch.losses).all():
        return 0
    bad = int((~np.isfinite(norms.value)).sum())
    return bad if bad == len(norms) else 0


def _longest(flags: NDArray[np.bool_]) -> int:
    edges: Floats = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))).astype(np.float64)
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
