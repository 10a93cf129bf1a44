"""What programs print is read: each tool's form, in lines written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.text import Text


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
