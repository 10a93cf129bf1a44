"""What to try next, from what was seen: at most three steps, with a command where there is one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import islice

import numpy as np

from stresstest.diagnosis.course import LEAST_ROWS
from stresstest.diagnosis.findings.base import at_step, value_at
from stresstest.diagnosis.findings.before import NEAR_ROWS
from stresstest.diagnosis.findings.fp16 import no_step_taken
from stresstest.diagnosis.findings.nonfinite import first_exploded_row, first_suspect_row
from stresstest.diagnosis.findings.schedule import phase_at
from stresstest.diagnosis.findings.stretch import Run, Stretch
from stresstest.diagnosis.records import BROKEN

MOST = 3
_OTHER_LOSS = re.compile(r"^(?!.*(val|eval|test|epoch)).*loss")
_OWN_MODEL, _HUB_MODEL = "FILE.py:FACTORY", "hf:FOLDER"
_OF_TRANSFORMERS = ("Hugging Face", "transformers", "LLaMA-Factory")
_BEYOND = 10.0  # times the LR at a break: the edge lies at or below it
_MOST_LR = 10.0  # of a sweep above an LR that did not break


def steps_to_try(run: Run) -> Iterator[str]:
    """The first three of what fits: of the first break, else of the spikes, else of a loss that was not clear."""
    yield from islice(_all(run), MOST)


def _all(run: Run) -> Iterator[str]:
    broken = next((stretch for stretch in run.stretches if stretch.course.outcome in BROKEN), None)
    if any(True for stretch in run.stretches for _ in no_step_taken(stretch)):
        yield "Train in bfloat16 or float32, or start from a lower loss scale: in float16 no step was taken."
    elif broken is not None:
        yield from _after_break(broken, _model(run))
    else:
        yield from _after_spikes(run)
    if all(stretch.course.outcome is None for stretch in run.stretches):
        yield from _other_losses(run)


def _model(run: Run) -> str:
    """How the command names the user's model: Trainer's own is a folder that `save_pretrained` wrote."""
    return f"--model {_HUB_MODEL if run.log.format.startswith(_OF_TRANSFORMERS) else _OWN_MODEL}"


def _after_break(stretch: Stretch, model: str) -> Iterator[str]:
    row = stretch.course.onset_row
    if stretch.course.outcome == "failed-to-train" or row is None:
        yield f"Find LRs at which the model learns: stresstest lr-range {model} --lr-window"
        return
    row = first_exploded_row(stretch, first_suspect_row(stretch, row))
    bad = float(stretch.steps[row])
    lr = value_at(stretch.lr, bad)
    if lr is None or not lr > 0:
        yield from _resume_before(stretch, row, "with a lower peak LR")
        yield f"Measure how high the LR may be: stresstest lr-range {model}"
        return
    yield from _resume_before(stretch, row, f"with an LR of at most {lr / 2:.2g} (half of that at the break)")
    yield (
        "Measure how high the LR may be: stresstest lr-range "
        f"{model} --start-lr {lr / 1000:.2g} --end-lr {_plain(lr * _BEYOND)}"
    )
    if _near_warmup(stretch, row):
        yield (
            "The break lies in or just after warm-up; map its length against the peak: stresstest warmup "
            f"{model} --start-lr {lr / 8:.2g} --end-lr {_plain(lr * 4)}"
        )


def _resume_before(stretch: Stretch, row: int, how: str) -> Iterator[str]:
    if row > 1 and _had_learned(stretch, row):
        yield f"Resume from the last checkpoint before step {at_step(stretch.steps[row])}, {how}."
    else:
        yield f"Start again {how}."


def _had_learned(stretch: Stretch, row: int) -> bool:
    """Whether there is anything to go back to: a tenth of the first loss was learned."""
    losses = stretch.losses[:row]
    return bool(np.nanmin(losses) < losses[0] - 0.1 * abs(losses[0])) if np.isfinite(losses[0]) else False


def _near_warmup(stretch: Stretch, row: int) -> bool:
    lr = stretch.lr
    if lr is None or not row:
        return False
    end = stretch.schedule.warmup_end_step
    just_ended = end is not None and stretch.steps[max(0, row - NEAR_ROWS)] <= end
    return just_ended or phase_at(lr, stretch.schedule, float(stretch.steps[row - 1])) == "in warm-up"


def _after_spikes(run: Run) -> Iterator[str]:
    spiked = [stretch for stretch in run.stretches if stretch.course.outcome == "spiked"]
    found = [(stretch, spike) for stretch in spiked for spike in stretch.course.spikes]
    if not found:
        return
    stretch, spike = max(found, key=lambda each: each[1].peak - each[1].level_before)
    first, last = float(stretch.steps[spike.first]), float(stretch.steps[spike.last])
    if stretch.known.unit == "steps" and spike.last - spike.first < 0.1 * len(stretch.steps):
        yield (
            f"Train from the last checkpoint before step {at_step(first)} and skip the batches of "
            f"{_steps(first - stretch.row_steps + 1, last)}: a spike that stays away came with them, one that returns "
            "did not."
        )
    lr = value_at(stretch.lr, first)
    if lr is not None and lr > 0:
        yield (
            "Measure how far the LR is from the edge: stresstest lr-range "
            f"{_model(run)} --start-lr {lr / 1000:.2g} --end-lr {_plain(max(lr * _BEYOND, min(lr * 100, _MOST_LR)))}"
        )


def _plain(lr: float) -> str:
    """Two digits, without an exponent where it is large."""
    return f"{lr:.2g}" if lr < 100 else f"{lr:.0f}"


def _steps(first: float, last: float) -> str:
    return f"step {at_step(first)}" if first == last else f"steps {at_step(first)} to {at_step(last)}"


def _other_losses(run: Run) -> Iterator[str]:
    log = run.log
    others = [name for name in log.columns if _OTHER_LOSS.search(name.lower()) and name != log.loss_key]
    enough = any(len(stretch.losses) >= LEAST_ROWS for stretch in run.stretches)
    if others and enough and log.path != "-":
        yield (
            f"If the train loss is another column than '{log.loss_key}', name it: stresstest diagnose "
            f"{shlex.quote(log.path)} --metric {shlex.quote(others[0])}"
        )
