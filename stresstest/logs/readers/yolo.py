"""Ultralytics' `results.csv` (YOLOv5 to 11): an epoch a row, the loss in parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from stresstest.logs.curve import Curve, FormatFacts, Role


def is_yolo(names: Collection[str]) -> bool:
    """Losses of train and val in parts, beside metrics or the rates of parameter groups."""
    return bool(_parts(names, "train")) and any(name.startswith(("metrics/", "lr/pg", "x/lr")) for name in names)


def yolo_facts(curves: Mapping[str, Curve]) -> FormatFacts:
    """The sums of the parts are the losses; the LR is that of the group which warms up from below."""
    roles: dict[Role, str] = {"step": "epoch", "epoch": "epoch"}
    splits: tuple[tuple[Role, str], ...] = (("loss", "train"), ("validation", "val"))
    roles |= {role: "+".join(parts) for role, split in splits if (parts := _parts(curves, split))}
    rates = [name for name in curves if name.startswith(("lr/pg", "x/lr")) and len(curves[name])]
    if rates:
        roles["lr"] = min(rates, key=lambda name: float(curves[name].value[0]))
    return FormatFacts(roles, row_kind="mean", row_note="the mean of an epoch")


def yolo_totals(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """The train and the validation loss, summed over their parts, in the rows that have all of them."""
    totals = {}
    for split in ("train", "val"):
        parts = _parts(curves, split)
        if len(parts) > 1:
            totals["+".join(parts)] = _sum([curves[part] for part in parts])
    return totals


def _parts(names: Collection[str], split: str) -> list[str]:
    return [name for name in names if name.startswith(f"{split}/") and name.endswith("loss") and "+" not in name]


def _sum(curves: list[Curve]) -> Curve:
    rows = curves[0].row
    for curve in curves[1:]:
        rows = np.intersect1d(rows, curve.row)
    chosen = [np.isin(curve.row, rows) for curve in curves]
    total = np.sum([curve.value[at] for curve, at in zip(curves, chosen, strict=True)], axis=0)
    return Curve(curves[0].step[chosen[0]], total, rows)
