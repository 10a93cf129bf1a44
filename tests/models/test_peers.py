"""What one block lacks and its peers have is told from what is a design."""

from __future__ import annotations

import pytest
from torch import nn

from stresstest.models.peers import frozen_alone, missing_norms, tensor_name


def stack(*blocks: nn.Module) -> nn.Module:
    return nn.ModuleDict({"layers": nn.ModuleList(blocks), "norm": nn.LayerNorm(4)})


def block(norm: bool = True, frozen: bool = False) -> nn.Module:
    made = nn.ModuleDict({"norm": nn.LayerNorm(4) if norm else nn.Identity(), "linear": nn.Linear(4, 4)})
    made["linear"].requires_grad_(not frozen)
    return made


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        ("layers.3.mlp.0.weight", "layers.*.mlp.0.weight", 3),
        ("0.weight", "*.weight", 0),
        ("layer1.2.bn1", "layer1.*.bn1", 2),
        ("conv2d.weight", "conv2d.weight", None),
    ],
)
def test_the_first_number_of_a_name_is_its_blocks(name: str, kind: str, number: int | None) -> None:
    found = tensor_name(name)
    assert (found.kind, found.block, found.text) == (kind, number, name)


def test_a_norm_that_one_of_several_blocks_lacks_is_named() -> None:
    assert list(missing_norms(stack(block(), block(), block(norm=False), block()))) == ["layers.2.norm"]
    assert not list(missing_norms(stack(*(block() for _ in range(4)))))
    assert not list(missing_norms(stack(*(block(norm=False) for _ in range(4)))))


def test_two_of_four_or_one_of_two_are_a_design() -> None:
    assert not list(missing_norms(stack(block(), block(), block(norm=False), block(norm=False))))
    assert not list(missing_norms(stack(block(), block(norm=False))))
    assert not list(frozen_alone(stack(block(frozen=True), block(frozen=True), block(), block())))


def test_norms_among_other_layers_of_a_sequence_are_a_design() -> None:
    layers = [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()] * 3
    assert not list(missing_norms(nn.Sequential(*layers)))


def test_a_parameter_that_is_frozen_alone_is_named_and_one_that_is_not_there_is_not() -> None:
    found = list(frozen_alone(stack(block(), block(), block(), block(frozen=True))))
    assert found == ["layers.3.linear.weight", "layers.3.linear.bias"]
    assert not list(frozen_alone(stack(block(), block(), block(), block(norm=False))))
