"""Loops as people print them: progress bars, tensors, pairs of epoch and batch."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest

from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.text import Text
from stresstest.logs.segments import Log, assemble


def raw_of(tmp_path: Path, text: str) -> RawLog:
    path = tmp_path / "train.log"
    path.write_text(text)
    return next(iter(Text().read(LogFile(path, "train.log"))))


def log_of(tmp_path: Path, text: str) -> Log:
    return assemble(raw_of(tmp_path, text), "train.log")


def rows_of(log: Log) -> list[tuple[float, float]]:
    (segment,) = log.segments
    return list(zip(segment.loss.step.tolist(), segment.loss.value.tolist(), strict=True))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("Epoch: {} Loss: tensor({}, grad_fn=<MulBackward0>)", "Loss"),
        ("epoch {} loss np.float32({}) acc np.float64(0.5)", "loss"),
        ("✅ Epoch {} → loss: {} ⏱ 3.2s", "loss"),
        ("After epoch {} the training loss is {}", "training loss"),
    ],
)
def test_what_surrounds_a_number_is_no_part_of_its_name(line: str, key: str, tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(line.format(epoch, 2.5 / epoch) + "\n" for epoch in (1, 2, 5)))
    assert (log.loss_key, log.step_unit) == (key, "epochs")
    assert rows_of(log) == [(1, 2.5), (2, 1.25), (5, 0.5)]


def test_a_number_in_parentheses_before_the_colon_is_not_the_loss(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(f"Train Loss ({row}): {3 - row / 4}\n" for row in range(4)))
    assert [value for _, value in rows_of(log)] == [3, 2.75, 2.5, 2.25]


def test_epoch_and_batch_may_be_a_pair(tmp_path: Path) -> None:
    text = "".join(
        f"[{epoch}, {batch:5d}] loss: {4 / epoch - batch / 4000:.3f}\n" for epoch in (1, 2) for batch in (1000, 2000)
    )
    assert rows_of(log_of(tmp_path, text)) == [(1000, 3.75), (2000, 3.5), (3000, 1.75), (4000, 1.5)]


@pytest.mark.parametrize(
    ("line", "key", "unit"),
    [
        ("Loss at step {}: {}", "Loss", "steps"),
        ("Cost after iteration {}: {}", "Cost", "steps"),
        ("MSE loss on epoch {}: {}", "MSE loss", "epochs"),
    ],
)
def test_a_loss_may_be_named_before_its_index(line: str, key: str, unit: str, tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(line.format(at, 3 - at / 4) + "\n" for at in (1, 2, 4)))
    assert (log.loss_key, log.step_unit, rows_of(log)) == (key, unit, [(1, 2.75), (2, 2.5), (4, 2)])


def test_two_counts_with_totals_are_epoch_and_batch(tmp_path: Path) -> None:
    text = "".join(f"[{at // 4}/2][{at % 4}/4] Loss: {4 - at / 4}\n" for at in range(8))
    assert rows_of(log_of(tmp_path, text)) == [(at, 4 - at / 4) for at in range(8)]


def test_short_words_part_validation_from_training(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(f"ep={at} tr_loss={4 - at} va_loss={9 + at}\n" for at in range(3)))
    assert (log.loss_key, rows_of(log)) == ("tr_loss", [(0, 4), (1, 3), (2, 2)])
    assert log.segments[0].others["validation"].value.tolist() == [9, 10, 11]


def test_samples_within_an_epoch_are_no_steps_of_the_optimizer(tmp_path: Path) -> None:
    text = "".join(f"loss: {3 - at / 128:>7f}  [{at % 128:>5d}/{128:>5d}]\n" for at in range(0, 128, 32))
    whole = f"Epoch 1\n-----\n{text}Epoch 2\n-----\n{text}"
    log = log_of(tmp_path, whole)
    assert log.step_unit == "samples"
    assert [step for step, _ in rows_of(log)] == [0, 32, 64, 96, 128, 160, 192, 224]


def bar(name: str, count: int, total: int, postfix: str) -> str:
    return f"\r{name}{100 * count // total:3d}%|█    | {count}/{total} [00:01<00:02, 5.00it/s{postfix}]"


def set_before_it_moves_on(epochs: int, total: int, losses: list[str]) -> str:
    """A bar whose loss is set within the loop: each place is drawn with the loss before, then with its own."""
    text, shown = "", ""
    for epoch in range(epochs):
        name = f"Epoch {epoch + 1}/{epochs}: "
        text += bar(name, 0, total, "")
        for batch in range(total):
            shown = f", loss={losses[epoch * total + batch]}"
            text += bar(name, batch, total, shown) + bar(name, batch + 1, total, shown)
        text += "\n"
    return text


def test_what_a_bar_draws_twice_is_one_row_of_the_later_loss(tmp_path: Path) -> None:
    losses = ["4.5", "4.25", "3.5", "3.0", "2.0", "nan", "nan", "nan"]
    rows = rows_of(log_of(tmp_path, set_before_it_moves_on(2, 4, losses)))
    assert [step for step, _ in rows] == list(range(8))
    assert [value for _, value in rows[:5]] == [4.5, 4.25, 3.5, 3.0, 2.0]
    assert all(isnan(value) for _, value in rows[5:])


def test_a_bar_that_is_set_after_it_moved_keeps_its_last_row(tmp_path: Path) -> None:
    text = "".join(bar("", count, 3, f", loss={4 - count}") for count in (1, 2, 3))
    assert rows_of(log_of(tmp_path, text)) == [(1, 3), (2, 2), (3, 1)]


def trainer(losses: list[str], every: int, steps: int, per_epoch: int, decimals: int = 2) -> str:
    """The Trainer's print with its bar: a row, then the bar drawn again at the step of the row."""
    text = bar("", 0, steps, "")
    for row, loss in enumerate(losses):
        step = (row + 1) * every
        epoch = round(step / per_epoch, decimals)
        text += f"\r{{'loss': {loss}, 'grad_norm': 1.5, 'learning_rate': 0.01, 'epoch': {epoch}}}\n"
        text += bar("", step, steps, "")
        if row == 1:
            text += "\n" + bar("", 0, 4, "") + bar("", 4, 4, "")
            text += f"\r{{'eval_loss': 2.5, 'eval_runtime': 0.1, 'epoch': {epoch}}}\n" + bar("", step, steps, "")
    return text + f"\n{{'train_runtime': 0.6, 'train_loss': 2.0, 'epoch': {epoch}}}\n" + bar("", steps, steps, "")


