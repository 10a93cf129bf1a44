"""A gate in pytest: the model must train at the learning rate that you use, with every seed.

    pytest test_gate.py

It fails with what became of each seed. To compare a pull request with its base, see `stresstest init --ci github`.
"""

import pytest

from stresstest.testing import assert_stable


@pytest.mark.stresstest
@pytest.mark.parametrize("depth", [1, 4])
def test_it_trains_at_our_learning_rate(depth: int) -> None:
    assert_stable("own_model.py:build", lr=3e-3, seeds=2, steps=100, depth=depth, variant="pre-norm")
