"""What to try: from what was seen, at most three, and every command parses."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

import numpy as np
import pytest

from stresstest.cli.commands import cli
from stresstest.diagnosis.course import Course, SpikeRows
from stresstest.diagnosis.findings import what_to_try
from stresstest.logs.segments import Log
from tests.diagnosis.findings.building import course, falling, log, segment

ROWS, BREAK = 60, 40
BROKEN = np.where(np.arange(ROWS) < BREAK, falling(ROWS), 12.0)
WARMUP = 1e-3 * np.minimum(1, np.arange(1, ROWS + 1) / (BREAK - 1))
WARMUP[BREAK + 1 :] *= 0.9
SPIKE = SpikeRows(20, 23, 1.5, 6.0, recovered=True)

CASES: dict[str, tuple[Log, Course]] = {
    "exploded": (log(segment(BROKEN, lr=np.full(ROWS, 4e-4))), course("exploded", BREAK)),
    "exploded after warm-up": (log(segment(BROKEN, lr=WARMUP)), course("exploded", BREAK)),
    "exploded, no LR": (log(segment(BROKEN)), course("exploded", BREAK)),
    "exploded at once": (log(segment(BROKEN, lr=np.full(ROWS, 4e-4))), course("exploded", 2)),
    "nonfinite from the first row": (log(segment([math.nan] * 9, lr=[1.0] * 9)), course("nonfinite", 0)),
    "never learned": (log(segment(np.full(ROWS, 2.0))), course("failed-to-train")),
    "spiked": (log(segment(falling(ROWS), lr=np.full(ROWS, 4e-4))), course("spiked", None, SPIKE)),
    "ambiguous": (log(segment(falling(ROWS)), columns=("loss", "my 'gen' loss")), course(None)),
}


def commands(tries: Sequence[str]) -> list[list[str]]:
    return [shlex.split(text.partition("stresstest ")[2]) for text in tries if "stresstest " in text]


def tried(name: str) -> tuple[str, ...]:
    whole, of = CASES[name]
    return what_to_try(whole, (of,))


@pytest.mark.parametrize("name", CASES)
def test_there_are_one_to_three_steps_and_every_command_parses(name: str) -> None:
    tries = tried(name)
    assert 1 <= len(tries) <= 3
    for args in commands(tries):
        with cli.make_context("stresstest", args) as context:
            command = cli.get_command(context, args[0])
            assert command is not None
            command.make_context(args[0], args[1:], parent=context)


def test_a_lower_peak_is_half_of_the_lr_at_the_break() -> None:
    assert "before step 41" in tried("exploded")[0]
    assert "at most 0.0002" in tried("exploded")[0]


def test_a_ramp_passes_the_lr_of_the_break() -> None:
    (args,) = commands(tried("exploded"))
    start, end = (float(args[args.index(option) + 1]) for option in ("--start-lr", "--end-lr"))
    assert start < 4e-4 < end


def test_a_break_after_warmup_gets_the_map_of_warmups_and_another_does_not() -> None:
    assert [args[0] for args in commands(tried("exploded after warm-up"))] == ["lr-range", "warmup"]
    assert [args[0] for args in commands(tried("exploded"))] == ["lr-range"]


def test_a_break_in_the_first_rows_has_no_checkpoint_before_it() -> None:
    assert tried("exploded at once")[0].startswith("Start again")


def test_a_run_that_had_learned_nothing_has_no_checkpoint_worth_resuming() -> None:
    losses = np.where(np.arange(ROWS) < BREAK, 3.0, 12.0)
    tries = what_to_try(log(segment(losses, lr=np.full(ROWS, 4e-4))), (course("exploded", BREAK),))
    assert tries[0].startswith("Start again")


def test_the_batches_of_a_spike_that_lasts_are_not_to_be_skipped() -> None:
    long = SpikeRows(20, 50, 1.5, 6.0, recovered=False)
    assert not any("skip" in text for text in what_to_try(log(segment(falling(ROWS))), (course("spiked", None, long),)))


def test_a_spike_names_the_batches_to_skip() -> None:
    assert "skip the batches of steps 21 to 24" in tried("spiked")[0]


def test_spikes_in_a_stable_run_need_no_step() -> None:
    assert what_to_try(log(segment(falling(ROWS))), (course("stable", None, SPIKE),)) == ()


def test_a_loss_that_was_not_clear_gets_the_option_that_names_another() -> None:
    assert commands(tried("ambiguous"))[-1] == ["diagnose", "run.log", "--metric", "my 'gen' loss"]


def test_nothing_is_tried_after_a_stable_run() -> None:
    assert what_to_try(log(segment(falling(ROWS), lr=WARMUP)), (course(),)) == ()


def test_a_run_in_which_no_step_was_taken_is_not_told_to_lower_its_lr() -> None:
    flat = 2.44 + 0.01 * np.random.default_rng(0).normal(size=ROWS)
    tries = what_to_try(log(segment(flat, grad_norm=np.full(ROWS, math.inf))), (course("flat"),))
    assert len(tries) == 1
    assert "bfloat16" in tries[0]


def test_the_checkpoint_is_from_before_the_explosion_and_not_from_before_the_nan() -> None:
    losses = falling(ROWS)
    losses[BREAK:] = 1e9
    losses[BREAK + 5 :] = math.nan
    assert "before step 41" in what_to_try(log(segment(losses)), (course("nonfinite", BREAK + 5),))[0]


def test_a_log_too_short_or_with_validation_alone_gets_no_other_name() -> None:
    short = log(segment(falling(4)), columns=("loss", "gen loss"))
    validation = log(segment(falling(ROWS)), columns=("loss", "val_loss", "train_loss_epoch"))
    assert what_to_try(short, (course(None),)) == what_to_try(validation, (course(None),)) == ()
