"""Formats that are known by the names of their columns, be they rows of CSV or of JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresstest.logs.curve import Curve, FormatFacts, Role
from stresstest.logs.readers.boosting import is_metric, is_score
from stresstest.logs.readers.trainer_facts import trainer_facts
from stresstest.logs.readers.yolo import is_yolo, yolo_facts, yolo_totals

Curves = Mapping[str, Curve]
Names = Collection[str]


@dataclass(frozen=True)
class Known:
    """A format: whether names are its own, what counts its steps, and what is known of its curves."""

    name: str
    step: str
    fits: Callable[[Names], bool]
    facts: Callable[[Curves], FormatFacts]


def recognised(names: Names, of_csv: bool, file_name: str = "") -> Known | None:
    """The format whose names these are."""
    if of_csv and _is_lightning(names, file_name):
        return _LIGHTNING
    known = next((known for known in (_OF_CSV if of_csv else _OF_JSON) if known.fits(names)), None)
    if known is not None and known.step == "_step":
        own = next((name for name in _OWN_STEPS if name in names), "_step")
        return replace(known, step=own)
    return known


def with_totals(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """The curves, and where the loss is written in parts only, their sum."""
    return {**yolo_totals(curves), **curves} if is_yolo(curves) else dict(curves)


def _is_lightning(names: Names, file_name: str) -> bool:
    if "step" not in names or "epoch" not in names or "current_steps" in names:
        return False
    halves = {name[: -len(end)] for name in names for end in ("_step", "_epoch") if name.endswith(end)}
    monitors = any(name.startswith("lr-") for name in names)
    return file_name == "metrics.csv" or monitors or any(f"{half}_step" in names for half in halves)


def _lightning(curves: Curves) -> FormatFacts:
    roles: dict[Role, str] = {"step": "step", "epoch": "epoch"}
    lr = next((name for name in curves if name.startswith("lr-") and not name.endswith(("-momentum", "decay"))), None)
    if lr is not None:
        roles["lr"] = lr
    loss = next((name for name in ("train_loss_step", "train/loss_step", "loss_step") if name in curves), None)
    if loss is not None:
        roles["loss"] = loss
    return FormatFacts(roles, row_kind="unknown" if loss is None else "sample", step_base=0)


def _keras(curves: Curves) -> FormatFacts:
    roles: dict[Role, str] = {"step": "epoch", "epoch": "epoch", "loss": "loss"}
    beside: tuple[tuple[Role, str], ...] = (("validation", "val_loss"), ("lr", "learning_rate"), ("lr", "lr"))
    roles |= {role: name for role, name in beside if name in curves}
    return FormatFacts(roles, row_kind="mean", step_base=0, row_note="the mean of an epoch")


def _is_keras(names: Names) -> bool:
    """CSVLogger sorts what stands behind the epoch, and every metric has its `val_` twin."""
    rest = [name for name in names if name != "epoch"]
    return (
        next(iter(names), "") == "epoch"
        and "loss" in rest
        and "step" not in rest
        and rest == sorted(rest)
        and not any("/" in name for name in rest)
    )


def _detectron2(curves: Curves) -> FormatFacts:
    roles: dict[Role, str] = {"step": "iteration", "loss": "total_loss", "lr": "lr"}
    return FormatFacts(roles, row_kind="mean", step_base=0, row_note="the median of the last 20 steps")


def _mmengine(curves: Curves) -> FormatFacts:
    roles: dict[Role, str] = {"step": "step", "loss": "loss", "lr": "lr", "epoch": "epoch"}
    if "grad_norm" in curves:
        roles["grad_norm"] = "grad_norm"
    return FormatFacts(roles, row_kind="window", step_base=1, row_note="the mean of a sliding window of steps")


def _mmcv(curves: Curves) -> FormatFacts:
    roles: dict[Role, str] = {"step": "iter", "epoch": "epoch", "loss": "loss", "lr": "lr"}
    return FormatFacts(roles, row_kind="mean", step_base=1)


def _trainer_log(curves: Curves) -> FormatFacts:
    lr = "lr" if "lr" in curves else "learning_rate"
    roles: dict[Role, str] = {"step": "current_steps", "loss": "loss", "lr": lr, "validation": "eval_loss"}
    total = curves.get("total_steps")
    planned = None if total is None or not np.isfinite(total.value[-1]) else int(total.value[-1])
    return FormatFacts(
        {role: name for role, name in roles.items() if role == "step" or name in curves},
        row_kind="mean",
        zero_for_nan=True,
        planned_steps=planned,
        step_base=1,
        loss_decimals=4,
    )


def _wandb(curves: Curves) -> FormatFacts:
    step = next((name for name in _OWN_STEPS if name in curves), "_step")
    return FormatFacts({"step": step}, row_note="sampled, if it came from `run.history()`")


def _catboost(curves: Curves) -> FormatFacts:
    metric = next((name for name in curves if name != "iter" and not is_score(name)), None)
    roles: dict[Role, str] = {"step": "iter"} if metric is None else {"step": "iter", "loss": metric}
    return FormatFacts(roles, row_kind="sample", step_base=0)


def _is_trainer(names: Names) -> bool:
    """The Trainer's rows, told from others by what only its evaluations and its summary hold."""
    return {"loss", "epoch", "step"} <= set(names) and bool(_TRAINER_ONLY & set(names))


def has(*wanted: str) -> Callable[[Names], bool]:
    """Whether all of these names are there."""
    return lambda names: all(name in names for name in wanted)


_TRAINER_ONLY = {"eval_runtime", "train_runtime", "total_flos", "eval_samples_per_second"}
_OWN_STEPS = ("train/global_step", "trainer/global_step", "global_step")  # W&B's own counts calls
_LIGHTNING = Known("Lightning CSV", "step", has("step", "epoch"), _lightning)
_OF_CSV = (
    Known("YOLO results.csv", "epoch", is_yolo, yolo_facts),
    Known("W&B history", "_step", has("_step", "_runtime", "_timestamp"), _wandb),
    Known("Hugging Face log history", "step", _is_trainer, trainer_facts),
    Known("Keras CSV", "epoch", _is_keras, _keras),
)
_OF_JSON = (
    Known("LLaMA-Factory trainer_log.jsonl", "current_steps", has("current_steps", "total_steps"), _trainer_log),
    Known("detectron2 metrics.json", "iteration", has("iteration", "total_loss", "data_time"), _detectron2),
    Known("mmengine scalars.json", "step", has("iter", "step", "loss", "lr"), _mmengine),
    Known("mmcv log.json", "iter", has("mode", "iter", "epoch", "lr"), _mmcv),
    Known("W&B history", "_step", has("_step", "_timestamp"), _wandb),
    Known("Hugging Face log history", "step", _is_trainer, trainer_facts),
)
_CATBOOST = (
    Known("catboost errors", "iter", has("iter"), _catboost),
    Known("catboost errors of the test set", "iter", has("iter"), _catboost),
)


def of_catboost(names: Sequence[str], file_name: str) -> Known | None:
    """Its `learn_error.tsv` and `test_error.tsv`; not `time_left.tsv`, nor a table of one's own by `iter`."""
    if names[0] != "iter" or len(names) < 2 or not all(map(is_metric, names[1:])):
        return None
    return _CATBOOST[file_name.startswith("test")]
