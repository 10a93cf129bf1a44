"""A loss that goes missing: what pandas and JavaScript make of NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from stresstest.diagnosis.call import diagnose

HEAD = "step,loss,lr,grad_norm\n"


def rows(first: int, last: int, norm: str = "0.5") -> str:
    return "".join(f"{step},{3 * 0.98**step + 0.01 * (step % 3):.4f},0.001,{norm}\n" for step in range(first, last))


def empty(first: int, last: int, norm: str = "0.5") -> str:
    return "".join(f"{step},,0.001,{norm}\n" for step in range(first, last))


def log(tmp_path: Path, text: str, name: str = "log.csv") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_loss_that_goes_missing_while_the_rest_goes_on_cannot_be_judged(tmp_path: Path) -> None:
    (run,) = diagnose(log(tmp_path, HEAD + rows(0, 60) + empty(60, 100)))
    assert run.verdict == "undecided"
    (segment,) = run.segments
    assert segment.why_undecided == (
        "the last loss is of step 59, and the rows of 40 later steps hold none: it may have become NaN"
    )
    (finding,) = [finding for finding in segment.findings if finding.kind == "loss-missing"]
    assert finding.severity == "warning"
    assert finding.text.startswith(
        "The loss is missing from step 60 on (40 rows), while the LR and the gradient norm go"
    )


@pytest.mark.parametrize("norm", ["nan", "inf"])
def test_where_the_gradient_norm_is_lost_too_the_run_became_nonfinite(tmp_path: Path, norm: str) -> None:
    (run,) = diagnose(log(tmp_path, HEAD + rows(0, 60) + empty(60, 100, norm)))
    assert run.outcome == "nonfinite"
    assert run.segments[0].broke_between == (59.0, 60.0)


def test_null_of_javascript_is_missing_as_well(tmp_path: Path) -> None:
    lines = [{"step": i, "loss": math.exp(-i / 30) if i < 50 else None, "lr": 0.1} for i in range(80)]
    (run,) = diagnose(log(tmp_path, "\n".join(map(json.dumps, lines)), "log.jsonl"))
    assert (run.verdict, run.segments[0].findings[0].kind) == ("undecided", "loss-missing")


def test_a_break_before_it_stays_a_break(tmp_path: Path) -> None:
    high = "".join(f"{step},{90 + step},0.001,0.5\n" for step in range(60, 80))
    (run,) = diagnose(log(tmp_path, HEAD + rows(0, 60) + high + empty(80, 100)))
    assert run.outcome == "exploded"


def test_two_rows_at_the_end_and_rows_of_validation_are_no_missing_loss(tmp_path: Path) -> None:
    (two,) = diagnose(log(tmp_path, HEAD + rows(0, 60) + empty(60, 62)))
    held_out = "".join(f"{step},,0.001,,{1.5 - step / 100}\n" for step in range(60, 70))
    train = "".join(f"{line},\n" for line in rows(0, 60).splitlines())
    (validated,) = diagnose(log(tmp_path, HEAD.replace("\n", ",val_loss\n") + train + held_out))
    assert two.outcome == validated.outcome == "stable"


def test_a_loss_in_every_other_row_is_not_missing_at_the_end(tmp_path: Path) -> None:
    between = [f"{step},{3 * 0.98**step:.4f},,\n{step},,0.001,0.5\n" for step in range(60)]
    (run,) = diagnose(log(tmp_path, HEAD + "".join(between) + empty(60, 70)))
    assert run.outcome == "stable"


def test_first_lowest_and_last_loss_are_rows(tmp_path: Path) -> None:
    losses = np.linspace(3, 1, 60) + 0.001 * np.sin(np.arange(60) * 9)
    losses[30] = 0.5
    (run,) = diagnose(log(tmp_path, "step,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(losses))))
    segment = run.segments[0]
    assert (segment.first_loss, segment.best_loss, segment.last_loss) == (losses[0], 0.5, losses[-1])
