"""Why no held learning rate trained: what the losses at the smallest show, and what to try next."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.reports.numbers import HOW_IT_BROKE, has_constant, loss, loss_unit, lr, number
from stresstest.results.records import TRAINED, Cell, Finding
from stresstest.specs.kinds import is_user_model

_CLOSE = 0.05  # of a loss: two that differ by less are called the same
_BEYOND = 16.0  # times: how far the range to try next goes beyond the one that was held

Trial = Mapping[str, Any]  # the record of one held learning rate


def never_trained(
    variant: str, done: Sequence[Cell], spec: Mapping[str, Any], data: Mapping[str, Any]
) -> Iterator[Finding]:
    """Where every held LR of some seeds failed: how it did at the smallest, and what fits that."""
    silent = [cell for cell in done if cell.metrics["max_stable_lr"].low is None]
    if not silent:
        return
    trials = [trial for cell in silent for trial in cell.hold]
    lrs = [trial["lr"] for trial in trials]
    low, high = min(lrs), max(lrs)
    smallest = _alike([trial for trial in trials if trial["lr"] == low])
    advice = _advice(smallest, trials, spec, data) if is_user_model(spec["model"]) else _BUILT_IN
    text = (
        f"{variant} did not train at any held LR from {lr(low)} to {lr(high)} in {spec['hold_steps']} steps "
        f"({len(silent)} of {len(done)} seeds). {advice}. At the smallest LR it "
        f"{_how(smallest, data)}."
    )
    yield Finding(kind="never-trained", subject=variant, text=text)


def too_little_to_learn(
    variant: str, done: Sequence[Cell], spec: Mapping[str, Any], data: Mapping[str, Any], of: str = "seeds"
) -> Iterator[Finding]:
    """Where all harmless LRs of some cells are flat: the boundary is known all the same."""
    flat = [cell for cell in done if only_flat(cell)]
    if not flat:
        return
    trials = [trial for cell in flat for trial in cell.hold if trial["outcome"] == "flat"]
    lrs, unit = [trial["lr"] for trial in trials], loss_unit(data)
    start, lowest = _middle(trials, "initial_loss"), _middle(_lowest(flat), "last_loss")
    parts = [f"a loss of {loss(start, unit)} at the start"] if start is not None else []
    parts += [f"{loss(lowest, unit)} at the end of the best"] if start is not None and lowest is not None else []
    parts += [f"{loss(data['baseline_loss'], unit)} for the best constant predictor"] if has_constant(data) else []
    held = lr(min(lrs)) if min(lrs) == max(lrs) else f"{lr(min(lrs))} to {lr(max(lrs))}"
    text = (
        f"{variant}: too little to learn in {spec['hold_steps']} steps to tell progress from noise "
        f"({len(flat)} of {len(done)} {of}; held at {held}{''.join(f', {part}' for part in parts)}). max_stable_lr is "
        "the largest LR that did no harm; raise --hold-steps to see progress."
    )
    yield Finding(kind="too-little-to-learn", subject=variant, text=text)


def only_flat(cell: Cell) -> bool:
    """Whether some held LR was harmless and none trained."""
    outcomes = {trial["outcome"] for trial in cell.hold}
    return "flat" in outcomes and not outcomes & TRAINED


_BUILT_IN = (
    "Try a norm variant, fewer blocks or more --hold-steps: it is too deep for this variant, or has too few steps"
)


def _how(trials: Sequence[Trial], data: Mapping[str, Any]) -> str:
    """The outcome in words, and the loss beside its start and the constant predictor's."""
    unit, outcome = loss_unit(data), str(trials[0]["outcome"])
    words = HOW_IT_BROKE[outcome]
    if outcome == "failed-to-train" and not has_constant(data):
        words = "never gets clearly below its initial loss"
    start, end = _middle(trials, "initial_loss"), _middle(trials, "last_loss")
    parts = [f"{loss(start, unit)} at the start"] if start is not None else []
    if end is not None:
        parts.append(f"{loss(end, unit)} {'when last finite' if outcome == 'nonfinite' else 'at the end'}")
    if not parts:
        return words
    parts += [f"{loss(data['baseline_loss'], unit)} for the best constant predictor"] if has_constant(data) else []
    return f"{words} (loss {', '.join(parts)})"


