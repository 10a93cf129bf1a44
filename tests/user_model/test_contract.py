"""Tests of how a loss is inferred: what is said of the part that is trained on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresstest.user_model.contract import Contract, contract
from stresstest.user_model.factory import Factory


def of(output: Any = None, loss: Any = None, batch: Any = None) -> Contract:
    """The contract of a model that returns `output`, or of a loss function that returns `loss`."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return output

    loss_fn = (lambda model, batch: loss) if loss is not None else None
    factory = Factory("f.py:build", Model, {}, {}, "", loss_fn=loss_fn)
    return contract(factory, Model(), (torch.zeros(4, 6), batch))


ONE, TWO, MANY = torch.tensor(1.0), torch.tensor(2.0), torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("returned", "words", "value"),
    [
        (TWO, "loss_fn(model, batch)", 2.0),
        ((TWO, ONE), "loss_fn(model, batch), its first part", 2.0),
        ((MANY, ONE), "loss_fn(model, batch), its second part", 1.0),
        ({"loss": TWO, "aux": ONE}, "loss_fn(model, batch), its 'loss'", 2.0),
        ({"a_loss": TWO, "b_loss": ONE}, "loss_fn(model, batch), the sum of 'a_loss', 'b_loss'", 3.0),
    ],
)
def test_of_several_values_the_one_that_is_trained_on_is_named(returned: Any, words: str, value: float) -> None:
    found = of(loss=returned)
    assert found.text == words
    assert float(found.loss(nn.Identity(), None)) == value


@pytest.mark.parametrize(("outputs", "words"), [(1, "the one logit"), (12, "each logit")])
def test_labels_of_0_and_1_in_the_shape_of_the_output_are_one_logit_each(outputs: int, words: str) -> None:
    targets = torch.arange(4 * outputs).reshape(4, outputs) % 2
    found = of(torch.zeros(4, outputs), batch=targets)
    assert words in found.text
    assert float(found.loss(nn.Identity(), (torch.zeros(4, outputs), targets))) == pytest.approx(math.log(2.0))