@pytest.mark.parametrize("decimals", [2, 4])
def test_the_trainers_bar_tells_the_step_of_a_row(decimals: int, tmp_path: Path) -> None:
    log = log_of(tmp_path, trainer(["4.0", "3.0", "2.5", "nan", "nan"], 5, 25, 640, decimals))
    assert (log.step_key, log.step_unit) == ("step", "steps")
    (segment,) = log.segments
    assert segment.loss.step.tolist() == [5, 10, 15, 20, 25]
    assert segment.loss.value[:3].tolist() == [4, 3, 2.5]
    assert segment.others["validation"].step.tolist() == [10]


def test_a_resumed_trainer_in_one_text_has_bars_of_two_totals(tmp_path: Path) -> None:
    first = trainer([f"{5 - row / 4}" for row in range(8)], 5, 60, 640)
    again = trainer([f"{5 - row / 4}" for row in range(14)], 5, 90, 640)
    rows = again.splitlines(keepends=True)
    kept = [row for row in rows if "'loss'" not in row or float(row.split("'epoch': ")[1].rstrip("}\n")) > 0.045]
    log = log_of(tmp_path, first + "".join(kept))
    assert log.step_unit == "steps"
    assert [segment.loss.step.tolist() for segment in log.segments] == [
        [5, 10, 15, 20, 25],
        [30, 35, 40, 45, 50, 55, 60, 65, 70],
    ]


def test_bars_that_disagree_with_the_epochs_are_left_out(tmp_path: Path) -> None:
    rows = [f"{{'loss': {loss}, 'epoch': {epoch}}}\n" for loss, epoch in ((4, 0.1), (3, 0.2), (2, 0.3), (1, 0.4))]
    text = "".join(row + bar("", count, 100, "") + "\n" for row, count in zip(rows, (3, 50, 51, 99), strict=True))
    log = log_of(tmp_path, text)
    assert (log.step_unit, [step for step, _ in rows_of(log)]) == ("epochs", [0.1, 0.2, 0.3, 0.4])


def test_a_bar_may_stand_behind_its_count(tmp_path: Path) -> None:
    text = "".join(
        f"\rEpoch [{epoch}/2]: [{count}/3] {33 * count}%|▋   , loss={loss} [00:00<00:00]"
        for epoch, losses in ((1, (6, 5, 4)), (2, (3, 2, 1)))
        for count, own in enumerate(losses, 1)
        for loss in (own + 1, own)
    )
    assert rows_of(log_of(tmp_path, text)) == [(1, 6), (2, 5), (3, 4), (4, 3), (5, 2), (6, 1)]


def test_a_sum_over_the_steps_between_rows_has_none_at_step_0(tmp_path: Path) -> None:
    rows = "".join(
        f"{step // 3:3d} {step:7d} {loss:13.2f} {90:11.2f}\n" for step, loss in ((0, 0.25), (10, 2), (20, 1))
    )
    text = f"E    #       LOSS TAGGER  TAG_ACC\n---  ------  -----------  -------\n{rows}"
    assert rows_of(log_of(tmp_path, text)) == [(10, 2), (20, 1)]


def test_a_policys_loss_in_print_is_declined(tmp_path: Path) -> None:
    block = "| train/ | |\n| iterations | {0} |\n| policy_gradient_loss | -0.0{0} |\n| loss | {0}.5 |\n---\n"
    assert "reinforcement learning" in log_of(tmp_path, "".join(block.format(at) for at in range(1, 9))).declined


def test_a_metric_of_held_out_rows_alone_is_judged_and_said(tmp_path: Path) -> None:
    log = log_of(tmp_path, "".join(f"[{at}]\tvalid_0's l2: {4 / at}\n" for at in (1, 2, 4)))
    assert rows_of(log) == [(1, 4), (2, 2), (4, 1)]
    assert any("no train loss is there" in note for note in log.notes)
