"""Where nothing follows from the input no learning rate trains, and a constant predictor never beats itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from stresstest.results.records import HARMLESS
from tests.user_model.untrainable import OCTAVES, Own, constants, random_labels, random_numbers

LRS = [2.0**k for k in OCTAVES]


def some(models: Iterator[tuple[str, Own]], every: int, count: int) -> list[object]:
    """Some of the models, as parameters of a test; each with other learning rates than the one before."""
    chosen = enumerate(islice(models, 0, every * count, every))
    return [pytest.param(own, LRS[i % 3 :: 3], id=name) for i, (name, own) in chosen]


def called_trained(own: Own, lrs: list[float]) -> list[tuple[float, str]]:
    """The learning rates at which it is said to have trained, or to have come to no harm."""
    runs = own.hold([(i, lr) for i, lr in enumerate(lrs)], 40)
    outcomes = [(lr, str(run.detector.judgement().outcome)) for lr, run in zip(lrs, runs, strict=True)]
    return [(lr, outcome) for lr, outcome in outcomes if outcome in HARMLESS]


@pytest.mark.parametrize(("own", "lrs"), some(random_labels(), 7, 26))
def test_random_labels_never_train(own: Own, lrs: list[float]) -> None:
    assert not called_trained(own, lrs)


@pytest.mark.parametrize(("own", "lrs"), some(random_numbers(), 1, 12))
def test_random_numbers_never_train(own: Own, lrs: list[float]) -> None:
    assert not called_trained(own, lrs)


@pytest.mark.parametrize(("own", "lrs"), some(constants(), 1, 30))
def test_a_constant_predictor_never_trains(own: Own, lrs: list[float]) -> None:
    assert not called_trained(own, lrs)
