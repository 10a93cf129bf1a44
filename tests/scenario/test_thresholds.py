"""The grammar of thresholds, and what is said of one that cannot be."""

from __future__ import annotations

import math

import pytest

from stresstest import api
from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate.thresholds import check_threshold, default_thresholds, metrics_of
from stresstest.scenario.thresholds import octaves, parse_threshold
from stresstest.specs.profiles import make_spec
from tests.experiments.test_conformance import sometimes_missing

ADAMW = "adamw:beta2=0.95,eps=1e-6"


def spec(**settings: object) -> LrRangeSpec:
    found = make_spec(EXPERIMENTS["lr-range"].spec, "quick", {"variant": ("post-ln", "pre-ln"), **settings})
    assert isinstance(found, LrRangeSpec)
    return found


def test_everything_a_threshold_can_say() -> None:
    found = parse_threshold("boundary.max_stable_lr{variant=pre-ln, depth=4}", "p(10)>=3e-3", "warn")
    assert (found.experiment, found.metric) == ("boundary", "max_stable_lr")
    assert found.selector == (("variant", "pre-ln"), ("depth", "4"))
    assert (found.aggregation, found.rank, found.operator, found.limit) == ("p", 10.0, ">=", 0.003)
    assert (found.relative, found.level) == (False, "warn")
    relative = parse_threshold("final_loss", "med vs base <= 10%")
    assert (relative.relative, relative.tolerance, relative.unit, relative.falls) == (True, 10.0, "%", False)


def test_options_in_a_selector_keep_their_commas() -> None:
    found = parse_threshold(f"max_stable_lr{{optimizer={ADAMW},variant=deepnorm:alpha=2}}", "med > 0.1")
    assert found.selector == (("optimizer", ADAMW), ("variant", "deepnorm:alpha=2"))


def test_per_cent_of_a_learning_rate_is_in_octaves() -> None:
    assert octaves(parse_threshold("max_stable_lr", "med vs base >= -50%")) == pytest.approx(1.0)
    assert octaves(parse_threshold("max_stable_lr", "med vs base >= -10%")) == pytest.approx(-math.log2(0.9))
    assert octaves(parse_threshold("max_stable_lr", "med vs base >= -0.5oct")) == 0.5