def _advice(
    smallest: Sequence[Trial], trials: Sequence[Trial], spec: Mapping[str, Any], data: Mapping[str, Any]
) -> str:
    """What to try with the user's own model; only what the records bear out."""
    outcome, held = smallest[0]["outcome"], sorted({trial["lr"] for trial in trials})
    lower = f"Start lower (--start-lr {number(held[0] / _BEYOND)})"
    if outcome in ("exploded", "nonfinite"):
        return f"{lower}; if it breaks there too, check the data and the initialisation"
    if outcome == "relapsed":
        return lower
    slow = [trial for trial in trials if trial["outcome"] == "failed-to-train"]
    if has_constant(data) and all(_ends_at(trial, data["baseline_loss"]) for trial in slow):
        return (
            "Check for shuffled labels and for frozen or detached parts: it only reaches the constant "
            "predictor, so the "
            "inputs may not inform the targets. Otherwise raise --hold-steps"
        )
    if len(slow) == len(trials) and 2.0 * held[-1] > spec["end_lr"] and _largest_is_lowest(trials, held[-1]):
        higher = f"--end-lr {number(_BEYOND * spec['end_lr'])}"
        return f"Try higher LRs ({higher}) or more --hold-steps: all are slow, and the loss still falls at the largest"
    if has_constant(data) and data.get("starts_from") and any(map(_gains, slow)):
        return (
            "Raise --hold-steps, or train more of the model: LRs that lower the loss of the weights that it starts "
            "from do not bring it below the constant predictor's, which a collapse reaches too, so they are not "
            "counted as trained"
        )
    if all(map(_still_falls, smallest)):
        return "Raise --hold-steps: the loss still falls at the smallest LR"
    if all(map(_stays, slow)):
        return (
            "Check for frozen or detached parts, or try larger LRs or more --hold-steps: wherever it does not break, "
            "the loss stays at its initial value"
        )
    return "Raise --hold-steps, and check that this data allows a lower loss"


def _alike(trials: Sequence[Trial]) -> list[Trial]:
    """Those with the commonest outcome."""
    most = statistics.mode([trial["outcome"] for trial in trials])
    return [trial for trial in trials if trial["outcome"] == most]


def _lowest(cells: Sequence[Cell]) -> list[Trial]:
    """Of each seed, the flat hold that ends lowest."""
    flat = [[trial for trial in cell.hold if trial["outcome"] == "flat"] for cell in cells]
    known = [[trial for trial in trials if _number(trial, "last_loss") is not None] for trials in flat]
    return [min(trials, key=lambda trial: float(trial["last_loss"])) for trials in known if trials]


def _middle(trials: Sequence[Trial], name: str) -> float | None:
    known = [value for trial in trials if (value := _number(trial, name)) is not None]
    return statistics.median(known) if known else None


def _number(trial: Trial, name: str) -> float | None:
    """A finite number of a record; `None` where it is another, or is not there."""
    value = trial.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _ends_at(trial: Trial, level: float) -> bool:
    """Whether a run ended at a loss, within a share of it."""
    end = _number(trial, "last_loss")
    return end is not None and abs(end - level) <= _CLOSE * abs(level)


def _still_falls(trial: Trial) -> bool:
    """Whether the loss ended clearly below its start, and about as low as it ever was."""
    start, best, end = (_number(trial, name) for name in ("initial_loss", "best_loss", "last_loss"))
    if start is None or best is None or end is None:
        return False
    return start - end > _CLOSE * abs(start) and end - best <= _CLOSE * (start - best)


def _gains(trial: Trial) -> bool:
    """Whether the loss ended clearly below its start."""
    start, end = _number(trial, "initial_loss"), _number(trial, "last_loss")
    return start is not None and end is not None and start - end > _CLOSE * abs(start)


def _stays(trial: Trial) -> bool:
    start = _number(trial, "initial_loss")
    return start is not None and _ends_at(trial, start)


def _largest_is_lowest(trials: Sequence[Trial], largest: float) -> bool:
    """Whether the largest held LR still fell, to a loss below that of every smaller one."""
    top = [trial for trial in trials if trial["lr"] == largest]
    high, rest = _middle(top, "last_loss"), [_number(trial, "last_loss") for trial in trials if trial not in top]
    return all(map(_still_falls, top)) and high is not None and all(end is None or high < end for end in rest)
