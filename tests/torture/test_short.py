"""The torture of the store, for a few seconds of each kind: the scripts beside this file have the long ones."""

from __future__ import annotations

import errno

from tests.torture.byte_changes import byte_changes
from tests.torture.failing_calls import failing_calls
from tests.torture.kills import kills
from tests.torture.malformed import malformed
from tests.torture.power_cuts import power_cuts
from tests.torture.stored import Tally
from tests.torture.two_drivers import clock_jumps, no_locks, two_drivers
from tests.torture.workers import one_run


def check(tally: Tally, at_least: int) -> None:
    assert tally.tries >= at_least
    assert tally.wrong == [], tally.line()


def test_kills_before_any_call_lose_nothing() -> None:
    tally = kills(25, seed=1)
    check(tally, 25)
    assert tally.counts["cells stored"] > 20


def test_power_cuts_at_any_call_lose_nothing() -> None:
    tally = power_cuts(60, seed=1)
    check(tally, 60)
    assert tally.counts["cells acknowledged"] > 200


def test_a_call_that_fails_ends_with_a_line_and_loses_nothing() -> None:
    tally = failing_calls((errno.ENOSPC, errno.EIO), every=4)
    check(tally, 20)
    assert tally.counts["ended with a line"] > 10


def test_a_changed_byte_is_told() -> None:
    tally = byte_changes(60, seed=1)
    check(tally, 60)
    assert tally.counts["told"] > 50


def test_deeds_of_a_models_code_are_told_and_felt_by_no_other_cell() -> None:
    tally = Tally("deeds")
    one_run(
        ("chdir", "environment", "warnings", "exit", "forks-and-returns"), here=False, mib=1, tally=tally, commands=1
    )
    check(tally, 5)


def test_two_drivers_at_once_lose_nothing() -> None:
    check(two_drivers(3, seed=1), 3)


def test_a_clock_that_jumps_loses_nothing() -> None:
    tally = clock_jumps(60, seed=1)
    check(tally, 60)
    assert tally.counts["anew"] > 5


def test_without_locks_a_run_is_refused_in_a_line() -> None:
    check(no_locks(), 14)


def test_malformed_files_and_options_end_with_a_line() -> None:
    tally = malformed(80, seed=1)
    check(tally, 80)
    assert tally.counts["ended with 2"] > 30
