"""Models whose seed does not decide the last bit of their start: linear algebra rounds as memory lies."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.user_model.bench import resolve_user_model
from stresstest.user_model.factory import register_callable
from stresstest.user_model.preflight import preflight


def differing_by(share: float) -> Callable[[], nn.Module]:
    """A factory whose every model differs from the one before by this share of its weights."""
    count = itertools.count()

    def build() -> nn.Module:
        module = nn.Sequential(nn.Embedding(256, 16), nn.Linear(16, 256))
        with torch.no_grad():
            module[1].weight.mul_(1 + share * (next(count) % 2))
        return module

    return build


def notes_of(build: Callable[[], nn.Module]) -> str:
    with register_callable(build, {}) as name:
        spec = resolve_user_model(make_spec(LrRangeSpec, "quick", {"model": name}), sweeps_depth=False)
        return "\n".join(preflight(spec, [1], "cpu").notes)


def test_a_start_that_differs_in_rounding_trains_with_a_warning(tmp_path: Path) -> None:
    notes = notes_of(differing_by(3e-7))
    assert "a seed builds 1.weight anew with other rounding" in notes
    assert "every seed builds the same model" not in notes
    assert "other rounding" not in notes_of(differing_by(0.0))


def test_a_start_that_differs_by_more_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the same seed built two different models \(1\.weight differs\)"):
        notes_of(differing_by(1e-4))
