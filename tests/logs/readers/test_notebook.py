"""Jupyter notebooks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

import pytest

from stresstest.diagnosis.call import read_logs
from stresstest.diagnosis.diagnose import Choices
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile, NoLossError
from stresstest.logs.readers.table import READERS

Output = Mapping[str, object]


def printed(*lines: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": [f"{line}\n" for line in lines]}


def table(rows: Sequence[Sequence[object]], cell: str = "td") -> Output:
    page = "".join("<tr>" + "".join(f"<{cell}>{field}</{cell}>" for field in row) + "</tr>\n" for row in rows)
    return {"output_type": "display_data", "data": {"text/html": [f"<table>{page}</table>"], "text/plain": ["<HTML>"]}}


def written(folder: Path, *cells: Sequence[Output]) -> Path:
    found = [
        {"cell_type": "code", "execution_count": number, "source": ["train()"], "outputs": list(outputs)}
        for number, outputs in enumerate(cells, 1)
    ]
    path = folder / "train.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["loss 3"]}, *found], "nbformat": 4}))
    return path


def runs(path: Path) -> list[RawLog]:
    file = LogFile(path, path.name)
    return list(next(reader for reader in READERS if reader.fits(file)).read(file))


def test_each_cell_that_printed_a_loss_is_a_run(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        [printed("epoch 1 loss 3.5", "epoch 2 loss 2.5")],
        [printed("accuracy 0.5")],
        [printed("\x1b[32mstep 10\x1b[0m loss 2.0\rstep 20 loss nan")],
    )
    first, second = runs(path)
    assert (first.name, second.name) == ("In [1]", "In [3]")
    assert first.curves["loss"].value.tolist() == [3.5, 2.5]
    assert second.curves["loss"].step.tolist() == [10, 20]
    assert isnan(second.curves["loss"].value[1])


def test_a_table_that_is_shown_is_read(tmp_path: Path) -> None:
    rows = [("Step", "Training Loss", "Validation Loss"), (10, 3.5, "No log"), (20, 2.5, 2.75), (30, "nan", "No log")]
    (run,) = runs(written(tmp_path, [printed("a warning of line 3", name="stderr"), table(rows)]))
    loss, validation = run.curves["Training Loss"], run.curves["Validation Loss"]
    assert (run.facts.row_kind, run.facts.zero_for_nan) == ("mean", True)
    assert loss.step.tolist() == [10, 20, 30]
    assert loss.value[:2].tolist() == [3.5, 2.5]
    assert isnan(loss.value[2])
    assert list(zip(validation.step.tolist(), validation.value.tolist(), strict=True)) == [(20, 2.75)]


def test_a_notebook_without_a_loss_is_said_when_named_and_passed_over_in_a_folder(tmp_path: Path) -> None:
    path = written(tmp_path, [printed("accuracy 0.5")])
    with pytest.raises(NoLossError, match="no cell printed a loss"):
        runs(path)
    (tmp_path / "log.csv").write_text("step,loss\n1,3\n2,2\n")
    found = read_logs([str(tmp_path)], Choices())
    assert ([run.rows for run in found.runs], len(found.unread), len(found.passed_over)) == ([2], 0, 1)
