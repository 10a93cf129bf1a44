"""What a cell stores of its holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stresstest.engine.outcomes import Judgement, Outcome
from stresstest.measurements.boundary import _hold_metrics
from stresstest.measurements.hold import HoldAnswer, HoldSearch
from stresstest.results.records import Bracket

Held = tuple[Outcome, float, float]  # an outcome, the training loss at the end, the validation loss


def metrics_of(held: dict[int, Held]) -> dict[str, Bracket]:
    search = HoldSearch(0, 16)
    runs: list[Any] = []
    for k, (outcome, last, validation) in held.items():
        search.tell(k, HoldAnswer(outcome, last))
        judgement = Judgement(outcome, "", None, None, last, last, outcome == "stable")
        detector = SimpleNamespace(judgement=lambda judgement=judgement: judgement)
        ends = {"last_loss": last, "validation_loss": validation, "scores": {"bleu": validation}}
        runs.append(SimpleNamespace(detector=detector, **ends))
    return _hold_metrics(search, runs)


FLAT: dict[int, Held] = {0: ("flat", 0.021, 0.03), 4: ("flat", 0.022, 0.02), 8: ("relapsed", 0.5, 0.01)}


def test_where_nothing_trained_the_losses_are_those_of_the_best_harmless_hold_and_there_is_no_window() -> None:
    metrics = metrics_of(FLAT)
    assert metrics["max_stable_lr"] == Bracket(low=2.0, high=4.0)
    assert (metrics["final_loss"], metrics["validation_loss"]) == (Bracket.exactly(0.022), Bracket.exactly(0.02))
    assert metrics["bleu"] == Bracket.exactly(0.02)
    assert "lr_window" not in metrics


def test_a_hold_that_trained_goes_before_a_flat_one_of_lower_loss_and_the_window_is_that_of_what_trained() -> None:
    metrics = metrics_of(FLAT | {2: ("stable", 0.024, 0.025)})
    assert metrics["max_stable_lr"] == Bracket(low=2.0, high=4.0)
    assert (metrics["final_loss"], metrics["validation_loss"]) == (Bracket.exactly(0.024), Bracket.exactly(0.025))
    assert metrics["lr_window"] == Bracket(low=0.0, high=1.0)


@pytest.mark.parametrize("outcome", ["failed-to-train", "relapsed"])
def test_where_all_broke_there_is_no_loss_to_store(outcome: Outcome) -> None:
    assert metrics_of({0: (outcome, 0.5, 0.5)}) == {"max_stable_lr": Bracket(low=None, high=None)}
