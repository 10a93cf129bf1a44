"""A log that grows: what is said as it does, and what it ends with."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stresstest.diagnosis.diagnose import Choices
from stresstest.diagnosis.follow import look_line, looks, so_far, verdict_so_far
from stresstest.diagnosis.records import Diagnosis, SegmentDiagnosis

Change = Callable[[], object]


def rows(losses: list[float], first: int = 0) -> str:
    return "".join(
        f'{{"step": {first + i}, "loss": {loss if math.isfinite(loss) else "NaN"}}}\n' for i, loss in enumerate(losses)
    )


FALLING = [3.0 * 0.97**i for i in range(100)]


def followed(path: Path, changes: list[Change]) -> list[str]:
    """What each look says, where a change happens in each pause."""
    left: Iterator[Change] = iter(changes)

    def sleep(seconds: float) -> None:
        change = next(left, None)
        if change is None:
            raise StopIteration
        change()

    said = []
    try:
        for look in looks(path, str(path), Choices(), sleep):
            said.append(so_far(look.run) if look.run else look.problem)
    except RuntimeError:  # a generator's StopIteration
        return said
    raise AssertionError("following never ends by itself")


def test_each_change_of_the_file_is_looked_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    def grow(text: str) -> Change:
        def change() -> None:
            with log.open("a") as stream:
                stream.write(text)

        return change

    def replace() -> None:
        other = tmp_path / "other"
        other.write_text(rows(FALLING))
        other.replace(log)

    said = followed(
        log,
        [
            lambda: log.write_text(""),
            grow(rows(FALLING)),
            lambda: None,
            grow(rows([math.nan] * 5, 100)),
            replace,
            log.unlink,
        ],
    )
    assert said == [
        "the file is not there",
        "nothing was logged yet",
        "stable",
        "nonfinite",
        "stable",
        "the file is not there",
    ]


def run_of(outcome: str, verdict: str) -> Diagnosis:
    segment = SegmentDiagnosis(
        index=0,
        start="start",
        first_step=0,
        last_step=9,
        rows=10,
        steps_per_row=1,
        outcome=outcome,
        first_loss=2.0,
        last_loss=2.0,
    )
    return Diagnosis(
        path="x",
        format="f",
        loss_key="loss",
        step_key="step",
        rows=10,
        columns=(),
        verdict=verdict,
        outcome=outcome,
        segments=(segment,),
    )


@pytest.mark.parametrize(("outcome", "verdict"), [("flat", "stable"), ("failed-to-train", "broken")])
def test_what_would_be_said_of_every_prefix_is_not_said(outcome: str, verdict: str) -> None:
    run = run_of(outcome, verdict)
    assert so_far(run) == "stable"
    assert "stable so far" in look_line(run)
    assert verdict_so_far(run) == "stable"


def test_a_break_is_said_with_its_steps() -> None:
    run = run_of("exploded", "broken")
    assert "EXPLODED" in look_line(run)
    assert verdict_so_far(run) == "broken"


def _listens_to_ctrl_c() -> None:
    """Also where the tests run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("losses", "code"), [(FALLING, 0), ([*FALLING, *[math.nan] * 9], 99)])
def test_ctrl_c_ends_with_the_last_verdict(tmp_path: Path, losses: list[float], code: int) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(rows(losses))
    line = [sys.executable, "-m", "stresstest", "diagnose", "--follow", str(log)]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_listens_to_ctrl_c
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, error) == (code, "")
    assert ("stable so far" in first) == (code == 0)
    assert rest.splitlines()[-1].startswith(f"exit {code}: ")
