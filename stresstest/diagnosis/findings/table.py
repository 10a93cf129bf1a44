"""Every kind of finding, in the order in which they are said. A new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from stresstest.diagnosis.findings import before, chance, fp16, grad_norm, lr, nonfinite, runs, seams, validation
from stresstest.diagnosis.findings.base import Kind
from stresstest.diagnosis.findings.stretch import Run, Stretch

_LOG = "The log's own rows"
_TIME = "Coincidence in time"
_OWN = "A rule of this tool's"
_AMP = "Micikevicius et al. 2018 (arXiv:1710.03740), loss scaling"
_HF = "transformers' Trainer, `logging_nan_inf_filter`"

SEGMENT_KINDS: tuple[Kind[Stretch], ...] = (
    Kind(
        "became-nonfinite",
        "broken",
        "The outcome is nonfinite. Says between which steps, and the last finite row.",
        _LOG,
        nonfinite.where_it_became_nonfinite,
    ),
    Kind("zeros-for-nan", "warning", "Losses of 0.0 stand for NaN.", _HF, nonfinite.zeros_for_nan),
    Kind(
        "loss-missing",
        "warning",
        "A loss that stood in 90 % of the rows is missing in the last 3 or more, in which the LR or the gradient norm "
        "goes on. The outcome is nonfinite where that norm is inf or NaN, else undecided.",
        "pandas' `to_csv` and JavaScript's `JSON.stringify`: an empty value for NaN",
        nonfinite.missing_losses,
    ),
    Kind(
        "nonfinite-rows",
        "warning",
        "Rows are NaN or infinite and the loss went on after.",
        _LOG,
        nonfinite.nonfinite_rows_that_passed,
    ),
    Kind(
        "before-lr",
        "info",
        "The run broke and the log has LRs: at the break, one row before, and the phase of the schedule.",
        _TIME,
        before.before_break(before.lr_level),
    ),
    Kind(
        "before-lr-jump",
        "info",
        "The LR at least doubled from one row to the next in the 5 rows before the break, outside a warm-up.",
        _TIME,
        before.before_break(before.lr_jump),
    ),
    Kind(
        "before-warmup-end",
        "info",
        "Warm-up ended in the 5 rows before the break.",
        _TIME,
        before.before_break(before.warmup_end),
    ),
    Kind(
        "before-grad-norm",
        "info",
        "The run broke and the log has gradient norms: before, at the break, and their median until then.",
        _TIME,
        before.before_break(before.grad_norm_level),
    ),
    Kind(
        "before-loss-scale",
        "info",
        "The loss scale at least halved in the 5 rows before the break.",
        _AMP,
        before.before_break(before.loss_scale_fall),
    ),
    Kind(
        "before-skips",
        "info",
        "Steps were skipped in the 5 rows before the break.",
        _AMP,
        before.before_break(before.skipped_steps),
    ),
    Kind(
        "before-seam",
        "info",
        "The run was resumed at most 5 rows before the break.",
        _TIME,
        before.before_break(before.seam),
    ),
    Kind(
        "before-epoch",
        "info",
        "An epoch of at least 20 rows began in the row of the break.",
        _TIME,
        before.before_break(before.epoch_edge),
    ),
    Kind(
        "no-step-taken",
        "broken",
        "The gradient norm is inf or NaN in every row, and the loss is flat.",
        _AMP,
        fp16.no_step_taken,
    ),
    Kind(
        "no-step-since",
        "warning",
        "The gradient norm is inf or NaN in the last 5 rows or more, without a break, and the loss is finite.",
        _AMP,
        fp16.no_step_since,
    ),
    Kind(
        "loss-scale-floor",
        "warning",
        "The loss scale fell from 1,024 or more to 1 or less, and stayed there for 5 rows to the end.",
        _AMP,
        fp16.scale_at_its_floor,
    ),
    Kind(
        "many-skips",
        "warning",
        "More than 5 % of at least 100 steps were skipped, the first 50 left out.",
        _AMP,
        fp16.many_skips,
    ),
    Kind(
        "fp16-skips",
        "info",
        "The gradient norm is inf or NaN in up to a fifth of the rows, at most 3 in a row, and all losses are finite.",
        _AMP,
        fp16.single_skips,
    ),
    Kind(
        "grad-norm-unusable",
        "info",
        "The gradient norm is inf or NaN in every row, and the loss moves.",
        _LOG,
        fp16.norm_not_usable,
    ),
    Kind(
        "grad-norm-climbs",
        "warning",
        "The medians of tenths of the gradient norm rise fivefold from the lowest to the last, in order (Kendall's tau "
        "at least 0.75), and the two tenths do not overlap.",
        _OWN,
        grad_norm.climbing,
    ),
    Kind("lr-zero", "warning", "The LR is 0 in every row, and the loss is flat.", _LOG, lr.always_zero),
    Kind(
        "lr-jump",
        "warning",
        "The LR rises eightfold or more from one row to the next, outside a warm-up.",
        _LOG,
        lr.jump,
    ),
    Kind(
        "lr-restart",
        "warning",
        "The LR falls to half of its peak or less and comes back to 80 % of it, or falls to half in a row and rises "
        "in each of the next 5, once; a schedule that repeats is meant "
        "(Loshchilov and Hutter 2017, arXiv:1608.03983).",
        _LOG,
        lr.restart,
    ),
    Kind(
        "warmup-never-ends",
        "warning",
        "The LR rises to the last row of a run that has done its planned steps.",
        _LOG,
        lr.warmup_never_ends,
    ),
    Kind(
        "lr-still-rising",
        "info",
        "The LR rises to the last row, and more steps were planned or the plan is not in the log.",
        _LOG,
        lr.lr_still_rising,
    ),
    Kind(
        "lr-decayed-early",
        "warning",
        "The LR is 0 over the last fifth of the rows or more, and was not rounded to 0.",
        _LOG,
        lr.decayed_early,
    ),
    Kind("lr-schedule", "info", "The log has LRs: warm-up, peak, last.", _LOG, lr.schedule_line),
    Kind(
        "overfitting",
        "info",
        "Of 4 evaluations or more the best lies at least 3 back, the last is higher by over 2 % and three times their "
        "jitter, and the train loss fell meanwhile. Never in the exit code.",
        _OWN,
        validation.overfitting,
    ),
    Kind(
        "at-chance",
        "warning",
        "The last half of at least 20 rows lies within 1 % of ln V, log2 V (`--vocab V`) or `--baseline`.",
        "Entropy of the uniform distribution",
        chance.at_chance,
    ),
    Kind(
        "near-ln-classes",
        "info",
        "The loss is flat and within 0.2 % of ln k, for k = 2, 3, 4, 5, 10, 100 or 1000.",
        "Entropy of the uniform distribution",
        chance.near_ln_classes,
    ),
    Kind(
        "start-off-chance",
        "info",
        "With `--vocab V`: the first loss lies over 15 % above or 10 % below ln V.",
        "Entropy of the uniform distribution",
        chance.start_off_chance,
    ),
)

RUN_KINDS: tuple[Kind[Run], ...] = (
    Kind("several-runs", "info", "More than one run is in the log.", _LOG, runs.several_runs),
    Kind("resumed", "info", "The run was resumed.", _LOG, runs.resumed),
    Kind(
        "ends-early",
        "info",
        "The last row lies more than 5 % before the planned end, where the log names one.",
        _LOG,
        runs.ends_early,
    ),
    Kind(
        "resume-loss-jump",
        "warning",
        "The loss rises at a resume by 5 % of its level, 6 standard deviations of a row and twice its own slope.",
        _OWN,
        seams.loss_jump,
    ),
    Kind("resume-loss-drop", "warning", "The loss falls at a resume by as much.", _OWN, seams.loss_drop),
    Kind(
        "resume-lr",
        "warning",
        "The LR rises by a fifth or falls to half at a resume, and by three times what it changed by from row to row.",
        _LOG,
        seams.lr_changed,
    ),
    Kind(
        "resume-grad-norm",
        "warning",
        "The gradient norm's median triples at a resume, and the rows of both sides do not overlap.",
        _OWN,
        seams.grad_norm_jump,
    ),
    Kind("resume-gap", "warning", "Steps are in no row at a resume.", _LOG, seams.step_gap),
    Kind(
        "resume-overlap",
        "info",
        "Steps were logged on both sides of a resume; the later rows count.",
        _LOG,
        seams.overlap,
    ),
)

# What is said beside a spike, most telling first.
SPIKE_SIGNS: tuple[before.Sign, ...] = (
    before.lr_jump,
    before.lr_rise,
    before.warmup_end,
    before.grad_norm_rise,
    before.loss_scale_fall,
    before.skipped_steps,
    before.seam,
    before.epoch_edge,
)

KINDS: Mapping[str, Kind[Stretch] | Kind[Run]] = {
    **{kind.name: kind for kind in SEGMENT_KINDS},
    **{kind.name: kind for kind in RUN_KINDS},
}
