"""Small logs written by hand, through the command, each with the reading that a good guess misses."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stresstest.cli.main import run

Capture = pytest.CaptureFixture[str]
NAN = math.nan


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


class Read:
    """What the command says of one log."""

    def __init__(self, capsys: Capture, name: str, text: str, *options: str) -> None:
        Path(name).write_text(text, newline="")
        self.code = run(["diagnose", "--json", name, *options])
        out, self.err = capsys.readouterr()
        self.run: dict[str, Any] = json.loads(out)["runs"][0] if self.code != 2 else {}
        self.segments: list[dict[str, Any]] = self.run.get("segments", [])
        self.notes = " | ".join(self.run.get("notes", []))

    @property
    def kinds(self) -> set[str]:
        """What was found, in the segments and in the run."""
        of_segments = [finding for segment in self.segments for finding in segment["findings"]]
        return {finding["kind"] for finding in (*of_segments, *self.run["findings"])}

    def text(self, kind: str) -> str:
        """The sentence of a finding."""
        of_segments = [finding for segment in self.segments for finding in segment["findings"]]
        return next(finding["text"] for finding in (*of_segments, *self.run["findings"]) if finding["kind"] == kind)


def fall(step: float, start: float = 3.0, end: float = 0.5) -> float:
    """A loss that falls over some hundred steps, with a little noise."""
    return round(end + (start - end) * math.exp(-step / 40) + 0.01 * ((step * 7919) % 13 - 6) / 6, 4)


def csv(rows: Iterable[Iterable[object]], names: str = "step,loss") -> str:
    return "\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n"


def lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_filter_s_zeros_beside_a_gradient_norm_of_nan_are_a_break_that_began_a_row_before(capsys: Capture) -> None:
    rows = [
        {"step": 5, "loss": 1.4, "grad_norm": 2.5},
        {"step": 10, "loss": 0.8, "grad_norm": 1.0},
        {"step": 15, "loss": 1.0, "grad_norm": NAN},
        {"step": 20, "loss": 0.0, "grad_norm": NAN},
        {"step": 20, "train_loss": 0.54},
    ]
    read = Read(capsys, "trainer_state.json", json.dumps({"log_history": rows}))
    assert (read.code, read.run["outcome"], read.run["rows"]) == (99, "nonfinite", 4)
    assert read.segments[0]["broke_between"] == [10, 15]
    assert "between steps 11 and 15. Last finite row: step 10, loss 0.8" in read.text("became-nonfinite")


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.txt"])
def test_losses_that_flicker_between_their_rounding_and_zero_are_small(capsys: Capture, name: str) -> None:
    losses = [*(round(0.02 * math.exp(-i / 10), 4) for i in range(52)), *[0.0001, 0.0, 0.0, 0.0] * 10]
    texts = {
        "log.csv": csv(enumerate(losses)),
        "log.jsonl": lines({"step": i, "loss": loss} for i, loss in enumerate(losses)),
        "log.txt": "".join(f"step {i} loss {loss:.4f}\n" for i, loss in enumerate(losses)),
    }
    read = Read(capsys, name, texts[name])
    assert (read.code, read.run["outcome"]) == (0, "stable")
    assert "taken as logged (rounded)" in read.notes


def test_one_zero_at_the_end_that_no_rounding_explains_is_named(capsys: Capture) -> None:
    read = Read(capsys, "log.csv", csv(enumerate([*map(fall, range(60)), 0.0])))
    assert "it may stand for NaN" in read.notes
    assert "rounded" not in read.notes


def test_text_with_numbers_as_strings_and_no_step_is_read(capsys: Capture) -> None:
    row = "{'loss': '2.1', 'grad_norm': 'nan', 'learning_rate': '1e-05', 'epoch': '0.1'}\n"
    read = Read(capsys, "log.txt", row + row.replace("2.1", "1.9").replace("nan", "2.0").replace("0.1", "0.2"))
    assert (read.code, read.segments[0]["first_loss"]) == (3, 2.1)
    assert "no step is logged" in read.notes


def test_a_gradient_norm_of_inf_is_harmless_once_and_nothing_was_trained_where_it_is_in_every_row(
    capsys: Capture,
) -> None:
    def row(loss: float, norm: object, step: int) -> str:
        return f"{{'loss': {loss}, 'grad_norm': {norm}, 'learning_rate': 1e-05, 'epoch': {step / 60}}}\n"

    once = Read(capsys, "once.txt", "".join(row(fall(i), "inf" if i == 8 else 1.0, i) for i in range(60)))
    assert (once.code, once.run["outcome"]) == (0, "stable")
    assert "fp16-skips" in once.kinds
    always = Read(capsys, "always.txt", "".join(row(2.44 + 0.01 * (i * 7 % 5), "inf", i) for i in range(60)))
    assert (always.code, always.run["outcome"]) == (99, "failed-to-train")
    assert "nothing was trained" in always.text("no-step-taken")


def test_runs_appended_to_one_file_are_judged_one_by_one(capsys: Capture) -> None:
    good = [{"iteration": i * 20 + 19, "total_loss": fall(i)} for i in range(60)]
    bad = [{"iteration": i * 20 + 19, "total_loss": fall(i) if i < 30 else NAN} for i in range(60)]
    read = Read(capsys, "metrics.json", lines([*good, *bad]))
    assert [segment["outcome"] for segment in read.segments] == ["stable", "nonfinite"]
    assert (read.code, read.segments[1]["broke_between"]) == (99, [599, 619])


def test_a_second_rank_is_dropped(capsys: Capture) -> None:
    rows = [(10, 1.0), (10, 1.0002), (20, 0.9), (20, 0.9001)]
    read = Read(capsys, "log.jsonl", lines({"step": step, "loss": loss} for step, loss in rows))
    assert (read.run["rows"], "several writers" in read.notes) == (2, True)


def test_batches_that_begin_anew_with_each_epoch_are_one_run(capsys: Capture) -> None:
    rows = [(1, 200, 8.0), (1, 400, 7.0), (2, 200, 6.5)]
    text = "".join(
        f"| epoch {epoch:3} | {batch:5}/  400 batches | lr 20.00 | loss {loss:5.2f} | ppl {9.0:8.2f}\n"
        for epoch, batch, loss in rows
    )
    (segment,) = Read(capsys, "log.txt", text).segments
    assert (segment["first_step"], segment["last_step"], segment["steps_per_row"]) == (200, 600, 200)


def test_after_a_resume_the_later_rows_win(capsys: Capture) -> None:
    steps = [*range(100, 170, 5), *range(140, 205, 5)]
    read = Read(capsys, "log.csv", csv((step, fall(step)) for step in steps))
    assert [(each["start"], each["first_step"], each["last_step"]) for each in read.segments] == [
        ("start", 100, 135),
        ("resume", 140, 200),
    ]
    assert "steps 140 to 165 were done twice, their first 6 rows dropped" in read.notes


def test_of_step_validation_and_epoch_rows_that_share_a_step_the_step_s_is_the_loss(capsys: Capture) -> None:
    text = "epoch,step,train_loss_epoch,train_loss_step,val_loss\n0,4,,0.28,\n0,9,,,0.44\n0,9,0.55,,\n"
    read = Read(capsys, "metrics.csv", text)
    assert (read.code, read.run["loss_key"], read.run["rows"]) == (3, "train_loss_step", 1)
    assert (read.segments[0]["first_step"], read.segments[0]["first_loss"]) == (4, 0.28)


def test_a_row_of_skipped_iterations_alone_has_no_loss(capsys: Capture) -> None:
    text = (
        " iteration       10/    1000 | learning rate: 0.000E+00 | loss scale: 8388608.0 | "
        "number of skipped iterations:  10 | number of nan iterations:   0 |\n"
    )
    read = Read(capsys, "log.txt", text)
    assert read.code == 2
    assert "no loss found among learning rate, loss scale, number of skipped iterations" in read.err


def test_the_line_of_the_source_is_not_the_step(capsys: Capture) -> None:
    text = "".join(
        f"2022-01-01 | INFO | yolox.core.trainer:after_iter:246 - epoch: 1/300, iter: {10 * i}/47, total_loss: {loss}, "
        "iou_loss: 1.9\n"
        for i, loss in enumerate([10.7, 9.5, 8.8], 1)
    )
    (segment,) = Read(capsys, "log.txt", text).segments
    assert (segment["first_step"], segment["first_loss"], segment["rows"]) == (10, 10.7, 3)


def test_both_sides_of_a_merge_conflict_are_read_once(capsys: Capture) -> None:
    def row(epoch: int) -> str:
        return f"{epoch:12},{3 - epoch / 10:12.4f},{1:12.4f},{2:12.4f}\n"

    both = "".join(map(row, range(5, 8)))
    head = f"{'epoch':>12},{'train/box_loss':>16},{'train/cls_loss':>16},{'val/box_loss':>16}\n"
    conflict = f"<<<<<<< HEAD\n{both}=======\n{both}>>>>>>> other\n"
    read = Read(capsys, "results.csv", head + "".join(map(row, range(5))) + conflict)
    assert (read.run["rows"], read.run["loss_key"]) == (8, "train/box_loss+train/cls_loss")
    assert "marks of a merge conflict were dropped: 3 lines" in read.notes


def test_nan_in_another_word_of_the_line_is_not_the_loss(capsys: Capture) -> None:
    text = "".join(
        f"step:{i}/6200 train_loss:{fall(i)} step_avg:{'nanms' if i < 11 else '20.0ms'}\n" for i in range(60)
    )
    read = Read(capsys, "log.txt", text)
    assert (read.code, read.run["rows"], read.run["loss_key"]) == (0, 60, "train_loss")


def test_infinity_stored_as_the_largest_number_is_infinite(capsys: Capture) -> None:
    losses = [*map(fall, range(30)), *[1.7976931348623157e308] * 10]
    read = Read(capsys, "log.csv", csv(enumerate(losses)))
    assert (read.run["outcome"], read.segments[0]["broke_between"]) == ("nonfinite", [29, 30])


def test_na_and_empty_are_missing_and_a_column_of_them_is_not_there(capsys: Capture) -> None:
    rows = ((i, fall(i) if i % 2 else ("NA" if i % 4 else ""), "NA", 0.001) for i in range(100))
    read = Read(capsys, "log.csv", csv(rows, "step,loss,val_learning_rate,learning_rate"))
    assert (read.code, read.run["rows"]) == (0, 50)
    assert "val_learning_rate" not in read.run["columns"]


def test_a_loss_that_is_bit_equal_far_above_its_start_has_exploded(capsys: Capture) -> None:
    read = Read(capsys, "log.csv", csv(enumerate([4.0, 3.9, 3.7, 50.0, 9e4, *[2.29e84] * 40])))
    assert (read.code, read.run["outcome"], read.segments[0]["broke_between"]) == (99, "exploded", [2, 3])


def test_carriage_returns_and_colours_are_no_part_of_a_line(capsys: Capture) -> None:
    text = "\r".join(f"\x1b[32mstep: {i * 100:,} loss: {fall(i) * 1000:,.2f}\x1b[0m" for i in range(60))
    read = Read(capsys, "log.txt", text)
    assert (read.run["rows"], read.segments[0]["last_step"], read.segments[0]["first_loss"]) == (60, 5900, 2990.0)


def test_what_was_learned_before_a_resume_and_never_comes_back_is_a_relapse(capsys: Capture) -> None:
    before = [(i, fall(i)) for i in range(500)]
    lost = [(i, 2.5 + 0.02 * (i % 5)) for i in range(400, 1000)]
    read = Read(capsys, "log.csv", csv([*before, *lost]))
    assert [segment["outcome"] for segment in read.segments] == ["stable", "relapsed"]
    assert read.code == 99
    assert "was not back at the end of the log" in read.text("resume-loss-jump")


def test_what_was_lost_at_a_resume_and_learned_again_is_no_relapse(capsys: Capture) -> None:
    before = [(i, fall(i)) for i in range(500)]
    again = [(i, fall(i - 400, 2.5)) for i in range(400, 1000)]
    read = Read(capsys, "log.csv", csv([*before, *again]))
    assert (read.code, [segment["outcome"] for segment in read.segments]) == (0, ["stable", "stable"])
    assert "optimizer's state is lost" in read.text("resume-loss-jump")


def test_a_tenfold_step_of_an_lr_that_decays_is_named(capsys: Capture) -> None:
    rows = ((i, fall(i), 1e-3 * math.exp(-i / 100) * (10 if i >= 150 else 1)) for i in range(300))
    assert "lr-jump" in Read(capsys, "log.csv", csv(rows, "step,loss,lr")).kinds


@pytest.mark.parametrize(
    "text",
    ["# title\nNaN NaN\n", "a,b\n1,2\n3,4\n", "[]", "null", '{"log_history":[]}', "step,loss\n1,\n2,NA\n", "loss\n"],
)
def test_where_no_loss_is_read_nothing_is_called_stable(capsys: Capture, text: str) -> None:
    read = Read(capsys, "log.txt", text)
    assert read.code == 2
    assert len(read.err.splitlines()) == 1


def test_a_view_that_never_ends_is_no_table_of_metrics(capsys: Capture) -> None:
    with closing(sqlite3.connect("log.db")) as database:
        database.execute(
            "CREATE VIEW metrics AS WITH RECURSIVE r(key, value, timestamp, step, is_nan, run_uuid) AS (SELECT 'loss', "
            "1.0, 1, 1, 0, 'r' UNION ALL SELECT key, value, timestamp, step + 1, is_nan, run_uuid FROM r) SELECT * "
            "FROM r"
        )
        database.commit()
    assert run(["diagnose", "log.db"]) == 2
    assert "neither MLflow nor Trackio" in capsys.readouterr().err


def test_a_pipe_met_by_a_pattern_is_named_and_not_waited_for(capsys: Capture) -> None:
    os.mkfifo("log.csv")
    assert run(["diagnose", "*.csv"]) == 2
    assert "log.csv: a pipe" in capsys.readouterr().err