@pytest.mark.parametrize(
    ("key", "expression", "said"),
    [
        ("max_stable_rl", "med > 1", "did you mean 'max_stable_lr'?"),
        ("max_stable_lr", "mean > 1", "has no aggregation 'mean'; it has med, avg, min, max, p(N)"),
        ("min_warmup", "avg > 1", "has no aggregation 'avg'; it has med, min, max"),
        ("max_stable_lr", "p(101) > 1", "not a percentile"),
        ("max_stable_lr", "med(3) > 1", "has no aggregation"),
        ("max_stable_lr", "med 1", "is not a threshold"),
        ("max_stable_lr", "med > 1oct", "allowed only with 'vs base'"),
        ("max_stable_lr", "avg vs base >= -1oct", "use med (of differences paired by seed)"),
        ("max_stable_lr", "med vs base > -1oct", "write >= -TOLERANCE"),
        ("max_stable_lr", "med vs base >= -1", "compared in oct or %"),
        ("final_loss", "med vs base <= 1oct", "compared in % or no unit or nats"),
        ("max_stable_lr", "med vs base <= 1oct", "limits a gain"),
        ("final_loss", "med vs base >= -1%", "limits a gain"),
        ("max_stable_lr", "med vs base >= 0oct", "needs a tolerance above 0"),
        ("max_stable_lr", "med vs base >= -100%", "needs a tolerance above 0"),
        ("seconds_per_step", "med vs base <= 10%", "the load of the machine"),
        ("max_stable_lr{height=3}", "med > 1", "unknown key 'height'"),
        ("max_stable_lr{variant}", "med > 1", "is not KEY=VALUE"),
        ("9lives", "med > 1", "is not a metric"),
    ],
)
def test_one_line_says_what_is_wrong(key: str, expression: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_threshold(key, expression)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_row_that_the_selector_names_is_a_line() -> None:
    specs = {"a": spec(), "b": spec(variant=("pre-ln",))}
    for key, lines in (("max_stable_lr", 3), ("a.max_stable_lr", 2), ("max_stable_lr{variant=pre-ln}", 2)):
        assert check_threshold(parse_threshold(key, "med vs base >= -1oct"), specs) == lines


@pytest.mark.parametrize(
    ("key", "expression", "said"),
    [
        ("c.max_stable_lr", "med > 1", "unknown experiment 'c'"),
        ("recipe_loss", "med > 1", "no experiment measures recipe_loss"),
        ("critical_lr", "med > 1", "no experiment measures critical_lr"),
        ("max_stable_lr{variant=rezero}", "med > 1", "no row of max_stable_lr has variant 'rezero'"),
        ("max_stable_lr", "med vs base >= -0.5oct", "the smallest tolerance is -1oct, or set hold_resolution"),
        ("onset_lr", "med vs base >= -0.01oct", "the smallest tolerance is -0.084oct"),
        ("steps_survived", "med vs base >= -0.5", "the smallest tolerance is -1"),
    ],
)
def test_a_threshold_that_nothing_can_answer_is_refused(key: str, expression: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_threshold(parse_threshold(key, expression), {"a": spec(theory=False)})
    assert said in str(raised.value)


def test_the_smallest_tolerance_that_is_named_is_accepted() -> None:
    for key, text in (("onset_lr", "-0.084oct"), ("steps_survived", "-1"), ("max_stable_lr", "-1oct")):
        check_threshold(parse_threshold(key, f"med vs base >= {text}"), {"a": spec()})


def test_what_is_gated_where_nothing_is_named_can_be_told() -> None:
    sweep = make_spec(EXPERIMENTS["depth-sweep"].spec, "quick", {"measure": ("outcome",), "depths": (2, 8)})
    specs = {"a": spec(), "b": sweep, "c": make_spec(EXPERIMENTS["warmup"].spec, "quick", {})}
    found = dict(default_thresholds(specs))
    assert found == {
        "a.max_stable_lr": "med vs base >= -1oct",
        "b.max_trainable_depth": "med vs base >= -2oct",
        "c.warmup_sensitivity": "med vs base <= 25%",
    }
    for key, text in found.items():
        check_threshold(parse_threshold(key, text), specs)


def test_more_seeds_than_the_exact_test_takes_are_refused() -> None:
    with pytest.raises(ConfigError, match="allows at most 24"):
        check_threshold(parse_threshold("max_stable_lr", "med vs base >= -1oct"), {"a": spec(seeds="25")})


@pytest.mark.parametrize("command", list(EXPERIMENTS))
def test_what_an_experiment_is_said_to_measure_is_what_its_rows_have(command: str) -> None:
    """The lists that thresholds are checked against, beside a run of the model that has all there is."""
    tiny = {"depth": 1, "width": 8, "heads": 2, "seq_len": 8, "batch_size": 4, "variant": "pre-ln", "quiet": True}
    sweep = {"depths": (1, 2, 4), "measure": ("outcome", "hold"), "train_steps": 30} if command == "depth-sweep" else {}
    ramp = {
        "warmup": {"train_steps": 40, "trials": 0, "num_lrs": 3},
        "race": {"train_steps": 40, "num_lrs": 2},
        "batch-sweep": {"tokens": 1000, "batch_sizes": (2, 4, 8), "num_lrs": 2},
        "scale": {"num_steps": 40, "hold_steps": 20, "widths": (8, 12, 16), "target": "width=28"},
        "shock": {
            "num_steps": 40,
            "hold_steps": 20,
            "after": 25,
            "train_steps": 70,
            "peak_lr": 0.02,
            "shock": ("lr-pulse", "bad-batch"),
        },
    }.get(command, {"num_steps": 40, "hold_steps": 20})
    steps = {"warmup_steps": (0, 10)} if command == "warmup" else {}
    if command == "batch-sweep":
        del tiny["batch_size"]
    settings = {
        name: value for name, value in {**tiny, **sweep, **ramp, **steps}.items() if not (sweep and name == "depth")
    }
    result = getattr(api, command.replace("-", "_"))("encoder-decoder", seeds=1, **settings)
    measured = metrics_of(EXPERIMENTS[command].spec.model_validate(result.spec))
    rows = [*result.summary, *result.trends]
    found = {name for row in rows for name in row.metrics}
    assert found <= set(measured)
    assert set(measured) - found <= sometimes_missing(command)


def test_resolutions_are_those_of_ramp_and_hold() -> None:
    fine = metrics_of(spec(hold_resolution="quarter-octave", start_lr=0.001, end_lr=1.024, num_steps=101))
    assert fine["max_stable_lr"] == 0.25
    assert fine["onset_lr"] == pytest.approx(0.1)  # ten octaves in a hundred steps
