"""The spectrum of a Jacobian: exact where it is small, by Lanczos where it is not, against torch and scipy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import svdvals
from torch import Tensor

from stresstest.engine import jacobian
from stresstest.engine.jacobian import Spectrum, spectrum
from stresstest.models.transformer import Transformer
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import ModelSpec
from stresstest.specs.parsing import parse_choice


def walk_of(variant: str, depth: int = 2, seed: int = 0, **shape: object) -> Callable[[Tensor], Tensor]:
    """The blocks of one replica, as a map of streams [1, B, T, D]."""
    spec = ModelSpec.model_validate({"model": "encoder", "depth": depth, "width": 8, "heads": 2} | shape)
    choice = parse_choice(variant, VARIANTS)
    model = Transformer(spec, choice.name, choice.options)
    leaves = model.layout.leaves(model.initial_row(seed)[None])
    parameters = model.layout.unbind({kind: bank.detach() for kind, bank in leaves.items()})
    return lambda stream: model.walk(parameters, stream)


def stream_of(tokens: int = 3, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, tokens, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spectrum_of(walk: Callable[[Tensor], Tensor], stream: Tensor, seed: int = 0) -> Spectrum | None:
    return spectrum(walk, walk, stream, seed)


def singular_values(walk: Callable[[Tensor], Tensor], stream: Tensor) -> np.ndarray:
    full = torch.autograd.functional.jacobian(walk, stream)
    assert isinstance(full, Tensor)
    return np.asarray(svdvals(full.reshape(stream.numel(), stream.numel()).numpy()))


@pytest.mark.parametrize("variant", ["pre-ln", "rezero:alpha=0.1", "normformer", "residual"])
def test_a_small_jacobian_has_the_singular_values_of_torchs(variant: str) -> None:
    walk, stream = walk_of(variant), stream_of()
    expected = singular_values(walk, stream)
    found = spectrum_of(walk, stream)
    assert found is not None
    assert (found.method, found.size) == ("exact", 24)
    assert found.mean_square == pytest.approx(np.mean(expected**2), rel=1e-10)
    assert found.largest == pytest.approx(expected[0], rel=1e-10)
    assert found.smallest == pytest.approx(expected[-1], rel=1e-8)
    assert found.condition == pytest.approx(expected[0] / expected[-1], rel=1e-8)
    counts, _ = np.histogram(np.log10(expected), bins=found.log10_edges)
    np.testing.assert_allclose(np.array(found.shares) * 24, counts, atol=1e-9)
    assert sum(found.shares) == pytest.approx(1.0)


def test_the_directions_that_layer_norm_removes_are_counted_as_zero() -> None:
    found = spectrum_of(walk_of("post-ln"), stream_of(), 0)
    assert found is not None
    assert found.zero_share == pytest.approx(2 * 3 / 24), "mean and length of each of three tokens"
    assert found.condition == math.inf
    assert found.smallest > 1e-6


def test_the_jacobian_of_rezero_is_the_identity() -> None:
    found = spectrum_of(walk_of("rezero", depth=5), stream_of(), 0)
    assert found is not None
    assert (found.mean_square, found.condition, found.zero_share) == (1.0, 1.0, 0.0)


@pytest.fixture
def by_lanczos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobian, "EXACT_UP_TO", 0)


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln", "rezero:alpha=0.1", "sub-ln"])
@pytest.mark.usefixtures("by_lanczos")
def test_lanczos_finds_the_ends_and_hutchinson_the_mean_square(variant: str) -> None:
    walk, stream = walk_of(variant, depth=4, width=16, heads=4), stream_of(12, 16)
    expected = singular_values(walk, stream)
    found = spectrum_of(walk, stream)
    assert found is not None
    assert (found.method, found.size) == ("lanczos", 192)
    assert found.largest == pytest.approx(expected[0], rel=0.02)
    assert found.largest <= expected[0] * (1 + 1e-9), "a bound from inside"
    assert found.smallest >= expected[-1] * (1 - 1e-9)
    scatter = math.sqrt(2 * np.sum(expected**4) / 16) / 192  # of Hutchinson's estimate from 16 probes
    assert abs(found.mean_square - np.mean(expected**2)) < 4 * scatter
    assert sum(found.shares) == pytest.approx(1.0)


@pytest.mark.usefixtures("by_lanczos")
def test_the_histogram_of_lanczos_is_the_spectrums() -> None:
    """A map with a known spectrum: half of its singular values near 0.01, half near 10."""
    values = torch.cat([torch.logspace(-2.1, -1.9, 200), torch.logspace(0.9, 1.1, 200)]).double()
    mix, _ = torch.linalg.qr(torch.randn(400, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    found = spectrum_of(lambda x: (x * values) @ mix, torch.zeros(1, 1, 400, dtype=torch.float64), 1)
    assert found is not None
    middle = np.array(found.log10_edges[:-1])
    assert np.array(found.shares)[middle < -0.5].sum() == pytest.approx(0.5, abs=0.1)
    assert np.array(found.shares)[(middle > -1.5) & (middle < 0.5)].sum() < 0.02
    assert found.mean_square == pytest.approx(float(values.square().mean()), rel=0.2)
    assert found.largest == pytest.approx(float(values.max()), rel=0.01)


def test_a_jacobian_beyond_all_numbers_is_none() -> None:
    assert spectrum_of(lambda x: x * 1e200 * x.norm() * 1e200, stream_of(), 0) is None


@pytest.mark.usefixtures("by_lanczos")
def test_a_large_jacobian_beyond_all_numbers_is_none() -> None:
    assert spectrum_of(lambda x: x * 1e200 * x.norm() * 1e200, stream_of(), 0) is None


def test_a_jacobian_of_zeros_has_no_histogram() -> None:
    found = spectrum_of(lambda x: 0.0 * x, stream_of(), 0)
    assert found is not None
    assert (found.zero_share, found.shares, found.condition) == (1.0, [], math.inf)


# Bachlechner et al.'s public notebook (its stored output): mean over 10 networks of one input each; it prints
# 0.000 for Post-LN of 128 layers.
PUBLISHED = {
    ("post-ln", 12): 0.810,
    ("pre-ln", 12): 10.242,
    ("rezero:alpha=0.1", 12): 1.059,
    ("post-ln", 128): 0.0005,
    ("pre-ln", 128): 66.281,
    ("rezero:alpha=0.1", 128): 2.142,
}


@pytest.mark.parametrize(("variant", "depth"), PUBLISHED)
def test_the_published_encoder_jacobians_lie_within_our_seeds(variant: str, depth: int) -> None:
    """PAPERS.md B2: width 16, 4 heads, 4 tokens, ReLU, inputs N(0, 1), torch's gain of Q, K and V."""
    found: list[Spectrum] = []
    for seed in range(10):
        walk = walk_of(variant, depth, seed, width=16, heads=4, activation="relu", qkv_gain=0.5**0.5)
        one = spectrum_of(walk, stream_of(4, 16, seed), seed)
        assert one is not None
        found.append(one)
    squares, published = np.array([one.mean_square for one in found]), PUBLISHED[variant, depth]
    assert squares.min() < published < squares.max()
    if (variant, depth) == ("post-ln", 128):
        assert np.median(squares) < 2 * published
    if variant.startswith("rezero"):  # which scatters little
        assert abs(squares.mean() - published) < 4 * squares.std() / math.sqrt(10)
