"""`assert_stable` and its marker, as somebody's own tests use them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn

from stresstest.errors import ConfigError, StresstestError
from stresstest.testing import assert_stable


def build(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Embedding(256, width), nn.LayerNorm(width), nn.Linear(width, 256))


def late() -> nn.Module:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = build(), 0

        def forward(self, x: object) -> object:
            self.calls += 1
            if self.calls > 20:
                raise ValueError("late")
            return self.inner(x)

    return Late()


@pytest.mark.stresstest
def test_a_model_that_trains_passes() -> None:
    assert_stable(build, lr=0.01, seeds=2, steps=40, seq_len=16)


def test_one_that_does_not_fails_with_what_became_of_each_seed() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_stable(build, lr=30.0, seeds=(3, 5), steps=40, seq_len=16)
    head, *seeds, remedy = str(raised.value).splitlines()
    assert head == "at a learning rate of 30, 2 of 2 runs of 40 steps do not train"
    assert [line.partition(":")[0].strip() for line in seeds] == ["as-built, seed 3", "as-built, seed 5"]
    assert "lr-range" in remedy


def test_a_model_whose_code_fails_is_no_instability() -> None:
    with pytest.raises(StresstestError, match="late"):
        assert_stable(late, lr=0.01, seeds=1, steps=40, seq_len=16)


def test_a_wrong_setting_is_said_before_training() -> None:
    with pytest.raises(ConfigError, match="did you mean 'optimizer'"):
        assert_stable(build, lr=0.01, optimiser="adam")


def test_the_marker_is_known_where_stresstest_is_installed() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "--markers"], capture_output=True, text=True, check=True)
    assert "@pytest.mark.stresstest: trains a model" in done.stdout
