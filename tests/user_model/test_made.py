"""A function that returns what is made before a loop, of torch alone and prepared by accelerate, beside the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader

from stresstest.errors import ConfigError
from stresstest.user_code import UserCodeError
from stresstest.user_model.brought import as_model
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.factory import register_callable
from tests.user_model.hand_loop import keys, seed_everything
from tests.user_model.trainers import Text, bench_of, gpt2, trainable

STEPS = 12


def plain() -> Any:
    """In the order that many have it."""
    model = gpt2(drop=0.1)
    loader = DataLoader(Text(), batch_size=4, shuffle=True)
    return loader, model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)


def in_a_dict() -> Any:
    """By name."""
    loader, model, optimizer = plain()
    return {"model": model, "optimizer": optimizer, "train": loader}


def prepared() -> Any:
    """By accelerate."""
    loader, model, optimizer = plain()
    return Accelerator(cpu=True).prepare(model, optimizer, loader)


def in_bfloat16() -> Any:
    """By accelerate, whose forward then computes in it."""
    loader, model, optimizer = plain()
    return Accelerator(cpu=True, mixed_precision="bf16").prepare(model, optimizer, loader)


def looped(make: Any, seed: int) -> list[torch.Tensor]:
    """The loop as people write it; the seed is set where the weights are drawn and again before the loop."""
    seed_everything(seed)
    made = make()
    parts = list(made.values()) if isinstance(made, dict) else list(made)
    model = next(part for part in parts if isinstance(part, nn.Module)).train()
    optimizer = next(part for part in parts if isinstance(part, torch.optim.Optimizer))
    loader = next(part for part in parts if isinstance(part, DataLoader))
    seed_everything(seed)
    batches = [batch for _, batch in zip(range(10), loader, strict=False)]
    weights = []
    for step, batch in enumerate(batches):
        seed_everything(keys(seed, step)[1])
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        weights.append(trainable(model))
    return weights


@pytest.mark.parametrize("make", [plain, in_a_dict, prepared, in_bfloat16])
def test_it_trains_as_the_loop_does_to_the_bit(make: Any) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    expected = looped(make, 2)
    with register_callable(make, {}) as name:
        bench = bench_of(name, Constant(""))
        population = bench.populate([2], [1e-2])
        for step, row in enumerate(expected):
            population.step(bench.batches.batch([2], step), torch.tensor([1e-2]))
            assert torch.equal(population.theta_RP[0], row), f"step {step}"
    AcceleratorState._reset_state(reset_partial_state=True)


def test_each_seed_has_weights_of_its_own_where_a_function_makes_them() -> None:
    with register_callable(plain, {}) as name:
        model = bench_of(name, Constant("")).model
        assert not torch.equal(trainable(model.make(0)), trainable(model.make(1)))
    parts = plain()
    with register_callable(parts, {}) as name:
        model = bench_of(name, Constant("")).model
        assert torch.equal(trainable(model.make(0)), trainable(model.make(1)))
        assert model.make(0) is not parts[1]


def test_a_second_loader_is_held_out_and_a_function_is_the_loss() -> None:
    loader, model, optimizer = plain()
    found = as_model((model, optimizer, loader, DataLoader(Text(8)), lambda model, batch: model(**batch).loss))
    assert found is not None
    assert found.loss_fn is not None
    assert found.stream is not None
    assert found.stream.held_out


def test_what_accelerate_accumulates_makes_a_step() -> None:
    def accumulated() -> Any:
        return Accelerator(cpu=True, gradient_accumulation_steps=3).prepare(*plain())

    found = as_model(accumulated())
    assert found is not None
    assert found.settings == {"accumulate": 3}
    alone = as_model(plain())
    assert alone is not None
    assert alone.settings == {}


def test_what_is_ambiguous_is_refused_in_a_line() -> None:
    loader, model, optimizer = plain()
    with pytest.raises(ConfigError, match=r"has 2 optimizers, 1 loaders and 0 functions; return one optimizer"):
        as_model((model, optimizer, plain()[2], loader))
    with pytest.raises(ConfigError, match=r"has CrossEntropyLoss.*return a function loss_fn\(model, batch\)"):
        as_model((model, optimizer, loader, nn.CrossEntropyLoss()))
    other = torch.optim.SGD(gpt2().parameters(), lr=0.1)
    found = as_model((model, other, loader))
    assert found is not None
    assert found.optimizer is not None
    with pytest.raises(UserCodeError, match=r"holds a parameter that is not the model's"):
        found.optimizer(gpt2())
