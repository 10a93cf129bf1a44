"""What a run at full size would cost, against arithmetic and published sizes; nothing is allocated."""

from __future__ import annotations

import resource

import pytest

from stresstest.experiments.estimate import at_depth, estimates, forward_flops, num_parameters
from stresstest.experiments.table import EXPERIMENTS
from stresstest.specs.base import TrainingSpec
from stresstest.specs.profiles import make_spec

SIZES = {"125M": (12, 768, 12), "355M": (24, 1024, 16), "1.3B": (24, 2048, 32), "2.7B": (32, 2560, 32)}
SHARES = {"125M": 0.074, "355M": 0.069, "1.3B": 0.037, "2.7B": 0.031}  # per cent, of 10 d + H a block


def sized(name: str, **settings: object) -> TrainingSpec:
    depth, width, heads = SIZES[name]
    given = {"depth": depth, "width": width, "heads": heads, "vocab_size": 51_200, "tied": True, "seq_len": 2048}
    return make_spec(EXPERIMENTS["lr-range"].spec, "quick", given | settings)


@pytest.mark.parametrize("name", SIZES)
def test_normformers_extra_parameters_are_ten_d_and_h_a_block(name: str) -> None:
    """Shleifer et al. 2021: 2 d behind attention, 8 d in the FFN, H head scales; the abstract has +0.4 %."""
    depth, width, heads = SIZES[name]
    spec = sized(name)
    pre, normformer = (
        at_depth(depth, lambda blocks, v=v: num_parameters(spec, v, blocks)) for v in ("pre-ln", "normformer")
    )
    assert normformer - pre == depth * (10 * width + heads)
    assert 100 * (normformer - pre) / normformer == pytest.approx(SHARES[name], abs=0.0005)
    assert pre == pytest.approx(float(name[:-1]) * (1e6 if name[-1] == "M" else 1e9), rel=0.04)


def test_flops_are_two_a_weight_and_token_and_attentions() -> None:
    """2 N T of the matrices without the embedding, and 4 T^2 d a block of attention, which looks at all places."""
    spec = make_spec(EXPERIMENTS["lr-range"].spec, "quick", {"depth": 3, "width": 64, "seq_len": 32})
    weights = 3 * 12 * 64 * 64 + 256 * 64
    assert forward_flops(spec, "pre-ln", 3) == 32 * 2 * weights + 3 * 4 * 32 * 32 * 64


def test_depth_is_extrapolated_exactly() -> None:
    for model, few in (("decoder", 1), ("encoder-decoder", 1), ("resnet", 3)):
        spec = make_spec(EXPERIMENTS["lr-range"].spec, "quick", {"model": model, "width": 16})
        variant = "vanilla" if model == "resnet" else "pre-ln"
        direct = forward_flops(spec, variant, 12)
        assert at_depth(12, lambda blocks, s=spec, v=variant: forward_flops(s, v, blocks), few) == direct


def test_nothing_of_the_models_size_is_allocated() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = estimates(sized("2.7B", variant="pre-ln"))
    assert found[0].parameters > 2.6e9  # 10 GB in float32, and as much for each of gradient and state
    assert found[0].need.total > 4 * 4 * found[0].parameters
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kib * 1024 < 0.1 * 4 * found[0].parameters


def test_an_estimate_counts_all_runs_and_their_steps() -> None:
    settings = {"variant": "pre-ln,rezero", "num_lrs": 3, "seeds": "2", "train_steps": 100}
    race = make_spec(EXPERIMENTS["race"].spec, "quick", settings)
    assert [(one.variant, one.runs, one.steps) for one in estimates(race)] == [("pre-ln", 6, 600), ("rezero", 6, 600)]
    batches = make_spec(EXPERIMENTS["batch-sweep"].spec, "quick", {"tokens": "500k", "seeds": "2"})
    (one,) = estimates(batches)
    assert one.runs == 2 * 2 * 6 * 4
    assert one.steps == one.runs * (500_000 // (2048 * 16))
