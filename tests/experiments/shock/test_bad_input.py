"""What a model, its optimizer or its data cannot take is said in one line before any training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.shock.batches import OtherData
from stresstest.experiments.shock.measure import plan
from stresstest.tasks.images import ImageTask
from stresstest.user_code import UserCodeError
from tests.experiments.shock.benches import ON_TEXT, asked

SHOCKS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "lr-puls", "unknown shock 'lr-puls'; did you mean 'lr-pulse'?"),
    ({}, "lr-pulse:by=3", "unknown option 'by' of shock lr-pulse; choose from steps, factor"),
    ({}, "lr-pulse:factor=-1", "option 'factor' of shock lr-pulse is '-1'; it must be at least 0"),
    ({}, "bad-batch:kind=noise", "option 'kind' of shock bad-batch is 'noise'"),
    ({}, "bad-batch:steps=1.5", "use a whole number"),
    ({}, "lost-moments:on=2", "use 1, or 0 for none"),
    ({}, "bit-flip:bit=32", "use a bit from 0 to 31"),
    ({}, "bit-flip:where=weights", "did you mean 'weight'?"),
    ({}, "schedule-restart", "changes nothing of a constant learning rate"),
    ({}, "data-order:steps=40", "only 25 steps lie before it"),
    ({}, "bit-flip:layer=fc3.weight", "no parameter is of a layer 'fc3.weight'; did you mean 'fc2.weight'?"),
    ({}, "bit-flip:layer=fc1.weight.9", "no parameter is of a layer 'fc1.weight.9'; did you mean 'fc1.weight"),
    ({}, "bit-flip:layer=zzz", "; there are embedding"),
    ({}, "bit-flip:layer=fc1,where=activation", "takes a layer only of a model of your own"),
    ({}, "shift:data=pydok", "unknown data source 'pydok'"),
    ({"data": "pydoc"}, "shift:data=pydoc", "the run trains on pydoc as it is"),
    ({}, "tiny-batch:size=4", "the run's batches have 4 examples; use a smaller size"),
    ({"optimizer": "sgd"}, "lost-moments", "optimizer sgd keeps no moments"),
    ({"optimizer": "momentum"}, "lost-moments:moment=second", "momentum keeps no second moment; use moment=first"),
    ({"optimizer": "rmsprop"}, "lost-moments:moment=first", "rmsprop keeps no first moment; use moment=second"),
    ({"dtype": "bfloat16"}, "half-precision:dtype=bfloat16", "the run is in bfloat16 as it is"),
    ({"own": "build"}, "bit-flip:layer=7", "no parameter is of a layer '7'; choose from 0.weight, 0, 1.weight, 1"),
    ({"own": "build"}, "bit-flip:layer=9,where=activation", "the model has no part '9'; choose from 0, 1, 2, 3"),
    ({"own": "half"}, "bit-flip:bit=3", "its weights have 16 bits, and 31 is the sign; use a bit from 16 on"),
    ({"dtype": "bfloat16"}, "bit-flip:bit=3,where=activation", "its activations have 16 bits"),
    ({"own": "half"}, "half-precision", "autocast is for weights in float32, and these are in bfloat16"),
    (
        {"own": "build", "optimizer_fn": "sgd"},
        "lost-moments",
        "the optimizer keeps no moments that a resume could lose",
    ),
    ({"own": "build", "optimizer_fn": "lbfgs"}, "lost-moments:moment=second", "the optimizer keeps no second moment"),
    ({"own": "build"}, "shift", "the run draws its own batches, which have one source"),
    ({"own": "build"}, "tiny-batch:size=8", "the run's batches have 8 examples; use a smaller size"),
    ({"own": "counted", "step_fn": "whole_step"}, "half-precision", "takes its gradient itself"),
    ({"own": "counted", "step_fn": "whole_step"}, "bit-flip:where=gradient", "takes its gradient itself"),
    ({"own": "tripled", "batch_fn": "triple"}, "bad-batch:kind=shuffled", "no targets are known in its batches"),
    ({"own": "per_example"}, "tiny-batch", "Expected more than 1 value per channel"),
    ({"own": f"{ON_TEXT}:build", "data": "pydoc"}, "shift:data=pydoc", "the run trains on pydoc as it is"),
    ({"own": f"{ON_TEXT}:build", "seq_len": 6}, "shift:data=path:absent.txt", "data file 'absent.txt' does not exist"),
]
GUARDS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "skip-nonfinit", "did you mean 'skip-nonfinite'?"),
    ({}, "skip-outliers:window=10", "so few steps do not tell what is ordinary; use window=20 or more"),
    ({}, "skip-outliers", "it has seen enough after 63 steps, and the shock comes after 25; use after 63 or a smaller"),
    ({"optimizer": "sgd"}, "beta2", "guard beta2: optimizer sgd has no beta2"),
    ({}, "rewarm:steps=0", "option 'steps' of guard rewarm is 0; it must be above 0"),
    ({"own": "build", "optimizer_fn": "adam"}, "eps", "works only with an optimizer of the table"),
    ({"own": "counted", "step_fn": "whole_step"}, "skip-nonfinite", "takes its steps itself"),
    ({"own": "counted", "step_fn": "whole_step"}, "skip-outliers:window=50", "takes its steps itself"),
    ({"own": "counted", "step_fn": "whole_step"}, "clip-norm", "takes its steps itself"),
]
RUN = {"after": 25, "train_steps": 100, "peak_lr": 0.01, "seeds": (0,)}


def _line(settings: dict[str, Any]) -> str:
    """What is said of these settings, as the command line says it."""
    with pytest.raises((ConfigError, ValidationError)) as caught:
        plan(asked(**{**settings, **RUN}))
    if isinstance(caught.value, ValidationError):
        [error] = caught.value.errors()
        return str(error["msg"])
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "shock", "said"), SHOCKS, ids=[f"{shock} {k}" for k, (_, shock, _) in enumerate(SHOCKS)]
)
def test_a_shock_that_the_run_cannot_take_is_said_in_a_line(settings: dict[str, Any], shock: str, said: str) -> None:
    line = _line({**settings, "shock": (shock,)})
    assert said in line
    assert "\n" not in line
    assert shock.partition(":")[0].partition("-")[0] in line


@pytest.mark.parametrize(("settings", "guard", "said"), GUARDS, ids=[guard for _, guard, _ in GUARDS])
def test_a_guard_that_the_run_cannot_have_is_said_in_a_line(settings: dict[str, Any], guard: str, said: str) -> None:
    line = _line({**settings, "shock": ("lr-pulse",), "guard": (guard,)})
    assert said in line
    assert "\n" not in line


def test_a_model_that_cannot_be_copied_is_said_in_a_line() -> None:
    line = _line({"own": "locked", "shock": ("lr-pulse",)})
    assert "a copy of the model raised TypeError: cannot pickle '_thread.lock' object" in line
    assert line.endswith("keep files, locks and connections elsewhere")
    assert "\n" not in line


def test_other_data_whose_examples_have_another_size_are_refused() -> None:
    images = np.zeros((20, 12), np.uint8), np.arange(20) % 10
    batches = Batches(ImageTask(images, images, 4), torch.device("cpu"))
    with pytest.raises(UserCodeError, match="data digits has 64 numbers in an example, and the run's own 12"):
        OtherData("digits").source(batches)


FINE: list[tuple[dict[str, Any], str]] = [
    ({}, "bit-flip:layer=fc1.weight"),
    ({}, "bit-flip:layer=fc1.weight.2"),
    ({}, "bit-flip:layer=fc1"),
    ({"own": "build"}, "bit-flip:layer=1.weight"),
    ({"own": "build"}, "bit-flip:layer=2,where=activation"),
    ({"own": "half"}, "bit-flip:bit=16"),
    ({"own": "build", "optimizer_fn": "adam"}, "lost-moments:moment=second"),
    ({"own": "build", "optimizer_fn": "lbfgs"}, "lost-moments"),
    ({"own": "counted", "step_fn": "whole_step"}, "lost-moments:moment=first"),
    ({"own": "counted", "step_fn": "whole_step"}, "half-precision:dtype=bfloat16"),
    ({"own": "build", "batch_fn": "loaded", "batch_size": 4}, "tiny-batch:size=2"),
    ({"own": f"{ON_TEXT}:build", "seq_len": 6}, "shift:data=pydoc"),
]


@pytest.mark.parametrize(("settings", "shock"), FINE)
def test_what_a_run_can_take_is_planned(settings: dict[str, Any], shock: str) -> None:
    assert len(plan(asked(**{**settings, **RUN, "shock": (shock,)})).cells) == 1
