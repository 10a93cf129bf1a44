"""The best constant predictor of a plain loss: shares of classes for a cross-entropy, means for a squared error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch, UserBatches
from stresstest.user_model.constants.constant import Constant, cross_entropy
from stresstest.user_model.constants.targets import Targets
from stresstest.user_model.contract import NATS, Contract

FIRST_BATCHES = 24  # a third each: two halves that are fitted to, and fresh ones
MOST_BATCHES = 384
ENOUGH = 0.0125  # of the loss: a quarter of what counts as progress
_FEWEST = 512  # targets that are fitted to: fewer do not tell their own error
_EACH_CLASS = 16  # of them for each class, up to
_FEWEST_OF_MANY = 2048
_ALPHAS = 13  # amounts of shrinkage that are tried


def of_plain_loss(contract: Contract, batches: UserBatches) -> Constant | None:
    """That of a loss which was inferred, and is therefore known."""
    if contract.targets is None:
        return None
    if not contract.num_classes:
        return _averaged(contract.targets, batches)
    return of_classes(contract.targets, contract.num_classes, batches)


def of_classes(targets: Targets, classes: int, batches: UserBatches) -> Constant:
    """Shares of classes: those that a built-in task knows of itself, or counted."""
    built_in = batches.log_prior
    if built_in is None or classes < len(built_in):
        return _counted(targets, classes, batches)
    share = torch.zeros(classes, dtype=torch.float64)
    share[: len(built_in)] = torch.from_numpy(built_in).exp()
    return Constant(
        "the shares of the classes in the training part",
        batches.task_baseline,
        math.log(classes),
        unit=NATS,
        targets=targets,
        log_prior=share.clamp(min=1e-12).log().float(),
        paired=True,
    )


def _counted(targets: Targets, classes: int, batches: UserBatches) -> Constant:
    """From shares of classes, shrunk towards the uniform one; more batches until more would change little."""
    number = FIRST_BATCHES
    fewest = max(_FEWEST, min(_FEWEST_OF_MANY, _EACH_CLASS * classes))
    while True:
        thirds = [[targets(one.data) for one in part] for part in _thirds(batches.fresh(number))]
        constant = _shrunk_shares(thirds, classes, targets)
        enough = sum(float(_counts(part, classes).sum()) for part in thirds[:2]) >= fewest
        if (enough and constant.error <= ENOUGH * constant.baseline_loss) or 2 * number > MOST_BATCHES:
            return constant
        number *= 2


def _shrunk_shares(thirds: Sequence[Sequence[Tensor]], classes: int, targets: Targets) -> Constant:
    first, second = (_counts(part, classes) for part in thirds[:2])
    if float(first.sum() + second.sum()) == 0.0:
        raise UserCodeError("no target is a class index; are all targets ignored?")
    alphas = torch.logspace(-1, math.log10(100.0 * classes), _ALPHAS, dtype=torch.float64).tolist()
    alpha = min(alphas, key=lambda a: _crossed(first, second, a) + _crossed(second, first, a))
    halves = [_shares(part, alpha).log() for part in (first, second)]
    both = _shares(first + second, alpha).log()
    on_fresh = [_mean_loss(thirds[2], log_prior) for log_prior in (*halves, both)]
    by_doubling = 0.5 * (on_fresh[0] + on_fresh[1]) - on_fresh[2]
    return Constant(
        "the shares of the classes",
        on_fresh[2],
        math.log(classes),
        max(abs(on_fresh[0] - on_fresh[1]) / 2.0, by_doubling, 0.0),
        unit=NATS,
        targets=targets,
        log_prior=both.float(),
        paired=True,
    )


def _counts(labels: Sequence[Tensor], classes: int) -> Tensor:
    flat = torch.cat([part.flatten().cpu() for part in labels]).long()
    return torch.bincount(flat[(flat >= 0) & (flat < classes)], minlength=classes).double()


def _shares(counts: Tensor, alpha: float) -> Tensor:
    """As if `alpha` more targets had been seen, spread over all classes."""
    return (counts + alpha / len(counts)) / (counts.sum() + alpha)


def _crossed(fitted: Tensor, held_out: Tensor, alpha: float) -> float:
    return -float((held_out * _shares(fitted, alpha).log()).sum())


def _mean_loss(labels: Sequence[Tensor], log_prior: Tensor) -> float:
    losses = [float(cross_entropy(part.cpu(), log_prior)) for part in labels]
    there = [loss for loss in losses if not math.isnan(loss)]
    return sum(there) / max(1, len(there))


def _averaged(targets: Targets, batches: UserBatches) -> Constant:
    """From means of numbers: of all, by channel (last axis or second) or by element, as fresh batches like best."""
    ones = batches.fresh(FIRST_BATCHES)
    rows = sum(len(targets(one.data)) for one in ones) / len(ones)
    if 2.0 * rows * len(ones) < 3.0 * _FEWEST:  # a third is not fitted to
        ones = batches.fresh(min(math.ceil(1.5 * _FEWEST / max(rows, 1.0)), MOST_BATCHES))
    thirds = [[targets(one.data).double().cpu() for one in part] for part in _thirds(ones)]
    best: tuple[float, float, Tensor] | None = None
    for mean_of in _means(thirds[0][0].ndim):
        try:
            halves = [mean_of(part) for part in thirds[:2]]
            both = mean_of([*thirds[0], *thirds[1]])
            on_fresh = [
                sum(float((y - mean).square().mean()) for y in thirds[2]) / len(thirds[2]) for mean in (*halves, both)
            ]
        except (RuntimeError, IndexError):  # unequal shapes have no mean by element
            continue
        if best is None or on_fresh[2] < best[0]:
            best = on_fresh[2], abs(on_fresh[0] - on_fresh[1]) / 2.0, both
    assert best is not None, "one mean of all there always is"
    return Constant(
        "the mean of the targets", best[0], best[0], best[1], targets=targets, mean=best[2].float(), paired=True
    )


def _means(ndim: int) -> Iterator[Callable[[Sequence[Tensor]], Tensor]]:
    yield lambda parts: torch.cat([y.flatten() for y in parts]).mean()
    if ndim > 1:
        yield lambda parts: torch.cat([y.flatten(0, -2) for y in parts]).mean(0)
        yield lambda parts: torch.cat(list(parts)).mean(0)
    if ndim > 2:
        yield (
            lambda parts: (
                torch.cat([y.movedim(1, -1).flatten(0, -2) for y in parts]).mean(0).view(-1, *[1] * (ndim - 2))
            )
        )


def _thirds(ones: Sequence[UserBatch]) -> tuple[Sequence[UserBatch], ...]:
    return ones[0::3], ones[1::3], ones[2::3]
