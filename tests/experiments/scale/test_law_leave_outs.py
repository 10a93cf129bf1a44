"""What the law says of sizes that it did not see."""

from __future__ import annotations

import pytest

from stresstest.experiments.scale.law.fit import Prediction, law
from stresstest.experiments.scale.law.leave_outs import LeaveOut, covers, leave_outs, reach, rolling
from stresstest.results.bracket import Bracket

SIZES = [32.0, 64.0, 128.0, 256.0, 512.0]
AHEAD = Prediction(size=512.0, octaves_ahead=1.0, low=0.25, median=0.5, high=1.0)


def falling(sizes: list[float]) -> list[list[Bracket]]:
    return [[Bracket(low=0.9 / size, high=1.1 / size)] * 2 for size in sizes]


def test_the_largest_sizes_are_left_out_as_long_as_three_remain() -> None:
    found = leave_outs(SIZES, falling(SIZES))
    assert [(each.size, len(each.fitted), each.octaves_ahead) for each in found] == [
        (512.0, 4, 1.0),
        (256.0, 3, 1.0),
        (512.0, 3, 2.0),
    ]
    assert all(each.inside == (True, True) for each in found)
    assert [len(each.fitted) for each in leave_outs(SIZES[:4], falling(SIZES[:4]))] == [3]
    assert leave_outs(SIZES[:3], falling(SIZES[:3])) == ()


def test_a_left_out_size_never_moves_what_is_said_of_it() -> None:
    cells = falling(SIZES)
    moved = [*cells[:4], [Bracket.exactly(100.0)]]
    before, after = leave_outs(SIZES, cells), leave_outs(SIZES, moved)
    assert [each.prediction for each in before] == [each.prediction for each in after]
    assert [each.inside for each in after] == [(False,), (True, True), (False,)]


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        (0.3, 0.4, True),
        (0.1, 0.5, False),  # its centre, 0.22
        (0.9, 1.2, False),
        (2.0, 2.0, False),
        (0.9, None, True),  # may lie just above
        (1.1, None, False),
        (None, 0.3, True),
        (None, 0.2, False),
        (None, None, None),
    ],
)
def test_inside_is_the_centre_and_of_one_side_what_it_leaves_open(
    low: float | None, high: float | None, inside: bool | None
) -> None:
    assert LeaveOut(AHEAD, (1.0, 2.0, 256.0), (Bracket(low=low, high=high),)).inside == (inside,)


def test_the_centre_is_the_geometric_mean() -> None:
    seeds = (Bracket(low=0.25, high=1.0), Bracket.exactly(0.3), Bracket(low=0.25, high=None))
    assert LeaveOut(AHEAD, (), seeds).centres == (pytest.approx(0.5), pytest.approx(0.3), None)


def test_no_size_is_named_farther_ahead_than_a_leave_out_has_looked() -> None:
    sizes = [32.0 * 2.0 ** (k / 2) for k in range(5)]
    found = leave_outs(sizes, falling(sizes))
    assert reach(found) == pytest.approx(1.0)
    assert covers(found, 1.0)
    assert not covers(found, 1.5)
    assert not covers((), 0.5)


def test_a_size_of_which_nothing_is_known_is_not_counted_from() -> None:
    cells = [*falling(SIZES[:4]), [Bracket(low=None, high=None)]]
    assert [(each.size, each.octaves_ahead) for each in leave_outs(SIZES, cells)] == [(256.0, 1.0)]
    assert leave_outs(SIZES, cells) == leave_outs(SIZES[:4], cells[:4])
    whole = law(SIZES, cells)
    assert whole is not None
    assert whole.predict(512.0).octaves_ahead == 1.0


def test_rolling_origins_look_up_to_two_octaves_ahead() -> None:
    found = rolling(SIZES, falling(SIZES))
    assert [(len(each.fitted), each.size) for each in found] == [(3, 256.0), (3, 512.0), (4, 512.0)]
    assert [each.size for each in rolling(SIZES, falling(SIZES), octaves=1.0)] == [256.0, 512.0]


def test_an_interval_is_widened_in_octaves() -> None:
    wide = AHEAD.widened(2.0)
    assert (wide.low, wide.median, wide.high) == pytest.approx((0.125, 0.5, 2.0))
    assert wide.octaves == pytest.approx(2.0 * AHEAD.octaves)
