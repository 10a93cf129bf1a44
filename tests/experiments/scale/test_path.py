"""Paths of growing sizes: how they are read, what is refused, and where their target lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.errors import ConfigError
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import MOST_SIZES, on_the_path, parse_sizes, parse_target
from stresstest.specs.profiles import PROFILES, make_spec

exhaustive = settings(derandomize=True, deadline=None, max_examples=200)


def spec(**given: Any) -> ScaleSpec:
    return make_spec(ScaleSpec, "quick", given)


@exhaustive
@given(st.integers(20, 64), st.floats(1.5, 64.0), st.floats(1.1, 3.0), st.integers(1, 8))
def test_a_range_grows_from_its_first_to_its_last_size_in_steps_of_about_its_factor(
    start: int, span: float, factor: float, unit: int
) -> None:
    first, last = start * unit, math.ceil(start * span) * unit
    sizes = parse_sizes(f"{first}:{last}:x{factor}", unit)
    assert (sizes[0], sizes[-1]) == (first, last)
    assert all(a < b for a, b in pairwise(sizes))
    assert all(size % unit == 0 for size in sizes)
    steps = len(sizes) - 1
    assert steps == 1 or abs(steps - math.log(last / first, factor)) <= 0.5
    for place, size in enumerate(sizes):
        assert abs(size - first * (last / first) ** (place / steps)) <= 0.501 * unit


def test_a_range_has_the_sizes_that_a_factor_of_the_square_root_of_two_means() -> None:
    assert parse_sizes("32:256:x1.41") == (32, 45, 64, 91, 128, 181, 256)
    assert parse_sizes("32:256:x1.41", 4) == (32, 44, 64, 92, 128, 180, 256) == ScaleSpec().widths
    assert parse_sizes("8, 16,32") == (8, 16, 32)


@pytest.mark.parametrize(
    "text",
    ["lots", "32:", "32:256", "32:256:2", "256:32:x2", "0:64:x2", "32:256:x1", "32:256:xinf", "32:256:xnan", "8,x"],
)
def test_what_is_no_range_is_answered_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"32:256:x1\.41"):
        parse_sizes(text)


def test_a_huge_range_is_refused_without_making_it() -> None:
    with pytest.raises(ValueError, match=f"more than {MOST_SIZES} sizes; use a larger factor"):
        parse_sizes("1:1000000000:x1.0000001")


@pytest.mark.parametrize(
    ("asked", "depth"), [({"width": 512}, 16), ({"depth": 16}, 16), ({"width": 512, "depth": 15}, 15)]
)
def test_a_target_lies_on_the_path_of_several_settings(asked: Mapping[str, int], depth: int) -> None:
    path = {"width": (32, 64, 128), "depth": (1, 2, 4)}
    assert on_the_path(path, asked) == {"width": 512, "depth": depth}


@pytest.mark.parametrize("given", [{"width": 1024}, 1024, "1024", "width=1024", " width = 1024 "])
def test_a_target_is_text_a_number_or_a_size_by_its_names(given: Any) -> None:
    assert spec(widths="32,64,128", target=given).beyond == {"width": 1024}


def test_a_target_that_is_left_out_is_twice_the_largest_size() -> None:
    assert spec(widths="32,64,128", depths="1,2,4").beyond == {"width": 256, "depth": 8}
    assert parse_target("", ["width"]) == {}


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "one size": ({"widths": "64"}, "widths has one size; a law takes 3 or more, e.g. 32:256:x1.41"),
    "one depth": ({"depths": (2,)}, "depths has one size; a law takes 3 or more, e.g. 2:16:x1.41"),
    "two sizes": ({"widths": "64,128"}, "widths has 2 sizes; a law takes 3 or more"),
    "none": ({"widths": ""}, "nothing grows; give widths, depths, batch_sizes, seq_lens or train_steps"),
    "falling": ({"widths": "64,32,128"}, "widths 64,32,128: give sizes from 1 on, each above the last"),
    "equal": ({"widths": (64, 64, 128)}, "widths 64,64,128: give sizes from 1 on"),
    "zero": ({"batch_sizes": "0,8,16"}, "batch_sizes 0,8,16: give sizes from 1 on"),
    "text": ({"widths": "wide"}, "widths 'wide': give sizes such as 64,128,256"),
    "fractions": ({"widths": "32,64.5,128"}, "widths '32,64.5,128': give sizes"),
    "unlike lengths": ({"widths": "32,64,128", "depths": "1,2"}, "widths has 3, depths has 2 sizes; give as many of"),
    "heads": ({"widths": "33,64,128"}, "widths: 33 is not divisible by heads 4; use 32"),
    "base": ({"parametrization": "sp,mup", "base_width": 30}, "base_width 30 is not divisible by heads 4; use 32"),
    "fewer than heads": ({"widths": "2,64,128"}, "widths: 2 is not divisible by heads 4; use 4"),
    "one width beside": ({"widths": "32,64,128", "width": 64}, "grows in width, by widths; leave out width 64"),
    "one depth beside": ({"depths": "2,4,8", "depth": 6}, "grows in depth, by depths; leave out depth 6"),
    "one hold beside": ({"train_steps": "20,40,80", "hold_steps": 150}, "by train_steps; leave out hold_steps 150"),
    "short holds": ({"train_steps": "10,20,40"}, "train_steps: 10 are too few for a hold; give 20 or more"),
    "no such setting": ({"model": "mlp", "seq_lens": "8,16,32"}, "model mlp has no seq_len that could grow"),
    "micro-batches": ({"batch_sizes": "9,18,32", "accumulate": 3}, "accumulate 3 does not divide 32; use multiples"),
    "within": ({"widths": "32,64,128", "target": 100}, "width=100 lies within the sizes of the path, which end at 128"),
    "the last": ({"widths": "32,64,128", "target": "128"}, "width=128 lies within the sizes of the path"),
    "beside": (
        {"widths": "32,64,128", "depths": "1,2,4", "target": "width=256,depth=24"},
        "target depth=24 lies beside the path, which has depth 8 at width 256",
    ),
    "of another setting": ({"widths": "32,64,128", "target": {"depth": 8}}, "target depth=8: the path grows in width"),
    "not a number": ({"widths": "32,64,128", "target": "big"}, "target big: not a whole number; write e.g. width=1024"),
    "a power": ({"widths": "32,64,128", "target": "1e3"}, "target 1e3: not a whole number"),
    "zero as target": ({"widths": "32,64,128", "target": 0}, "target 0: not a whole number"),
    "twice": ({"widths": "32,64,128", "target": "width=256,width=512"}, "target gives width twice; keep one"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_path_is_refused_in_a_line_that_says_what_to_do(case: str) -> None:
    given, line = WRONG[case]
    with pytest.raises(ConfigError) as refused:
        spec(**given)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_one_value_of_what_grows_has_no_say() -> None:
    assert spec(heads=3, widths="33,66,99").places[0] == {"width": 33}  # 64, which no model has, has no 3 heads
    assert spec(batch_sizes="9,18,36", accumulate=3).places[-1] == {"batch_size": 36}
    with pytest.raises(ConfigError, match="width 64 is not divisible by heads 3"):
        spec(heads=3, depths="2,4,8")


def test_a_stored_path_reads_as_itself_and_a_profile_lengthens_no_hold_that_grows() -> None:
    first = spec(widths="32,64,128", width=32, target={"width": 512})
    assert ScaleSpec.model_validate(first.model_dump()) == first
    for profile in PROFILES:
        assert make_spec(ScaleSpec, profile, {"train_steps": "150,300,600"}).places[-1] == {"hold_steps": 600}


@pytest.mark.parametrize("model", ["mlp", "encoder", "resnet", "encoder-decoder"])
def test_what_a_model_has_by_default_does_not_grow(model: str) -> None:
    assert list(spec(model=model).path) == ["width"]
    assert (spec(model=model).widths == ScaleSpec().widths) == (model != "resnet")  # whose wide ones take hours
    assert list(spec(model=model, train_steps="150,300,600").path) == ["hold_steps"]
