"""What changed where a run was resumed, and silence where nothing did."""

from __future__ import annotations

import numpy as np
import pytest

from stresstest.logs.segments import Log
from tests.diagnosis.findings.building import falling, log, said_of_log, segment

ROWS, CUT = 100, 60
LOSSES = falling(ROWS)
LR = np.linspace(1e-3, 1e-5, ROWS)
AT_A_SEAM = {
    "resume-loss-jump",
    "resume-loss-drop",
    "resume-lr",
    "resume-grad-norm",
    "resume-gap",
    "resume-overlap",
}


def resumed(after: np.ndarray, first: float = CUT + 1, lr: np.ndarray | None = None, norms: float = 1.0) -> Log:
    wobble = 1 + 0.1 * np.random.default_rng(2).normal(size=ROWS)
    return log(
        segment(LOSSES[:CUT], lr=LR[:CUT], grad_norm=wobble[:CUT]),
        segment(
            after,
            first=first,
            start="resume",
            lr=LR[CUT : CUT + len(after)] if lr is None else lr,
            grad_norm=norms * wobble[CUT : CUT + len(after)],
        ),
    )


def test_a_clean_resume_is_told_and_nothing_else() -> None:
    found = said_of_log(resumed(LOSSES[CUT:]))
    assert "step 61" in found["resumed"].text
    assert not AT_A_SEAM & set(found)


def test_the_first_row_after_a_resume_is_not_judged() -> None:
    after = LOSSES[CUT:].copy()
    after[0] += 5
    assert not AT_A_SEAM & set(said_of_log(resumed(after)))


def test_a_loss_that_jumps_and_comes_back_is_named_with_the_step() -> None:
    after = LOSSES[CUT:] + 1.5 * np.exp(-np.arange(ROWS - CUT) / 4)
    text = said_of_log(resumed(after))["resume-loss-jump"].text
    assert "optimizer's state" in text
    assert "was back at step" in text


def test_a_loss_that_jumps_and_stays_says_so() -> None:
    assert "not back" in said_of_log(resumed(LOSSES[CUT:] + 1.5))["resume-loss-jump"].text


def test_a_loss_that_drops_is_named() -> None:
    assert "seen already" in said_of_log(resumed(LOSSES[CUT:] - 0.5))["resume-loss-drop"].text


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_noise_at_a_seam_is_no_jump(noise: float) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        losses = 1 + 2 * np.exp(-4 * np.arange(ROWS) / ROWS) + random.normal(0, noise, ROWS)
        whole = log(segment(losses[:CUT]), segment(losses[CUT:], first=CUT + 1, start="resume"))
        assert not {"resume-loss-jump", "resume-loss-drop"} & set(said_of_log(whole))


def test_an_lr_that_began_again_is_named_and_one_that_goes_on_is_not() -> None:
    assert "resume-lr" in said_of_log(resumed(LOSSES[CUT:], lr=1.3 * LR[CUT:]))
    assert "resume-lr" not in said_of_log(resumed(LOSSES[CUT:], lr=0.9 * LR[CUT:]))
    again = said_of_log(resumed(LOSSES[CUT:], lr=LR[: ROWS - CUT]))["resume-lr"]
    assert "0.00041 to 0.00099" in again.text


def test_a_gradient_norm_that_jumps_is_named_with_its_medians() -> None:
    assert "resume-grad-norm" in said_of_log(resumed(LOSSES[CUT:], norms=5.0))
    assert "resume-grad-norm" not in said_of_log(resumed(LOSSES[CUT:], norms=1.5))


def test_missing_and_repeated_steps_are_told_apart() -> None:
    assert "step 60" in said_of_log(resumed(LOSSES[CUT:], first=CUT + 20))["resume-gap"].text
    again = segment(LOSSES[CUT:], first=CUT + 1, start="resume", dropped=10)
    repeated = said_of_log(log(segment(LOSSES[:CUT]), again))
    assert "10 rows from there on" in repeated["resume-overlap"].text
    assert not {"resume-gap", "resume-loss-jump"} & set(repeated)


def test_a_restart_is_no_resume() -> None:
    whole = log(segment(LOSSES), segment(LOSSES, start="restart"))
    found = said_of_log(whole)
    assert not AT_A_SEAM & set(found)
    assert found["several-runs"].text == "2 runs in this log; each is judged by itself."
