"""A module in place of a factory, and what a copy of it shares."""

from functools import partial

import pytest
import torch
from torch import nn

from stresstest import lr_range
from stresstest.errors import ConfigError
from stresstest.user_model.brought import as_model
from stresstest.user_model.copies import copied


class Closed(nn.Module):
    """A block whose forward is a function over one of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        inner = self.inner
        self.mlp = lambda x: inner(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x)


def test_copies_of_a_module_are_independent_of_each_other() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    first, second = copied(module), copied(module)
    with torch.no_grad():
        first[0].weight.zero_()
    assert bool(second[0].weight.abs().sum() > 0)


def test_a_copy_of_a_module_that_closes_over_its_parts_computes_with_its_own() -> None:
    module = nn.Sequential(Closed())
    copy, x = copied(module), torch.ones(2, 4)
    assert torch.equal(copy(x), module(x))
    with torch.no_grad():
        copy[0].inner.weight.zero_()
        copy[0].inner.bias.zero_()
    assert bool((copy(x) == 0).all())
    assert bool((module(x) != 0).any())


def test_hooks_and_partial_functions_of_a_copy_speak_of_the_copy() -> None:
    module = nn.Linear(2, 2)
    module.register_forward_hook(lambda *_: module.weight.sum() + torch.zeros(3, 2))
    module.run = partial(module.forward)
    copy = copied(module)
    with torch.no_grad():
        copy.weight.zero_()
        copy.bias.zero_()
    assert bool((copy(torch.ones(1, 2)) == 0).all())
    assert bool((copy.run(torch.ones(1, 2)) == 0).all())


def test_a_module_may_stand_where_a_factory_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 256))
    before = model[0].weight.clone()
    result = lr_range(model, seeds=2, num_steps=30, hold_steps=20, theory=False, quiet=True)
    assert [cell.status for cell in result.cells] == ["done", "done"]
    assert torch.equal(model[0].weight, before)


def test_data_without_a_model_are_told_where_they_go() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(4, 2)))
    with pytest.raises(ConfigError, match="loader: a DataLoader has no model; give one with it"):
        as_model(loader, "train.py:loader")
