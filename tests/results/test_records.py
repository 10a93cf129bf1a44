"""Stored records and the statistics over seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from stresstest.errors import ConfigError
from stresstest.results.metrics import METRICS
from stresstest.results.records import (
    RESULT_SCHEMA,
    Bracket,
    Cell,
    Finding,
    Result,
    SummaryRow,
    interval_rank,
    ratios,
    read_result,
    summarise,
)
from stresstest.results.sums import Summed, digest

BEYOND = 1e60  # stands for infinity: nothing that was measured comes near it
LOG = [name for name, metric in METRICS.items() if metric.scale == "log2"]
LINEAR = [name for name, metric in METRICS.items() if metric.scale == "linear"]


def exact(*values: float) -> dict[int, Bracket]:
    return {seed: Bracket.exactly(value) for seed, value in enumerate(values)}


def small_result() -> Result:
    stable = summarise("max_stable_lr", {0: Bracket(low=0.5, high=1.0), 1: Bracket(low=2.0, high=None)})
    cell = Cell(
        key="k0",
        variant="pre-ln",
        depth=6,
        seed=0,
        status="done",
        seconds=1.25,
        metrics={"max_stable_lr": Bracket(low=0.5, high=1.0), "onset_lr": Bracket(low=None, high=1e-4)},
        ramp={"outcome": "exploded", "curve": [[1e-4, 5.5], [0.1, 2.5]], "onset_lr": None},
        hold=[{"lr": 0.5, "outcome": "stable", "validation_loss": 1.5}],
    )
    return Result(
        schema_=RESULT_SCHEMA,
        command="lr-range",
        reproduce='stresstest lr-range --data "path:schema_.txt"',
        spec={"depth": 2, "seeds": [0, 1], "schema_": "not the schema"},
        rules={"level_window": 5},
        environment={"key": "here"},
        data={"hash": "abc"},
        cells=[cell, Cell(key="k1", variant="pre-ln", depth=6, seed=1, status="oom", error="line\nline")],
        summary=[
            SummaryRow(
                variant="pre-ln",
                depth=2,
                optimizer="adam",
                metrics={"max_stable_lr": stable},
                outcomes={"exploded": 1},
                times_weakest=stable,
                curve=[(1e-4, 5.5), (0.1, 2.5)],
            )
        ],
        findings=[Finding(kind="highest", subject="pre-ln", text="holds \u2265 0.5")],
    )


@pytest.mark.parametrize("n", range(1, 31))
def test_coverage_of_the_interval_is_the_exact_binomial_one(n: int) -> None:
    rank, coverage = interval_rank(n)
    assert 1 <= rank <= (n + 1) // 2
    assert coverage == pytest.approx(1 - 2 * binom.cdf(rank - 1, n, 0.5), abs=1e-12)
    assert coverage >= 0.9 or rank == 1
    if 2 * (rank + 1) <= n + 1:
        assert 1 - 2 * binom.cdf(rank, n, 0.5) < 0.9, "a narrower interval would have done"


@pytest.mark.parametrize("n", [1, 3, 5, 8, 13])
def test_the_interval_covers_a_simulated_median_as_often_as_stated(n: int) -> None:
    rank, coverage = interval_rank(n)
    drawn = np.sort(np.random.default_rng(n).lognormal(size=(20_000, n)), axis=1)
    covered = float(np.mean((drawn[:, rank - 1] <= 1.0) & (drawn[:, -rank] >= 1.0)))
    assert covered == pytest.approx(coverage, abs=0.012)


@pytest.mark.parametrize(("n", "coverage"), [(3, 0.75), (5, 0.9375)])
def test_the_range_of_three_seeds_covers_three_quarters_and_of_five_fifteen_sixteenths(n: int, coverage: float) -> None:
    assert interval_rank(n) == (1, coverage)


@pytest.mark.parametrize("metric", LOG)
def test_the_median_of_an_even_count_is_a_geometric_mean_for_learning_rates(metric: str) -> None:
    found = summarise(metric, exact(0.001, 0.02, 0.32, 9.0))
    assert found.median.low == pytest.approx(0.08)
    assert found.median.high == pytest.approx(0.08)
    assert (found.low, found.high, found.n, found.censored) == (0.001, 9.0, 4, 0)


@pytest.mark.parametrize("metric", LINEAR)
def test_the_median_of_an_even_count_is_an_arithmetic_mean_for_linear_metrics(metric: str) -> None:
    assert summarise(metric, exact(-3.0, 1.0, 2.0, 9.0)).median == Bracket.exactly(1.5)


def test_the_interval_of_eight_seeds_leaves_out_the_outermost() -> None:
    found = summarise("onset_lr", exact(*(2.0**k for k in range(8))))
    assert (found.low, found.high) == (2.0, 64.0)
    assert found.coverage == pytest.approx(1 - 2 * 9 / 256)


sides = st.one_of(st.none(), st.floats(1e-6, 1e3))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from([*LOG, *LINEAR]), st.lists(st.tuples(sides, sides), min_size=1, max_size=12))
def test_an_open_side_counts_as_beyond_all_numbers_and_never_becomes_one(
    metric: str, pairs: list[tuple[float | None, float | None]]
) -> None:
    found = summarise(metric, {seed: Bracket(low=low, high=high) for seed, (low, high) in enumerate(pairs)})
    far_below = 1 / BEYOND if metric in LOG else -BEYOND
    closed = summarise(
        metric,
        {
            seed: Bracket(low=far_below if low is None else low, high=BEYOND if high is None else high)
            for seed, (low, high) in enumerate(pairs)
        },
    )
    reach = 1e20
    for ours, bounded in ((found.median.low, closed.median.low), (found.low, closed.low)):
        assert bounded is not None
        open_below = bounded < (1 / reach if metric in LOG else -reach)
        assert (ours is None) == open_below
        assert ours is None or ours == pytest.approx(bounded)
    for ours, bounded in ((found.median.high, closed.median.high), (found.high, closed.high)):
        assert bounded is not None
        assert (ours is None) == (bounded > reach)
        assert ours is None or ours == pytest.approx(bounded)
    assert found.censored == sum(None in pair for pair in pairs)


def test_ratios_are_paired_by_seed_and_keep_an_open_side() -> None:
    def by_seed(**brackets: Bracket) -> dict[str, Bracket]:
        return {name.removeprefix("s"): bracket for name, bracket in brackets.items()}

    over = by_seed(s0=Bracket(low=4.0, high=8.0), s3=Bracket(low=0.5, high=None), s5=Bracket(low=None, high=1.0))
    over |= by_seed(s7=Bracket(low=1.0, high=2.0), s9=Bracket(low=9.0, high=9.0))
    under = by_seed(s7=Bracket(low=None, high=1.0), s5=Bracket(low=1.0, high=2.0), s3=Bracket(low=2.0, high=4.0))
    under |= by_seed(s0=Bracket(low=0.25, high=0.5))
    assert ratios(over, under) == {0: Bracket.exactly(16.0), 3: Bracket(low=0.25, high=None)}


def test_a_stored_result_comes_back_equal(tmp_path: Path) -> None:
    result = small_result()
    path = tmp_path / "result.json"
    path.write_text(result.to_json())
    assert read_result(path) == result
    assert read_result(path).to_json() == result.to_json()
    assert json.loads(result.to_json())["schema"] == RESULT_SCHEMA


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "stored").glob("*.json")), ids=lambda path: path.stem)
def test_the_parts_of_a_result_are_its_json_with_a_line_for_each_record(path: Path) -> None:
    lists = ("cells", "summary", "trends", "searches", "findings")
    for result in (whole := read_result(path), whole.model_copy(update={name: [] for name in lists})):
        parts = list(result.json_parts())
        stored = {key.rstrip("_"): value for key, value in json.loads(result.model_dump_json()).items()}
        assert list(json.loads("".join(parts)).items()) == list(stored.items())
        rows = [row for name in lists for row in stored[name]]
        lines = [line.removesuffix(",") for line in "".join(parts).splitlines() if line.startswith("  {")]
        assert [json.loads(line) for line in lines] == rows
        assert len(parts) == len(rows) + 2 * len(lists) + 1
        summed = Summed(parts)
        assert list(summed) == parts
        assert summed.digest == digest("".join(parts).encode())


def test_a_result_with_losses_that_are_not_finite_is_still_json(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lost = {"best_loss": math.inf, "last_loss": math.nan, "initial_loss": -math.inf}
    result = small_result()
    cell = result.cells[0].model_copy(update={"ramp": lost, "hold": [{"lr": 0.5, "validation_loss": math.nan}]})
    text = result.model_copy(update={"cells": [cell]}).to_json()
    json.loads(text, parse_constant=refuse)
    path = tmp_path / "result.json"
    path.write_text(text)
    assert read_result(path).to_json() == text


def changed(**updates: Any) -> bytes:
    return json.dumps(json.loads(small_result().to_json()) | updates).encode()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (small_result().to_json().encode()[:-40], "not a readable result"),
        (b"", "not a readable result"),
        (b"\x80\x02\x93NUMPY\x00\xff", "not a readable result"),
        (changed(schema="stresstest.result/2"), "'stresstest.result/2'"),
        (changed(schema=None), "None"),
        (b'{"runs": []}', "schema"),
        (b"[1, 2]", "schema"),
        (b'"text"', "schema"),
        (changed(summary=5), "summary"),
        (changed(cells=[{"key": 1}]), "cells.0"),
        (changed(extra=1), "extra"),
    ],
)
def test_a_file_that_is_no_result_is_one_clear_line_and_stays_as_it_is(
    tmp_path: Path, content: bytes, named: str
) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_result(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("place", ["nowhere.json", "nowhere/result.json", ""])
def test_a_result_that_is_not_there_is_one_clear_line(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_result(tmp_path / place)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / place) in str(caught.value)
