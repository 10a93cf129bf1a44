"""What a task's losses are judged against where its labels are smoothed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresstest.tasks.task import Task


@dataclass(frozen=True)
class Constants:
    """Of the loss that is trained: the best constant predictor's and a uniform guess's; all in nats.

    `lowest`: no outputs lose less.
    """

    log_prior: NDArray[np.float64]
    baseline_loss: float
    chance_loss: float
    lowest: float = 0.0


def constants(task: Task, smoothing: float = 0.0, num_classes: int | None = None) -> Constants:
    """Of the task's own cross-entropy, or of the smoothed one over `num_classes` outputs (off: the task's).

    A smoothed target is (1 - smoothing) of the class and smoothing of the uniform distribution (Szegedy et al. 2016,
    Sec. 7). The best constant predictor says the mean target, and loses its entropy; nobody loses less than the
    entropy of one smoothed target.
    """
    if not smoothing:
        return Constants(task.log_prior, task.baseline_loss, task.chance_loss)
    classes = num_classes or task.num_classes
    shares = np.zeros(classes)
    shares[: task.num_classes] = task.shares
    one = np.eye(1, classes)[0]
    log_prior = np.log(_smoothed(shares, smoothing))
    return Constants(
        log_prior,
        baseline_loss=_entropy(_smoothed(shares, smoothing)),
        chance_loss=math.log(classes),
        lowest=_entropy(_smoothed(one, smoothing)),
    )


def _smoothed(shares: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    return (1.0 - smoothing) * shares + smoothing / len(shares)


def _entropy(shares: NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())
