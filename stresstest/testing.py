"""For those who live in pytest: an assertion that a model trains at a learning rate.

import pytest
from stresstest.testing import assert_stable

@pytest.mark.stresstest
def test_it_trains_at_our_learning_rate():
    assert_stable("model.py:build", lr=3e-3, seeds=5)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from stresstest import api
from stresstest.experiments.settings_types import StableSettings
from stresstest.reports.numbers import HOW_IT_BROKE, number
from stresstest.results.records import TRAINED
from stresstest.specs.kinds import AS_BUILT

__all__ = ["assert_stable"]


def assert_stable(
    model: str | Callable[..., Any],
    *,
    lr: float,
    seeds: int | str | Sequence[int] = 5,
    steps: int = 150,
    warmup_steps: int = 0,
    **settings: Unpack[StableSettings],
) -> None:
    """Assert that a model trains for `steps` steps at the constant learning rate `lr`, with every seed.

    `model` is a factory, `build(**kwargs) -> nn.Module`, or what `--model` takes. After `warmup_steps` of linear
    warm-up the learning rate stays; `settings` are those of `stresstest warmup` (optimizer, task, batch_size, ...)
    and of `stresstest.api`. To train is what it is everywhere here: the loss ends below that of the best constant
    predictor, and nothing explodes, becomes non-finite or gives back for good what was learned.

    Raises `AssertionError`, with what became of each seed; `ConfigError` where something is wrong before training;
    `StresstestError` where the model's code fails.
    """
    result = api.experiment("warmup")(
        model,
        start_lr=lr,
        end_lr=lr,
        num_lrs=1,
        warmup_steps=(warmup_steps,),
        train_steps=steps,
        trials=0,
        seeds=seeds,
        **{"variant": AS_BUILT, "quiet": True, **settings},
    )
    broke = {
        f"{trend.variant}, seed {seed}": outcome
        for trend in result.trends
        for place in trend.map
        for seed, outcome in place.outcomes.items()
        if outcome not in TRAINED
    }
    if broke:
        every = sum(len(place.outcomes) for trend in result.trends for place in trend.map)
        lines = [f"  {where}: {outcome}, it {HOW_IT_BROKE[outcome]}" for where, outcome in broke.items()]
        head = f"at a learning rate of {number(lr)}, {len(broke)} of {every} runs of {steps} steps do not train"
        raise AssertionError("\n".join([head, *lines, "to find learning rates that do, run stresstest lr-range"]))
