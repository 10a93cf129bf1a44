"""Holds that others train ahead of a search: the same to the bit, and only what is asked for."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.experiments import training
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import Group, HoldAhead, Measured, do_task, train_cells
from stresstest.measurements import boundary
from stresstest.measurements.ahead import Ahead, Question, answer_ahead, asked_in
from stresstest.measurements.base import Bench, CellPlan
from stresstest.measurements.boundary import measure_boundary
from stresstest.measurements.journal import Journal

ANSWER: Any = {"an": "answer"}
FIRST, SECOND = Question(0, 0.25, 20), Question(0, 0.1, 20)
SPEC = LrRangeSpec(
    model="mlp", task="images", variant=("pre-ln",), depth=2, width=8, batch_size=8, seeds=(0, 1), num_steps=40,
    hold_steps=20, theory=False, hold_resolution="quarter-octave", lr_window=True,
)  # fmt: skip


def group(folder: Path | None = None) -> Group:
    cells = tuple(CellPlan(f"cell{seed}", "pre-ln", 2, seed) for seed in SPEC.seeds)
    return Group(SPEC, "cpu", cells, ahead="" if folder is None else str(folder))


def told(cells: Sequence[Measured]) -> list[Any]:
    """All that is stored of cells, but for what a clock says."""
    clocks = {"seconds": True, "probe_seconds": True, "metrics": {"seconds_per_step", "peak_bytes"}}
    return [one.cell.model_dump(exclude=clocks) for one in cells]


def counted_holds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many holds are trained at once here, round by round."""
    rounds: list[int] = []
    held = boundary.hold

    def count(bench: Bench, trials: Sequence[tuple[int, float]], num_steps: int) -> list[Any]:
        rounds.append(len(trials))
        return held(bench, trials, num_steps)

    monkeypatch.setattr(boundary, "hold", count)
    return rounds


def never() -> None:
    raise AssertionError("there is nobody to wait for")


def test_what_others_train_ahead_is_taken_over_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = train_cells(measure_boundary, group())
    trained = counted_holds(monkeypatch)

    class Answered(Ahead):
        """Whose every offer is trained at once, as by processes without end."""

        def offer(self, questions: Sequence[Question], at_hand: Sequence[Question]) -> None:
            super().offer(questions, at_hand)
            shared = group(tmp_path)
            assert shared.shared is not None
            assert asked_in(shared.shared) == list(questions)
            for question in questions:
                assert do_task(measure_boundary, HoldAhead(shared, question)) == []

    monkeypatch.setattr(training, "Ahead", Answered)
    beside = train_cells(measure_boundary, group(tmp_path))
    assert trained == [len(SPEC.seeds)], "the first question of each seed alone is trained here"
    assert told(beside) == told(alone)
    for one, other in zip(beside, alone, strict=True):
        assert one.curves.keys() == other.curves.keys()
        assert all(np.array_equal(one.curves[name], other.curves[name], equal_nan=True) for name in one.curves)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_where_rows_are_cheap_what_may_be_asked_next_is_tried_beside_and_what_is_not_asked_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = train_cells(measure_boundary, group())
    rounds = counted_holds(monkeypatch)
    train_cells(measure_boundary, group())
    one_by_one = len(rounds)
    rounds.clear()
    monkeypatch.setattr(Bench, "rows_are_cheap", True)
    assert told(train_cells(measure_boundary, group())) == told(alone)
    assert rounds[0] == 3 * len(SPEC.seeds)
    assert len(rounds) < one_by_one


def test_a_question_that_nobody_began_is_answered_at_home(tmp_path: Path) -> None:
    ahead = Ahead(tmp_path / "group")
    ahead.offer([SECOND], [FIRST])
    assert ahead.answer(FIRST, never) is None
    assert ahead.answer(SECOND, never) is None


def test_whoever_is_asked_waits_for_a_question_that_is_under_way_and_trains_it_where_the_other_died(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "group"
    ahead = Ahead(folder)
    ahead.offer([FIRST], [])
    begun = folder / f"{FIRST.name}.begun"
    begun.touch()
    waited: list[bool] = []
    with begun.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def wait() -> None:
            waited.append(True)
            if len(waited) == 3:  # it dies
                fcntl.flock(file, fcntl.LOCK_UN)

        assert ahead.answer(FIRST, wait) is None
    assert len(waited) == 3


def test_an_answer_is_there_though_a_process_that_was_forked_meanwhile_goes_on(tmp_path: Path) -> None:
    ahead = Ahead(tmp_path)
    ahead.offer([FIRST], [])
    copies: list[int] = []

    def train(journal: Journal) -> Any:
        (begun,) = tmp_path.glob("*.begun")
        copies.extend(os.dup(file) for file in range(256) if _is(file, begun))
        return ANSWER

    answer_ahead(tmp_path, FIRST, train)
    assert copies
    assert ahead.answer(FIRST, never) == ANSWER
    for copy in copies:
        os.close(copy)


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def test_whoever_is_asked_waits_no_longer_for_an_answer_that_gets_no_further(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("stresstest.measurements.ahead._PATIENCE_SECONDS", 0.1)
    ahead = Ahead(tmp_path)
    ahead.offer([FIRST], [])
    waited: list[float] = []

    def train(journal: Journal) -> Any:
        def wait() -> None:
            waited.append(time.monotonic())
            if waited[-1] - waited[0] < 0.3:
                journal.offer("", lambda: None)

        assert ahead.answer(FIRST, wait) is None  # it hangs from then on
        return ANSWER

    answer_ahead(tmp_path, FIRST, train)
    assert waited[-1] - waited[0] >= 0.3
    assert ahead.answer(FIRST, never) == ANSWER


@pytest.mark.parametrize("place", [0, 20, -1])
def test_an_answer_that_was_damaged_is_none(place: int, tmp_path: Path) -> None:
    ahead = Ahead(tmp_path)
    ahead.offer([FIRST], [])
    answer_ahead(tmp_path, FIRST, lambda journal: ANSWER)
    assert ahead.answer(FIRST, never) == ANSWER
    (path,) = tmp_path.glob("*.answer")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert ahead.answer(FIRST, never) is None
    path.write_bytes(b"")
    assert ahead.answer(FIRST, never) is None


def test_training_ends_once_the_search_has_gone_another_way(tmp_path: Path) -> None:
    folder = tmp_path / "group"
    ahead = Ahead(folder)
    ahead.offer([FIRST, SECOND], [])
    blocks: list[int] = []

    def train(journal: Journal) -> Any:
        for block in range(5):
            blocks.append(block)
            if block == 2:
                ahead.offer([SECOND], [])
            journal.offer("", lambda: None)

    answer_ahead(folder, FIRST, train)
    assert blocks == [0, 1, 2]
    assert ahead.answer(FIRST, never) is None


@pytest.mark.parametrize("content", ["", "{", '[{"seed": 1}]'])
def test_an_offer_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    assert asked_in(tmp_path) == []
    (tmp_path / "asked.json").write_text(content)
    assert asked_in(tmp_path) == []
