"""Buffers that a forward pass makes anew, as caches of masks and positions do, or fills, as statistics do."""

from pathlib import Path

import torch
from torch import Tensor, nn

from stresstest import lr_range
from stresstest.user_model.carried import carried, kept, put_back


class Cached(nn.Module):
    """A mask that grows with the input, statistics, and a buffer that comes with the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None, persistent=False)
        self.body = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None or len(self.mask) < len(x):
            self.register_buffer("mask", torch.ones(len(x)), persistent=False)
        if not hasattr(self, "first"):
            self.register_buffer("first", x.mean(0))
        return self.body(x * self.mask[: len(x), None])


def test_a_forward_pass_leaves_no_trace_in_the_buffers_that_were_there() -> None:
    module = Cached()
    with kept(module):
        module(torch.randn(4, 3))
    assert module.mask is None
    assert not hasattr(module, "first")
    assert torch.equal(module.body.running_mean, torch.zeros(3))
    module(torch.randn(4, 3))
    mask, statistics = module.mask, module.body.running_mean.clone()
    with kept(module):
        module(torch.randn(9, 3))
        assert len(module.mask) == 9
    assert torch.equal(module.mask, mask)
    assert torch.equal(module.body.running_mean, statistics)


def test_a_fresh_module_takes_the_buffers_of_one_that_was_trained() -> None:
    trained, fresh = Cached(), Cached()
    for length in (4, 9):
        trained(torch.randn(length, 3))
    put_back(fresh, carried(trained))
    assert len(fresh.mask) == 9
    assert torch.equal(fresh.first, trained.first)
    assert torch.equal(fresh.body.running_var, trained.body.running_var)
    fresh.body.running_var.zero_()
    assert trained.body.running_var.abs().sum() > 0


_GROWING = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", None, persistent=False)
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x):
        if self.mask is None or len(self.mask) < len(x):
            self.register_buffer("mask", torch.ones(len(x), 1), persistent=False)
        return self.body(x) * self.mask[:len(x)]


def build():
    return Net()


def batch(step, batch_size, generator):
    x = torch.randn(4 + step % 5, 4, generator=generator)
    return x, x.sum(1, keepdim=True)
"""


def test_a_model_with_a_growing_cache_has_the_boundary_of_one_without(tmp_path: Path) -> None:
    found = []
    for name, code in (("grows", _GROWING), ("plain", _GROWING.replace("* self.mask[:len(x)]", ""))):
        (tmp_path / f"{name}.py").write_text(code)
        result = lr_range(
            f"{tmp_path / name}.py:build",
            seeds=1,
            num_steps=40,
            hold_steps=30,
            theory=False,
            quiet=True,
            run_dir=tmp_path / name,
        )
        found.append(result.cells[0].metrics["max_stable_lr"])
    assert found[0] == found[1]
    assert found[0].low is not None


class Rotated(nn.Module):
    """Fills a buffer once and remembers that by a number, as rotary_embedding_torch does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scales", torch.zeros(16), persistent=False)
        self.filled = 0
        self.body = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.filled < len(x):
            self.scales[: len(x)] = 2.0
            self.filled = len(x)
            self.told = True
        return self.body(x) / self.scales[: len(x), None]


def test_a_cache_and_what_is_said_of_it_are_put_back_together() -> None:
    module, x = Rotated(), torch.randn(4, 3)
    expected = module.body(x) / 2.0
    for _ in range(2):
        with kept(module):
            torch.testing.assert_close(module(x), expected)
    assert module.filled == 0
    assert not hasattr(module, "told")
    module(x)
    with kept(module):
        module(torch.randn(9, 3))
    torch.testing.assert_close(module(x), expected)
    assert module.filled == 4
