"""A module in place of a factory, and what a copy of it shares."""

from functools import partial

import pytest
import torch
from torch import nn

from stresstest import lr_range
from stresstest.errors import ConfigError
from stresstest.user_model.brought import as_model, copies_of


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
    copy = copies_of(nn.Sequential(nn.Linear(4, 4), nn.GELU()))
    first, second = copy(), copy()
    with torch.no_grad():
        first[0].weight.zero_()
    assert bool(second[0].weight.abs().sum() > 0)


def test_a_module_whose_copy_would_share_its_parts_is_refused_with_the_place() -> None:
    with pytest.raises(ConfigError, match=r"0\.mlp is a function that holds a part of it; give a function that builds"):
        copies_of(nn.Sequential(Closed()))


def test_hooks_that_hold_a_part_are_seen_and_partial_functions_are_copied() -> None:
    module = nn.Linear(4, 4)
    module.register_forward_hook(lambda *_: None)
    copies_of(module)
    module.register_forward_hook(lambda *_: print(module.weight))
    with pytest.raises(ConfigError, match="_forward_hooks"):
        copies_of(module)
    whole = nn.Linear(2, 2)
    whole.run = partial(whole.forward)
    copied = copies_of(whole)()
    with torch.no_grad():
        copied.weight.zero_()
        copied.bias.zero_()
    assert bool((copied.run(torch.ones(1, 2)) == 0).all())


def test_a_module_may_stand_where_a_factory_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 256))
    before = model[0].weight.clone()
    result = lr_range(model, seeds=2, num_steps=30, hold_steps=20, theory=False, quiet=True)
    assert [cell.status for cell in result.cells] == ["done", "done"]
    assert torch.equal(model[0].weight, before)


def test_data_without_a_model_are_told_where_they_go() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(4, 2)))
    with pytest.raises(ConfigError, match="a DataLoader has no model; give a factory, and this as its batch"):
        as_model(loader)
