"""Which of a log's names is the step, the loss, the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stresstest.logs.curve import Role

# In the order in which they are preferred; compared in lower case.
_NAMES: Mapping[Role, tuple[str, ...]] = {
    "step": ("step", "global_step", "iteration", "iter", "current_steps", "_step", "trainer/global_step", "steps"),
    "epoch": ("epoch",),
    "loss": (
        "loss",
        "train_loss",
        "train/loss",
        "train_loss_step",
        "total_loss",
        "lm loss",
        "mean_loss",
        "training_loss",
        "train/crossentropyloss",
        "train_loss_epoch",
    ),
    "validation": ("val_loss", "eval_loss", "eval/loss", "val/loss", "valid_loss", "validation_loss"),
    "lr": ("learning_rate", "lr", "learning rate", "train/learning_rate"),
    "grad_norm": ("grad_norm", "grad norm", "gnorm", "train/grad_norm"),
    "loss_scale": ("loss scale", "loss_scale"),
    "skipped": ("number of skipped iterations",),
}


def step_key(keys: Iterable[str]) -> str | None:
    """The name of the step among these."""
    return find("step", keys)


def find(role: Role, keys: Iterable[str]) -> str | None:
    """The name that plays a role among these; None if none does."""
    by_lower = {key.lower(): key for key in keys}
    return next((by_lower[name] for name in _NAMES.get(role, ()) if name in by_lower), None)
