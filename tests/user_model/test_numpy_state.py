"""Where numpy's global generator stands is read and set as numpy itself does it."""

import copy
import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from stresstest.user_model import numpy_state
from stresstest.user_model.numpy_state import numpy_now, put_numpy


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before, generator = np.random.get_state(), np.random.get_bit_generator()
    yield
    np.random.set_bit_generator(generator)
    np.random.set_state(before)


def _drawn() -> list[float]:
    return [*np.random.rand(700), *np.random.randn(3), float(np.random.randint(1 << 30))]


@pytest.mark.parametrize("normals", [0, 1, 2, 3])  # of an odd number the generator keeps the half of a pair
def test_it_draws_the_same_again_after_any_number_of_normals(normals: int) -> None:
    np.random.seed(7)
    np.random.randn(normals)
    state = pickle.loads(pickle.dumps(numpy_now()))
    first = _drawn()
    np.random.seed(8)
    np.random.randn(1)
    put_numpy(state)
    assert _drawn() == first


def test_it_reads_and_sets_what_numpy_reads_and_sets() -> None:
    np.random.seed(3)
    np.random.randn(5)
    state, theirs = copy.deepcopy(numpy_now()), np.random.get_state()
    np.random.seed(4)
    put_numpy(state)
    for mine, other in zip(np.random.get_state(), theirs, strict=True):
        assert np.array_equal(mine, other)
    assert np.random.get_bit_generator() is np.random.mtrand._rand._bit_generator  # type: ignore[attr-defined]


def test_another_bit_generator_is_read_by_numpy_itself() -> None:
    np.random.set_bit_generator(np.random.PCG64(1))
    state = numpy_now()
    first = _drawn()
    put_numpy(state)
    assert _drawn() == first


def test_numpy_itself_reads_it_where_its_memory_lies_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_state._Words, "are_there", False)
    monkeypatch.setattr(numpy_state, "_found", [])
    state = numpy_now()
    first = _drawn()
    put_numpy(state)
    assert not isinstance(state["state"], bytes)
    assert _drawn() == first
