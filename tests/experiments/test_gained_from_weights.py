"""What is said of weights that lose more than the constant predictor, gain, and do not come below it."""

from __future__ import annotations

from stresstest.experiments.untrained_findings import _advice

DATA = {"baseline_loss": 3.0, "unit": "nats"}
SPEC = {"end_lr": 10.0, "model": "hf:folder"}


def held(lr: float, end: float) -> dict[str, object]:
    return {"lr": lr, "outcome": "failed-to-train", "initial_loss": 5.5, "best_loss": end, "last_loss": end}


def test_a_gain_on_the_start_is_said_and_not_counted() -> None:
    trials = [held(0.001, 5.4), held(0.1, 4.2)]
    said = _advice(trials[:1], trials, SPEC, {**DATA, "starts_from": "the weights in folder"})
    assert "LRs that lower the loss of the weights that it starts from do not bring it below" in said
    assert said.startswith("Raise --hold-steps, or train more of the model")


def test_from_random_weights_and_without_a_gain_nothing_of_it_is_said() -> None:
    gained, stayed = [held(0.1, 4.2)], [held(0.1, 5.5)]
    assert "starts" not in _advice(gained, gained, SPEC, DATA)
    assert "starts" not in _advice(stayed, stayed, SPEC, {**DATA, "starts_from": "the weights in folder"})
