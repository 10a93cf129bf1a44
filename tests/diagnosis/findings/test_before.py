"""What moved just before a break or a spike."""

from __future__ import annotations

import numpy as np
import pytest

from stresstest.diagnosis.course import SpikeRows
from stresstest.diagnosis.diagnose import diagnose
from stresstest.diagnosis.findings import before_spike
from stresstest.diagnosis.findings.table import KINDS
from tests.diagnosis.findings.building import course, falling, log, said, segment

ROWS = 60
BREAK = 40  # row; its step is 41


def broken(rows: int = ROWS, at: int = BREAK) -> np.ndarray:
    losses = falling(rows)
    losses[at:] = 12.0
    return losses


def spiked(at: int = BREAK) -> tuple[np.ndarray, SpikeRows]:
    losses = falling(ROWS)
    losses[at : at + 4] = 6.0
    return losses, SpikeRows(at, at + 3, 1.5, 6.0, recovered=True)


def warmup(peak_row: int, peak: float = 1e-3, rows: int = ROWS) -> np.ndarray:
    up = peak * np.arange(1, peak_row + 2) / (peak_row + 1)
    return np.concatenate([up, np.linspace(peak, 0, rows - len(up) + 1)[1:]])


def test_the_lr_is_given_one_row_before_and_at_the_break_with_its_phase() -> None:
    finding = said(segment(broken(), lr=warmup(9)), course("exploded", BREAK))["before-lr"]
    assert finding.severity == "info"
    assert "step 41" in finding.text
    assert "% of its peak of 0.001" in finding.text
    assert finding.evidence["lr_before"] == pytest.approx(warmup(9)[BREAK - 1])


@pytest.mark.parametrize(("peak_row", "phase"), [(55, "in warm-up"), (39, "at its peak")])
def test_the_phase_is_that_of_the_row_before(peak_row: int, phase: str) -> None:
    assert phase in said(segment(broken(), lr=warmup(peak_row)), course("exploded", BREAK))["before-lr"].text


def test_a_constant_lr_is_called_constant() -> None:
    text = said(segment(broken(), lr=np.full(ROWS, 3e-4)), course("exploded", BREAK))["before-lr"].text
    assert "0.0003, constant." in text


def test_an_lr_that_doubled_within_five_rows_is_named() -> None:
    lr = np.full(ROWS, 1e-4)
    lr[BREAK - 2 :] = 1e-3
    text = said(segment(broken(), lr=lr), course("exploded", BREAK))["before-lr-jump"].text
    assert "step 39" in text
    assert "0.0001 to 0.001 (10 times)" in text


def test_an_lr_that_doubled_long_before_is_not_just_before() -> None:
    lr = np.full(ROWS, 1e-4)
    lr[BREAK - 20 :] = 3e-4
    assert "before-lr-jump" not in said(segment(broken(), lr=lr), course("exploded", BREAK))


def test_the_rise_of_a_warmup_is_no_jump() -> None:
    found = said(segment(broken(12, 3), lr=warmup(6, rows=12)), course("exploded", 3))
    assert "before-lr-jump" not in found


def test_the_end_of_warmup_is_named_only_where_it_is_near() -> None:
    near = said(segment(broken(), lr=warmup(BREAK - 3)), course("exploded", BREAK))
    assert "step 38, 3 steps before" in near["before-warmup-end"].text
    assert "before-warmup-end" not in said(segment(broken(), lr=warmup(10)), course("exploded", BREAK))


def test_the_gradient_norm_is_set_beside_its_median() -> None:
    norms = np.ones(ROWS)
    norms[BREAK - 1], norms[BREAK] = 8.0, 30.0
    text = said(segment(broken(), grad_norm=norms), course("exploded", BREAK))["before-grad-norm"].text
    assert "8, 8 times its median" in text
    assert "30, 30 times its median" in text


def test_a_loss_scale_that_fell_and_steps_that_were_skipped_are_named() -> None:
    scale, skipped = np.full(ROWS, 65536.0), np.zeros(ROWS)
    scale[BREAK - 2 :] = 16384.0
    skipped[BREAK - 1] = 2
    found = said(segment(broken(), loss_scale=scale, skipped=skipped), course("exploded", BREAK))
    assert "65,536 to 16,384" in found["before-loss-scale"].text
    assert found["before-skips"].evidence["skipped"] == 2


