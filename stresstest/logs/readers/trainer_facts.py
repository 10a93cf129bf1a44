"""What is known of the rows that transformers' Trainer logs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stresstest.logs.curve import Curve, FormatFacts, Role


def trainer_facts(curves: Mapping[str, Curve], planned_steps: int | None = None) -> FormatFacts:
    """What is known of the Trainer's rows: means since the last row, 0.0 where the loss was NaN or infinite."""
    names: dict[Role, str] = {"step": "step", "epoch": "epoch", "loss": "loss", "lr": "learning_rate"}
    names["grad_norm"] = "grad_norm"
    roles: dict[Role, str] = {role: name for role, name in names.items() if role == "step" or name in curves}
    validation = next((name for name in curves if name.startswith("eval_") and name.endswith("loss")), None)
    if validation is not None:
        roles["validation"] = "eval_loss" if "eval_loss" in curves else validation
    losses = curves["loss"].value if "loss" in curves else np.empty(0)
    finite = losses[np.isfinite(losses)]
    rounded = len(finite) > 0 and bool((np.round(finite, 4) == finite).all())
    return FormatFacts(
        roles,
        row_kind="mean",
        zero_for_nan=True,
        planned_steps=planned_steps,
        step_base=1,
        loss_decimals=4 if rounded else None,
    )
