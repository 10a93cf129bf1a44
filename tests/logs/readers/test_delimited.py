"""Tables of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.delimited import Delimited


def runs(folder: Path, text: str | bytes, name: str = "log.csv") -> list[RawLog]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    file = LogFile(path, name)
    assert Delimited().fits(file)
    return list(Delimited().read(file))


def run(folder: Path, text: str | bytes, name: str = "log.csv") -> RawLog:
    (only,) = runs(folder, text, name)
    return only


def pairs(log: RawLog, key: str) -> list[tuple[float, float]]:
    curve = log.curves[key]
    return list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))


@pytest.mark.parametrize("name", ["log.csv", "log.txt"])
@pytest.mark.parametrize(
    "text",
    [
        "step,loss\n1,2.5\n2,2.25\n3,2\n",
        "step;loss\r\n1;2,5\r\n2;2,25\r\n3;2,0\r\n",
        "step\tloss\n1\t2.5\n2\t2.25\n3\t2\n",
        "step|loss\n1|2.5\n2|2.25\n3|2\n",
        "| step | loss |\n|------|:----:|\n| 1 | 2.5 |\n| 2 | 2.25 |\n| 3 | 2 |\n",
        "  step    loss\n     1    2.5\n     2   2.25\n     3      2\n",
        "# step loss\n1.0e+00 2.5e+00\n2.0e+00 2.25e+00\n3.0e+00 2.0e+00\n",
        '\ufeff"step","loss"\n"1","2.5"\n"2","2.25"\n"3","2"\n',
        "step, loss\r1, 2.5\r2, 2.25\r3, 2\r",
        "# a run of Monday\n\nstep,loss,\n1,2.5,\n2,2.25,\n3,2,\n",
    ],
)
def test_a_table_is_read_whatever_its_delimiter(tmp_path: Path, name: str, text: str) -> None:
    assert pairs(run(tmp_path, text, name), "loss") == [(1, 2.5), (2, 2.25), (3, 2)]


def test_thousands_are_no_decimals(tmp_path: Path) -> None:
    log = run(tmp_path, 'step,loss\n"1,000","1,234.5"\n"2,000",7\n')
    assert pairs(log, "loss") == [(1000, 1234.5), (2000, 7)]


def test_a_decimal_comma_holds_for_the_whole_file(tmp_path: Path) -> None:
    log = run(tmp_path, "step;loss\n1;1,5\n2;1,234\n")
    assert pairs(log, "loss") == [(1, 1.5), (2, 1.234)]
    assert "decimal mark" in " ".join(log.notes)


def test_a_header_in_the_middle_is_no_row(tmp_path: Path) -> None:
    log = run(tmp_path, "step,loss\n1,3\n2,2\nstep,loss\n1,3.5\n2,2.5\n")
    assert pairs(log, "loss") == [(1, 3), (2, 2), (1, 3.5), (2, 2.5)]
    assert log.notes == ("the header is repeated 1 time: the file was continued",)


def test_another_header_in_the_middle_names_the_rows_below_it(tmp_path: Path) -> None:
    log = run(tmp_path, "step,loss\n1,3\n2,2\nstep,lr,loss\n3,0.1,1\n4,0.1,0.5\n")
    assert pairs(log, "loss") == [(1, 3), (2, 2), (3, 1), (4, 0.5)]
    assert pairs(log, "lr") == [(3, 0.1), (4, 0.1)]


def test_marks_of_a_merge_conflict_are_dropped_and_rows_of_both_sides_kept_once(tmp_path: Path) -> None:
    text = "step,loss\n1,3\n<<<<<<< HEAD\n2,2\n3,1\n=======\n2,2\n3,1\n4,0.5\n>>>>>>> 41feda3\n5,0.25\n"
    log = run(tmp_path, text)
    assert pairs(log, "loss") == [(1, 3), (2, 2), (3, 1), (4, 0.5), (5, 0.25)]
    assert log.notes == ("marks of a merge conflict were dropped: 3 lines; 2 rows of both sides were kept once",)


def test_a_conflict_around_the_header_leaves_a_table(tmp_path: Path) -> None:
    log = run(tmp_path, "<<<<<<< HEAD\nstep,loss\n1,3\n=======\nstep,loss\n1,3\n2,2\n>>>>>>> b\n")
    assert pairs(log, "loss") == [(1, 3), (2, 2)]


def test_a_last_row_that_was_cut_is_dropped(tmp_path: Path) -> None:
    log = run(tmp_path, "step,loss,lr\n1,3,0.1\n2,2,0.1\n3,1.")
    assert pairs(log, "loss") == [(1, 3), (2, 2)]
    assert log.notes == ("the last line is cut short and was dropped",)


def test_a_short_row_in_the_middle_is_dropped_and_counted(tmp_path: Path) -> None:
    log = run(tmp_path, "step,loss,lr\n1,3,0.1\n2\n3,1,0.1\n4,1,0.1\n")
    assert pairs(log, "loss") == [(1, 3), (3, 1), (4, 1)]
    assert log.notes == ("1 line could not be read and was dropped",)


def test_columns_without_a_header_are_named_by_position(tmp_path: Path) -> None:
    log = run(tmp_path, "1,3.5\n2,2.5\n3,1.5\n")
    assert log.curves["column 2"].value.tolist() == [3.5, 2.5, 1.5]
    assert "no header" in log.notes[0]


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    assert run(tmp_path, "loss\n3.5\n2.5\n").curves["loss"].value.tolist() == [3.5, 2.5]


def test_an_epoch_counts_rows_that_name_no_step_unless_it_repeats(tmp_path: Path) -> None:
    assert pairs(run(tmp_path, "epoch,train_loss\n1,3\n2,2\n"), "train_loss") == [(1, 3), (2, 2)]
    batches = run(tmp_path, "epoch,train_loss\n1,3\n1,2\n1,1\n2,0.5\n2,0.4\n")
    assert np.isnan(batches.curves["train_loss"].step).all()


@pytest.mark.parametrize("header", ["Unnamed: 0,loss", ",loss", "index,loss", '"",loss', ",0"])
def test_the_index_that_pandas_writes_counts_the_rows(tmp_path: Path, header: str) -> None:
    log = run(tmp_path, f"{header}\n0,3\n1,2\n2,1\n")
    assert pairs(log, header.split(",")[1]) == [(0, 3), (1, 2), (2, 1)]


def test_validation_rows_do_not_mix_with_train_rows(tmp_path: Path) -> None:
    log = run(tmp_path, "step,split,loss\n1,train,3\n1,val,3.2\n2,train,2\n2,val,2.2\n")
    assert pairs(log, "loss") == [(1, 3), (2, 2)]
    assert pairs(log, "val/loss") == [(1, 3.2), (2, 2.2)]


LIGHTNING = """epoch,lr-AdamW,step,train_loss_epoch,train_loss_step,val_loss
0,,4,,0.28,
,0.01,5,,,
0,,9,,,0.44
0,,9,0.55,,
"""


def test_lightning_holes_are_missing_and_its_step_loss_is_one_batch(tmp_path: Path) -> None:
    log = run(tmp_path, LIGHTNING, "metrics.csv")
    assert log.format == "Lightning CSV"
    assert pairs(log, "train_loss_step") == [(4, 0.28)]
    assert pairs(log, "val_loss") == [(9, 0.44)]
    assert (log.facts.roles["loss"], log.facts.roles["lr"]) == ("train_loss_step", "lr-AdamW")
    assert (log.facts.row_kind, log.facts.step_base) == ("sample", 0)


def test_lightning_of_old_sorts_its_columns(tmp_path: Path) -> None:
    log = run(tmp_path, "a_loss,epoch,mean_loss,step\n1,0,4,0\n1,1,nan,1\n", "metrics.csv")
    assert log.format == "Lightning CSV"
    assert [step for step, _ in pairs(log, "mean_loss")] == [0, 1]


def test_keras_columns_that_no_one_logged_are_not_there(tmp_path: Path) -> None:
    header = "epoch,learning_rate,loss,val_learning_rate,val_loss"
    log = run(tmp_path, f"{header}\n0,0.01,26.9,NA,NA\n1,0.005,inf,NA,NA\n2,0.005,nan,NA,NA\n")
    assert log.format == "Keras CSV"
    assert set(log.curves) == {"epoch", "learning_rate", "loss"}
    assert log.facts.roles["lr"] == "learning_rate"
    np.testing.assert_array_equal(log.curves["loss"].value, [26.9, np.inf, np.nan])


def test_a_keras_file_that_was_appended_to_keeps_both_runs(tmp_path: Path) -> None:
    log = run(tmp_path, "epoch,loss\n0,3\n1,2\n0,3.5\n1,2.5\n")
    assert pairs(log, "loss") == [(0, 3), (1, 2), (0, 3.5), (1, 2.5)]


YOLO = """   epoch, train/box_loss, train/cls_loss, metrics/precision(B), val/box_loss, val/cls_loss, lr/pg0, lr/pg1
       1,    1.5,      2.5,     0.3,     1.0,       2.0,       0.07,    0.001
       2,    1.0,      nan,     0.4,     1.0,       1.5,       0.04,    0.002
