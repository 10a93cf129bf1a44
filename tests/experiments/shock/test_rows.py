"""Rows of shocks, and what is told apart seed by seed."""

from __future__ import annotations

import pytest

from stresstest.experiments.shock.contrasts import contrast
from stresstest.experiments.shock.naming import guard_of, of_shock
from stresstest.results.records import Bracket, Result, SummaryRow
from tests.experiments.shock.hand_made import NEVER, USUAL, WELL, Limits, of_cells, result_of, spec_of


def row(result: Result, variant: str, shock: str, guard: str = "") -> SummaryRow:
    return next(each for each in of_shock(result.summary, shock, guard) if each.variant == variant)


def test_there_is_a_row_a_variant_shock_and_guard_in_the_order_of_the_settings() -> None:
    runs = {(*key, guard): by_seed for key, by_seed in USUAL.items() for guard in ("clip-norm", "")}
    result = result_of(dict(reversed(runs.items())), guard="clip-norm")
    assert [(each.variant, each.point["shock"], guard_of(each)) for each in result.summary] == [
        (variant, shock, guard)
        for variant in ("pre-ln", "post-ln")
        for shock in ("lr-pulse", "lost-moments")
        for guard in ("", "clip-norm")
    ]


def test_a_row_counts_what_became_of_the_seeds_at_the_standard_dose() -> None:
    found = row(result_of(USUAL), "post-ln", "lr-pulse")
    assert found.outcomes == {"scarred": 1, "recovered": 2}
    assert {seed: (each.low, each.high) for seed, each in found.metrics["shock_tolerance"].per_seed.items()} == {
        "0": (4.0, 8.0),
        "1": (8.0, 16.0),
        "2": (8.0, 16.0),
    }


def test_a_seed_that_did_not_train_has_no_part_in_the_medians() -> None:
    found = row(result_of({("pre-ln", "lr-pulse"): [(16, 32), None, (16, 32)]}), "pre-ln", "lr-pulse")
    assert found.outcomes == {"recovered": 2, "untrained": 1}
    assert found.metrics["break_tolerance"].median == Bracket(low=16.0, high=32.0)


@pytest.mark.parametrize(
    ("first", "second", "side"),
    [
        ([(32, 64)] * 3, [(8, 16)] * 3, 1),
        ([(8, 16)] * 3, [(32, 64)] * 3, -1),
        ([(32, 64), (32, 64), (8, 16)], [(8, 16)] * 3, 0),  # one seed ties
        ([(32, 64)], [(8, 16)], 0),  # one seed tells nothing
        ([WELL] * 3, [WELL] * 3, 0),  # both lie beyond the doses
        ([WELL] * 3, [(8, 16)] * 3, 1),
        ([(8, 16)] * 3, [(2, 2)] * 3, 1),  # the smallest dose harms
        ([(32, 64), None, (32, 64)], [(8, 16), (64, 64), (8, 16)], 1),  # of the seeds that both have
    ],
)
def test_one_takes_more_where_every_seed_says_so(
    first: list[Limits | None], second: list[Limits | None], side: int
) -> None:
    result = result_of({("pre-ln", "lr-pulse"): first, ("post-ln", "lr-pulse"): second})
    found = contrast(
        row(result, "pre-ln", "lr-pulse"), row(result, "post-ln", "lr-pulse"), "shock_tolerance", result.cells
    )
    assert found is not None
    assert found.side == side


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ((32, 64), (8, 16), (4.0, 4.0)),  # 16 taken against 4
        ((8, 16), (8, 16), (1.0, 1.0)),
        (WELL, (16, 16), (64.0, None)),  # more than 1,024 against less than 16
        ((16, 16), WELL, (None, 1 / 64)),
        ((16, 32), (2, 2), (4.0, None)),  # 8 or more against less than 2
        ((2, 2), (16, 32), (None, 0.25)),
    ],
)
def test_the_ratio_of_two_tolerances_is_known_as_far_as_their_brackets_say(
    first: Limits, second: Limits, ratio: tuple[float | None, float | None]
) -> None:
    result = result_of({("pre-ln", "lr-pulse"): [first], ("post-ln", "lr-pulse"): [second]})
    found = contrast(
        row(result, "pre-ln", "lr-pulse"), row(result, "post-ln", "lr-pulse"), "shock_tolerance", result.cells
    )
    assert found is not None
    assert found.times is not None
    assert (found.times.median.low, found.times.median.high) == ratio


def test_shocks_of_one_dose_are_told_apart_by_what_became_of_the_runs() -> None:
    scar: Limits = (1, NEVER)
    result = result_of({("pre-ln", "lost-moments"): [WELL] * 3, ("post-ln", "lost-moments"): [scar] * 3})
    found = contrast(
        row(result, "pre-ln", "lost-moments"), row(result, "post-ln", "lost-moments"), "shock_tolerance", result.cells
    )
    assert found is not None
    assert (found.side, found.times) == (1, None)


def test_cells_of_a_boundary_and_those_without_a_result_have_no_row() -> None:
    result = result_of({("pre-ln", "lr-pulse"): [(16, 32)] * 2})
    lost = result.cells[1].model_copy(update={"status": "crashed", "metrics": {}, "shock": {}, "error": "no"})
    boundary = result.cells[0].model_copy(
        update={"point": {}, "shock": {}, "metrics": {"max_stable_lr": Bracket(low=1, high=2)}}
    )
    found = of_cells(spec_of(), [boundary, result.cells[0], lost])
    assert [each.outcomes for each in found.summary] == [{"recovered": 1}]