def test_a_calm_loss_scale_is_not_named() -> None:
    scale, skipped = np.full(ROWS, 65536.0), np.zeros(ROWS)
    scale[:5], skipped[:5] = 2.0**20, 1
    found = said(segment(broken(), loss_scale=scale, skipped=skipped), course("exploded", BREAK))
    assert not {"before-loss-scale", "before-skips"} & set(found)


def test_a_break_soon_after_a_resume_names_the_resume() -> None:
    near = segment(broken(at=3), first=500, start="resume")
    assert "resumed at step 500" in said(near, course("exploded", 3))["before-seam"].text
    far = segment(broken(at=30), first=500, start="resume")
    assert "before-seam" not in said(far, course("exploded", 30))


def test_an_epoch_that_began_at_the_break_is_named_unless_epochs_are_short() -> None:
    epoch = np.arange(ROWS) // BREAK
    assert "A new epoch (1)" in said(segment(broken(), epoch=epoch), course("exploded", BREAK))["before-epoch"].text
    short = np.arange(ROWS) // 5
    assert "before-epoch" not in said(segment(broken(), epoch=short), course("exploded", BREAK))


def test_a_run_that_did_not_break_has_nothing_before_a_break() -> None:
    part = segment(falling(ROWS), lr=warmup(9), grad_norm=np.ones(ROWS), skipped=np.ones(ROWS))
    assert not [kind for kind in said(part) if kind.startswith("before-")]


def test_a_spike_names_what_moved_before_it() -> None:
    losses, spike = spiked()
    norms, lr = np.ones(ROWS), np.full(ROWS, 1e-4)
    norms[BREAK - 1] = 5.0
    lr[BREAK - 1 :] = 4e-4
    texts = before_spike(segment(losses, lr=lr, grad_norm=norms), spike)
    assert len(texts) == 2
    assert "4 times" in texts[0]
    assert "5 times its median" in texts[1]


def test_a_spike_before_which_nothing_moved_has_nothing_before_it() -> None:
    losses, spike = spiked()
    norms = 1 + 0.3 * np.random.default_rng(1).random(ROWS)
    assert before_spike(segment(losses, lr=warmup(5), grad_norm=norms), spike) == ()


def test_warmup_that_ends_in_the_row_of_a_spike_is_told_once() -> None:
    losses, spike = spiked()
    assert before_spike(segment(losses, lr=warmup(BREAK)), spike) == (
        "Warm-up ended at step 41, in the row of the spike.",
    )


def test_a_spike_in_warmup_says_so() -> None:
    losses, spike = spiked()
    assert "still in warm-up" in before_spike(segment(losses, lr=warmup(55)), spike)[0]


def test_no_sentence_names_a_cause() -> None:
    losses = broken()
    norms, scale = np.ones(ROWS), np.full(ROWS, 65536.0)
    norms[BREAK - 1], scale[BREAK - 1 :] = 9.0, 1024.0
    part = segment(losses, lr=warmup(BREAK - 2), grad_norm=norms, loss_scale=scale)
    found = said(part, course("exploded", BREAK))
    assert len([kind for kind in found if kind.startswith("before-")]) >= 4
    for kind, finding in found.items():
        assert not any(word in finding.text.lower() for word in ("because", "caused", "due to")), kind
        assert finding.severity == KINDS[kind].severity


def test_a_break_in_the_first_row_has_no_row_before() -> None:
    found = said(segment(broken(at=0), lr=warmup(9), grad_norm=np.ones(ROWS)), course("exploded", 0))
    assert "one row before" not in found["before-lr"].text
    assert "before-grad-norm" not in found


def test_in_a_short_log_just_before_is_a_row() -> None:
    lr = np.full(12, 1e-4)
    lr[6:] = 4e-4
    near, far = SpikeRows(6, 7, 1.5, 6.0, recovered=True), SpikeRows(9, 10, 1.5, 6.0, recovered=True)
    assert before_spike(segment(falling(12), lr=lr), near)
    assert before_spike(segment(falling(12), lr=lr), far) == ()


def test_each_spike_of_a_diagnosis_has_its_own_list() -> None:
    losses = falling(400)
    lr = np.full(400, 1e-4)
    for row in (150, 300):
        losses[row : row + 6] += 6.0
    lr[298:] = 1e-3
    spikes = diagnose(log(segment(losses, lr=lr))).segments[0].spikes
    assert [spike.first_step for spike in spikes] == [151, 301]
    assert [len(spike.before) for spike in spikes] == [0, 1]