"""


def test_yolo_adds_the_parts_of_its_loss_and_takes_the_lr_that_warms_up(tmp_path: Path) -> None:
    log = run(tmp_path, YOLO, "results.csv")
    assert log.format == "YOLO results.csv"
    assert log.facts.roles["loss"] == "train/box_loss+train/cls_loss"
    np.testing.assert_array_equal(log.curves["train/box_loss+train/cls_loss"].value, [4.0, np.nan])
    assert pairs(log, log.facts.roles["validation"]) == [(1, 3.0), (2, 2.5)]
    assert log.facts.roles["lr"] == "lr/pg1"


CHART = """"Step","a - b - train/loss","a - b - train/loss__MIN","a - b - train/loss__MAX","c - train/loss"
"0","3.5","3.5","3.5",""
"10","2.5","2.5","2.5","3.0"
"""


def test_a_chart_of_wandb_is_a_run_for_each_of_its_lines(tmp_path: Path) -> None:
    first, second = runs(tmp_path, CHART)
    assert (first.format, first.name, second.name) == ("W&B chart", "a - b", "c")
    assert set(first.curves) == {"train/loss"}
    assert pairs(first, "train/loss") == [(0, 3.5), (10, 2.5)]
    assert pairs(second, "train/loss") == [(10, 3.0)]


def test_a_history_of_wandb_counts_by_the_trainers_own_step(tmp_path: Path) -> None:
    text = "_runtime,_step,_timestamp,train/global_step,train/loss\n1,0,1700000000,100,3\n2,1,1700000001,200,2\n"
    log = run(tmp_path, text)
    assert log.format == "W&B history"
    assert pairs(log, "train/loss") == [(100, 3), (200, 2)]


def test_a_table_of_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a table of runs, one row each, holds no curve"):
        runs(tmp_path, '"Name","State","Created","loss"\n"a","finished","2026-01-01","2.5"\n')


def test_one_number_a_row_is_a_curve_for_each_metric_of_each_run(tmp_path: Path) -> None:
    text = "run_id,key,value,step,timestamp\nr1,loss,3,0,17\nr1,lr,0.1,0,17\nr1,loss,2,1,18\nr2,loss,5,0,19\n"
    first, second = runs(tmp_path, text)
    assert (first.name, second.name) == ("r1", "r2")
    assert pairs(first, "loss") == [(0, 3), (1, 2)]
    assert pairs(first, "lr") == [(0, 0.1)]


def test_runs_in_one_table_are_told_apart_by_their_column(tmp_path: Path) -> None:
    first, second = runs(tmp_path, "run_name,step,loss\na,0,3\nb,0,4\na,1,2\nb,1,3\n")
    assert (first.name, second.name) == ("a", "b")
    assert (pairs(first, "loss"), pairs(second, "loss")) == ([(0, 3), (1, 2)], [(0, 4), (1, 3)])


def test_tensorboards_download_has_its_tag_in_its_name(tmp_path: Path) -> None:
    text = "Wall time,Step,Value\n1700000000.1,0,3\n1700000001.1,10,2\n"
    assert pairs(run(tmp_path, text, "run-a-tag-train_loss.csv"), "train_loss") == [(0, 3), (10, 2)]


def test_catboost_errors_are_rounds_of_the_loss_function(tmp_path: Path) -> None:
    log = run(tmp_path, "iter\tRMSE\tMAE\n0\t3.5\t2\n1\t2.5\t1\n", "learn_error.tsv")
    assert (log.format, log.facts.roles["loss"]) == ("catboost errors", "RMSE")
    assert pairs(log, "RMSE") == [(0, 3.5), (1, 2.5)]


@pytest.mark.parametrize(
    ("text", "name", "loss"),
    [
        ("iter\tlr\tloss\n0\t0.1\t3\n1\t0.2\t2\n", "own.tsv", None),
        ("iter\tPassed\tRemaining\n0\t62\t3688\n1\t63\t1833\n", "time_left.tsv", None),
        ("iter\tAUC\tLogloss\n0\t0.5\t0.7\n1\t0.6\t0.6\n", "test_error.tsv", "Logloss"),
    ],
)
def test_a_table_by_iter_is_catboosts_only_if_it_holds_its_metrics(
    text: str, name: str, loss: str | None, tmp_path: Path
) -> None:
    assert run(tmp_path, text, name).facts.roles.get("loss") == loss


def test_prose_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("We trained it on Monday.\nThe loss fell, then rose.\nNobody knows why, so far.\n")
    assert not Delimited().fits(LogFile(path, "notes.txt"))


def test_a_csv_without_columns_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.csv: not a table"):
        runs(tmp_path, "hello\nworld\n")


def test_blocks_join_without_a_seam(tmp_path: Path) -> None:
    rows = "".join(f"{step},{step / 2}\n" for step in range(70_000))
    log = run(tmp_path, "step,loss\n" + rows)
    assert log.curves["loss"].step.tolist() == list(range(70_000))
    assert log.curves["loss"].value[-1] == 34999.5


def test_a_header_alone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a header \(step, loss\) and no row below it"):
        runs(tmp_path, "step,loss\n")


def test_a_table_that_windows_wrote_in_utf_16_is_read(tmp_path: Path) -> None:
    log = run(tmp_path, "step,loss\r\n1,3\r\n2,2\r\n3,1\r\n".encode("utf-16"))
    assert pairs(log, "loss") == [(1, 3), (2, 2), (3, 1)]


def test_the_print_of_a_pandas_frame_is_a_table(tmp_path: Path) -> None:
    log = run(tmp_path, "   step  loss\n0     1   3.0\n1     2   NaN\n2     3   1.0\n", "frame.txt")
    assert log.curves["loss"].step.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(log.curves["loss"].value, [3, np.nan, 1])
