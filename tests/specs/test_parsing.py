"""What stands behind an option as text."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stresstest.errors import ConfigError
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.specs.base import ShapeSpec
from stresstest.specs.kinds import MODELS
from stresstest.specs.parsing import MANY_DEPTHS, nearest_divisor, parse_depths
from stresstest.specs.profiles import make_spec


@pytest.mark.parametrize(
    ("text", "depths"),
    [
        ("6", (6,)),
        ("4,12,64,128", (4, 12, 64, 128)),
        (" 4, 12 ", (4, 12)),
        ("10:10000:x10", (10, 100, 1000, 10000)),
        ("2:32:x2", (2, 4, 8, 16, 32)),
        ("1:6:x1.5", (1, 2, 3, 5)),
        ("7:7:x2", (7,)),
        ("10:99:x10", (10,)),
    ],
)
def test_depths_are_a_list_or_a_range_that_multiplies(text: str, depths: tuple[int, ...]) -> None:
    assert parse_depths(text) == depths
    assert make_spec(DepthSweepSpec, "quick", {"depths": text}).depths == depths


@pytest.mark.parametrize(
    "text", ["four", "4,x", "1:2", "1:2:3", "1:2:x", "1:2:x1", "0:9:x2", "1:9:xinf", "a:b:x2", "1:9:x2:3"]
)
def test_what_are_no_depths_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"give depths such as 4,12,64, or a range such as 10:10000:x10"):
        make_spec(DepthSweepSpec, "quick", {"depths": text})


@pytest.mark.parametrize("text", ["0,4", "-3", "8,4", "4,4,8", "2,4,3"])
def test_depths_that_are_not_positive_or_do_not_increase_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="positive whole numbers in increasing order"):
        make_spec(DepthSweepSpec, "quick", {"depths": text})


@pytest.mark.parametrize("text", ["", ",", "9:3:x2"])
def test_no_depths_at_all_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="depths"):
        make_spec(DepthSweepSpec, "quick", {"depths": text})


def test_too_many_depths_are_refused_without_counting_them_all() -> None:
    with pytest.raises(ConfigError, match=f"more than {MANY_DEPTHS} depths"):
        make_spec(DepthSweepSpec, "quick", {"depths": "1:1000000000:x1.0001"})


@given(st.integers(1, 50), st.integers(1, 10_000), st.floats(1.01, 20))
def test_a_range_increases_and_stays_inside_its_ends(first: int, last: int, factor: float) -> None:
    depths = parse_depths(f"{first}:{last}:x{factor}")
    assert all(a < b for a, b in pairwise(depths))
    assert all(first <= depth <= last for depth in depths)
    assert not depths or depths[0] == first


@pytest.mark.parametrize("kind", [LrRangeSpec, DepthSweepSpec])
def test_a_model_brings_its_own_defaults_and_the_user_overrides_them(kind: type[LrRangeSpec]) -> None:
    spec = make_spec(kind, "quick", {"model": "mlp"})
    assert (spec.width, spec.task, spec.batch_size) == (32, "images", 100)
    assert spec.variant == ("rezero", "residual", "layernorm", "plain")
    assert make_spec(kind, "quick", {"model": "mlp", "width": 5, "variant": "pre-ln"}).width == 5
    assert make_spec(kind, "quick", {}).width == 64


@pytest.mark.parametrize(
    "given", [{"heads": 2}, {"ffn_width": 7}, {"seq_len": 9}, {"activation": "relu"}, {"tied": True}, {"qkv_gain": 0.7}]
)
def test_a_setting_that_means_nothing_to_the_model_is_refused(given: dict[str, object]) -> None:
    [name] = given
    with pytest.raises(ConfigError, match=f"model mlp has no setting {name}; leave it out"):
        make_spec(DepthSweepSpec, "quick", {"model": "mlp"} | given)


def test_what_a_model_lacks_are_settings_that_there_are() -> None:
    for model in MODELS.values():
        assert model.lacks <= set(ShapeSpec.model_fields)
        known = {*LrRangeSpec.model_fields, *DepthSweepSpec.model_fields, *ScaleSpec.model_fields}
        assert set(model.defaults) <= known


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"model": "encoder", "task": "language"},
            "task language does not fit model encoder; use task masked-language",
        ),
        ({"model": "mlp", "task": "language"}, "task language does not fit model mlp; use task images"),
        ({"warmup_steps": 200, "measure": "outcome"}, "warmup_steps 200 leave no other steps of train_steps 200"),
        ({"probe_steps": "10,201", "measure": "outcome"}, "probe_steps 201 is outside train_steps, 1 to 200"),
        ({"probe_steps": "0", "measure": "outcome"}, "probe_steps 0 is outside"),
        ({"probe_steps": "10"}, "probe_steps belongs to the fixed recipe; add --measure outcome"),
        ({"bisect": True}, "bisect belongs to the fixed recipe"),
        ({"bisect": True, "model": "mlp", "init_only": True}, "bisect belongs to the fixed recipe"),
        ({"measure": "boundary"}, "measure 'boundary'.*'outcome', 'ramp' or 'hold'$"),
        ({"probe_steps": "ten"}, "probe_steps.*integer"),
    ],
)
def test_settings_of_a_sweep_that_do_not_fit_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_spec(DepthSweepSpec, "quick", given)


def test_the_encoder_learns_masked_language_unless_asked_otherwise() -> None:
    assert make_spec(LrRangeSpec, "quick", {"model": "encoder"}).task == "masked-language"
    assert make_spec(LrRangeSpec, "quick", {}).task == "language"


PRIME = 2**61 - 1


def test_the_nearest_divisor_is_that_of_a_list_of_all() -> None:
    for number, to in product(range(1, 60), range(1, 90)):
        every = [each for each in range(1, number + 1) if number % each == 0]
        assert nearest_divisor(number, to) == min(every, key=lambda each: abs(each - to)), (number, to)


@pytest.mark.parametrize(("number", "to", "nearest"), [(PRIME, 4, 1), (10**30, 3, 2), (PRIME, 10**30, PRIME)])
def test_a_divisor_of_a_very_large_number_is_looked_for_nearby(number: int, to: int, nearest: int) -> None:
    assert nearest_divisor(number, to) == nearest
