"""What programs print is read: each tool's form, in lines written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.text import Text
from stresstest.logs.readers.text.rows import Rows


def read(tmp_path: Path, text: str | bytes, name: str = "train.log") -> RawLog:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    file = LogFile(path, name)
    assert Text().fits(file)
    (raw,) = Text().read(file)
    return raw


def loss_of(raw: RawLog) -> Curve:
    return raw.curves[raw.facts.roles["loss"]]


def rows_of(raw: RawLog) -> list[tuple[float, float]]:
    curve = loss_of(raw)
    return list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))


def test_trainer_rows_are_those_with_a_loss_and_have_no_step(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "{'loss': 2.75, 'grad_norm': 1.5, 'learning_rate': 5e-05, 'epoch': 0.01}\n"
        "{'loss': 2.5, 'grad_norm': nan, 'learning_rate': 4e-05, 'epoch': 0.01}"
        " 40%|####      | 4/10 [00:03<00:05,  1.2it/s]\n"
        "{'eval_loss': 2.25, 'eval_runtime': 1.5, 'epoch': 0.01}\n"
        "{'loss': 2.0, 'grad_norm': inf, 'learning_rate': 3e-05, 'epoch': 0.02}\n"
        "{'train_runtime': 9.5, 'train_loss': 2.4, 'epoch': 0.02}\n",
    )
    assert raw.format == "transformers Trainer stdout"
    assert (raw.facts.row_kind, raw.facts.zero_for_nan) == ("mean", True)
    assert loss_of(raw).value.tolist() == [2.75, 2.5, 2.0]
    assert np.isnan(loss_of(raw).step).all()
    assert raw.curves["eval_loss"].value.tolist() == [2.25]
    norms = raw.curves["grad_norm"].value
    assert np.array_equal(norms, [1.5, np.nan, np.inf], equal_nan=True)


def test_trainer_of_version_5_prints_strings(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "{'loss': '3.25', 'grad_norm': '1.5', 'learning_rate': '1e-05', 'epoch': '0.03125'}\n"
        "{'loss': '0', 'grad_norm': 'nan', 'learning_rate': '1e-05', 'epoch': '1'}\n",
    )
    assert loss_of(raw).value.tolist() == [3.25, 0.0]
    assert np.isnan(raw.curves["grad_norm"].value[1])


def test_a_line_in_no_known_form_is_read_by_its_words(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "2024-01-02 03:04:05,678 INFO train.py:88 - starting on 8 GPUs, seed 1234\n"
        "2024-01-02 03:04:06,678 INFO train.py:93 - step 1,000 of 4,000 (25%): loss 3.5, lr 1.0e-04, eta 1:20\n"
        "2024-01-02 03:04:07,678 INFO train.py:93 - step 2,000 of 4,000 (50%): loss 3.25, lr 2.0e-04, eta 0:40\n",
    )
    assert raw.format == "printed text"
    assert rows_of(raw) == [(1000, 3.5), (2000, 3.25)]
    assert raw.curves["lr"].value.tolist() == [1e-4, 2e-4]
    assert raw.facts.planned_steps == 4000


def test_a_header_above_gives_the_epoch(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "Epoch 4/20\nTrain Loss: 5.5 - Train Perplexity: 244.7\nValid Loss: 5.75 - Valid Perplexity: 314.2\n"
        "Epoch 5/20\nTrain Loss: 5.25 - Train Perplexity: 190.6\nValid Loss: 5.5 - Valid Perplexity: 244.7\n",
    )
    assert rows_of(raw) == [(4, 5.5), (5, 5.25)]
    assert raw.curves["Valid Loss"].step.tolist() == [4, 5]


def test_several_numbers_of_one_step_may_stand_on_lines_of_their_own(tmp_path: Path) -> None:
    raw = read(tmp_path, "step 10\n  loss: 3.5\n  grad_norm: 1.5\nstep 20\n  loss: 3.0\n  grad_norm: 1.25\n")
    assert rows_of(raw) == [(10, 3.5), (20, 3.0)]
    assert raw.curves["grad_norm"].step.tolist() == [10, 20]


def test_evaluations_are_validation_whatever_their_numbers_are_called(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "Epoch 1 train: loss 2.5 acc 0.1\nEpoch 1 test: loss 2.75 acc 0.1\n"
        "Epoch 2 train: loss 2.25 acc 0.2\nEpoch 2 test: loss 2.5 acc 0.2\n",
    )
    assert rows_of(raw) == [(1, 2.5), (2, 2.25)]
    assert raw.curves["val loss"].value.tolist() == [2.75, 2.5]


def test_a_host_called_test_makes_no_validation(tmp_path: Path) -> None:
    raw = read(tmp_path, "node-test-1 /test/run.py: step 1 loss 3.5\nnode-test-1 /test/run.py: step 2 loss 3.0\n")
    assert rows_of(raw) == [(1, 3.5), (2, 3.0)]


@pytest.mark.parametrize(
    "prefixes",
    [
        ("[rank0]: ", "[rank1]: "),
        ("[Rank:0] ", "[Rank:1] "),
        ("0: ", "1: "),
        ("(RayTrainWorker pid=71, ip=10.0.0.1) ", "(RayTrainWorker pid=72, ip=10.0.0.2) "),
    ],
)
def test_ranks_before_lines_become_a_column(prefixes: tuple[str, str], tmp_path: Path) -> None:
    lines = [f"{prefix}step {step} loss {4 - step / 4}\n" for step in (1, 2, 3) for prefix in prefixes]
    raw = read(tmp_path, "".join(lines))
    assert raw.curves[raw.facts.roles["rank"]].value.tolist() == [0, 1, 0, 1, 0, 1]
    assert loss_of(raw).step.tolist() == [1, 1, 2, 2, 3, 3]


def test_a_word_in_a_name_is_no_nan(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "step 1 loss 3.5 number of nan iterations: 0 step_avg:nanms\n"
        "step 2 loss nan number of nan iterations: 1 step_avg:12ms\n",
    )
    assert np.array_equal(loss_of(raw).value, [3.5, np.nan], equal_nan=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_text_in_any_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    text = "".join(f"Époque d'essai: step {step} loss {4 - step / 4}\r\n" for step in (1, 2, 3))
    raw = read(tmp_path, text.encode(encoding))
    assert rows_of(raw) == [(1, 3.75), (2, 3.5), (3, 3.25)]


def test_a_line_cut_in_the_middle_is_left_out(tmp_path: Path) -> None:
    raw = read(tmp_path, "step 1 loss 3.5 lr 0.1\nstep 2 loss 3.25 lr 0.1\nstep 3 lo")
    assert rows_of(raw) == [(1, 3.5), (2, 3.25)]


def test_a_table_pasted_into_markdown_is_read(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "# Runs\n\nAt 3 in the morning the loss was 4.\n\n| step | train loss | val loss |\n|---:|---:|---:|\n"
        "| 100 | 4.5 | 4.75 |\n| 200 | 4.0 | - |\n| 300 | 3.5 | 3.75 |\n\nThe end.\n",
        "notes.md",
    )
    assert rows_of(raw) == [(100, 4.5), (200, 4.0), (300, 3.5)]
    assert raw.curves["val loss"].step.tolist() == [100, 300]


def test_bits_and_nats_are_not_mixed(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "step 0: train loss 4.0, val loss 4.0\niter 0: loss 5.75, time 10.0ms, mfu 1%\n"
        "iter 10: loss 5.5, time 10.0ms, mfu 1%\nstep 20: train loss 3.75, val loss 3.75\n"
        "iter 20: loss 5.25, time 10.0ms, mfu 1%\n",
    )
    assert loss_of(raw).value.tolist() == [5.75, 5.5, 5.25]


def test_a_crash_at_the_end_is_a_note(tmp_path: Path) -> None:
    rows = "".join(f"step {step} loss {4 - step / 10}\n" for step in range(20))
    raw = read(tmp_path, rows + "Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory.\n")
    assert any("out of memory" in note for note in raw.notes)
    quiet = read(tmp_path, "GPU memory: see /opt/lib/memory.py and out_of_memory.py\n" + rows, "quiet.log")
    assert quiet.notes == ()


def test_skipped_steps_are_counted(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "step 1 loss 3.5\n[deepspeed] OVERFLOW! Rank 0 Skipping step. Scale: 65536, reducing to 32768\n"
        "step 2 loss 3.25\n[deepspeed] OVERFLOW! Rank 0 Skipping step. Scale: 32768, reducing to 16384\n",
    )
    assert rows_of(raw) == [(1, 3.5), (2, 3.25)]
    assert any(note.startswith("2 lines say that a step was skipped") for note in raw.notes)


def test_a_text_without_a_loss_says_what_it_has(tmp_path: Path) -> None:
    raw = read(tmp_path, "step 1 reward 0.5\nstep 2 reward 0.75\nWe got a loss of 3.2 in 2023.\n")
    assert "loss" not in raw.facts.roles
    assert "reward" in raw.curves


def test_a_setting_is_no_row(tmp_path: Path) -> None:
    raw = read(tmp_path, "initial_loss_scale .... 65536\nloss_weight: 0.5\nbest loss: 0.1\nval_loss_every: 125\n")
    assert "loss" not in raw.facts.roles


def test_a_large_log_is_read_in_bounded_memory() -> None:
    rows = Rows(measured=(1,), step_at=0, cells=20_000)
    for step in range(100_000):
        rows.add([float(step), 50.0 if step == 77_777 else 1.0 + step % 2], step)
    block, places = rows.table()
    assert 0 < block.size <= 40_000
    assert (np.diff(block[:, 0]) > 0).all()
    assert block[:, 1].max() == 50.0
    assert len(places) == len(block)


def test_an_abbreviated_val_is_validation(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "Epoch: 01 | Epoch Time: 0m 36s\n\tTrain Loss: 5.0 | Train PPL: 148.4\n\t Val. Loss: 4.75 |  Val. PPL: 115.6\n"
        "Epoch: 02 | Epoch Time: 0m 35s\n\tTrain Loss: 4.5 | Train PPL: 90.0\n\t Val. Loss: 4.5 |  Val. PPL: 90.0\n",
    )
    assert rows_of(raw) == [(1, 5.0), (2, 4.5)]


@pytest.mark.parametrize(
    "head", ["Train: {0} [ {1}/40 (  0%)]  Loss: {2} ({2})", "Train: [{0}/9][{1}/40] lr 0.1 loss {2} (1.5)"]
)
def test_the_number_after_train_is_the_epoch(head: str, tmp_path: Path) -> None:
    rows = ((0, 10, 3.5), (0, 20, 3.25), (1, 10, 3.0), (1, 20, 2.75))
    raw = read(tmp_path, "".join(head.format(*row) + "\n" for row in rows))
    assert raw.curves[raw.facts.roles["epoch"]].value.tolist() == [0, 0, 1, 1]
    assert raw.curves[raw.facts.roles["batch"]].value.tolist() == [10, 20, 10, 20]


def test_a_step_before_a_dict_is_its_step(tmp_path: Path) -> None:
    raw = read(tmp_path, "Step 100: {'loss': 2.5, 'acc': 0.1}\nStep 200: {'loss': 2.25, 'acc': 0.2}\n")
    assert rows_of(raw) == [(100, 2.5), (200, 2.25)]


def test_a_step_that_goes_on_is_preferred_to_one_within_an_epoch(tmp_path: Path) -> None:
    raw = read(
        tmp_path,
        "epoch 0, iteration 98/99 | global_step: 98 | loss: 2.5\n"
        "epoch 1, iteration 0/99 | global_step: 99 | loss: 2.25\n",
    )
    assert rows_of(raw) == [(98, 2.5), (99, 2.25)]
