"""Sentences that several reports share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stresstest.reports.numbers import has_constant, loss, loss_unit, number, with_unit
from stresstest.results.records import Result
from stresstest.specs.base import is_own, kind_of

WIDE = 100  # columns of a terminal from which a table has air
LR_RANGE_COLUMNS = tuple(
    "max_stable_lr onset_lr explosion_lr steps_survived lr_window validation_loss critical_lr predicted_lr".split()
)


def paragraph(console: Console, text: str, bullet: str = "", style: str = "") -> None:
    """Wrapped text without the trailing blanks that a padded block would print into a pipe."""
    indent = " " * len(bullet)
    for line in textwrap.wrap(
        text, min(console.width, 110), initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False
    ):
        console.print(Text(line, style=style))


def plain_table(width: int) -> Table:
    """A table without a frame; where there is room, with air between its columns and a line under the headers."""
    wide = width >= WIDE
    return Table(box=box.SIMPLE_HEAD if wide else None, padding=(0, 1) if wide else (0, 1, 0, 0), pad_edge=False)


def model_words(spec: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The model and its shape; of the user's own, what its factory takes."""
    names = [name for name in ("depth", "width") if name in spec and name in data.get("takes", ("depth", "width"))]
    shape = [f"{name} {spec[name]}" for name in names]
    others = [text for text in spec.get("set", ()) if text.partition("=")[0] not in names]
    return ", ".join([spec["model"], *others, *shape])


def data_words(spec: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """What the model is and what it learns."""
    if is_own(spec["model"]):
        size = spec["batch_size"] if isinstance(spec["batch_size"], str) else data.get("examples", spec["batch_size"])
        examples = f"{size} examples per step of {data['name']}"
        if not has_constant(data):
            return f"{examples} (constant predictor unknown: give a baseline_loss, or a collapse to it goes unseen)"
        found = f", {data['constant']}" if data.get("constant") else ""
        return f"{examples} (constant predictor: {loss(data['baseline_loss'], loss_unit(data))}{found})"
    batch, length = spec["batch_size"], spec["seq_len"]
    examples = {
        "language": f"{batch} x {length} bytes per step",
        "masked-language": f"{batch} x {length} bytes per step (15 % masked)",
        "translation": f"{batch} sentence pairs below {length} tokens per step",
        "images": f"{batch} images per step",
    }[spec["task"]]
    examples = examples if spec["task"] == "images" else f"{spec['heads']} heads, {examples}"
    norm = "" if "norm" in kind_of(spec["model"]).lacks else f"{spec['norm']}, "
    words = f"{norm}{examples} of {data['name']} (constant predictor: {data['baseline_loss']:.2f} nats)"
    published = kind_of(spec["model"]).published
    others = [] if published is None else [name for name in spec["variant"] if name.partition(":")[0] not in published]
    return f"{words}; analogues of a transformer's variants: {', '.join(others)}" if others else words


def loss_format(result: Result) -> Callable[[float], str]:
    """How a table writes losses: to two decimals, and the small ones of a loss of its own unit to two digits."""
    if not is_own(result.spec["model"]):
        return "{:.2f}".format
    return lambda value: f"{value:.2f}" if 0.1 <= abs(value) < 100.0 else number(value)


def loss_range(result: Result) -> tuple[float, float]:
    """(lowest, highest) of a chart of the ramps' losses: to a quarter above the constant predictor's or a guess's.

    Where training starts below it, or it is not known: to a quarter above the start.
    """
    curves = [row.curve for row in result.summary if row.curve]
    top = max(result.data["baseline_loss"], result.data["chance_loss"])
    start = max(curve[0][1] for curve in curves)
    if is_own(result.spec["model"]) and (start < result.data["baseline_loss"] or not has_constant(result.data)):
        top = start
    return min(loss for curve in curves for _, loss in curve), top + 0.25 * abs(top)


def loss_ends(result: Result) -> tuple[str, str]:
    """The ends of that range in words."""
    if is_own(result.spec["model"]):
        low, high = map(number, loss_range(result))
    else:
        low, high = (f"{end:.1f}" for end in loss_range(result))
    return low, with_unit(high, loss_unit(result.data))


def constant_words(result: Result) -> str:
    """The loss of the best constant predictor, and how it was found."""
    data = result.data
    if not has_constant(data):
        return "constant predictor unknown"
    if not is_own(result.spec["model"]):
        return f"constant predictor {data['baseline_loss']:.3f} nats"
    found = f", {data['constant']}" if data.get("constant") else ""
    return f"constant predictor {loss(data['baseline_loss'], loss_unit(data))}{found}"


def probes_words(result: Result) -> str:
    """What reading the replicas cost, measured; nothing where nothing was read."""
    spent = sum(cell.probe_seconds for cell in result.cells)
    total = sum(cell.seconds for cell in result.cells)
    if not spent or not total:
        return ""
    return f" Probes (--probes {result.spec['probes']}) took {spent / total:.0%} of the time."


def sweep_words(result: Result) -> str:
    """What a depth sweep trained, or looked at, and on which machine."""
    spec, env = result.spec, result.environment
    parts = [data_words(spec, result.data)]
    if not spec["init_only"] and "outcome" in spec["measure"]:
        warmup = f" after {spec['warmup_steps']} warm-up steps" if spec["warmup_steps"] else ""
        parts.append(f"fixed recipe: {spec['optimizer']} at {spec['peak_lr']:g}{warmup}, {spec['train_steps']} steps")
    if not spec["init_only"] and {"ramp", "hold"} & set(spec["measure"]):
        ramp = f"{spec['ramp']} ramp {spec['start_lr']:g} to {spec['end_lr']:g} in {spec['num_steps']} steps"
        parts.append(f"{spec['optimizer']}, {ramp}")
        if "hold" in spec["measure"]:
            parts[-1] += f", holds of {spec['hold_steps']} steps"
    dtype = "float64" if spec["init_only"] else spec["dtype"]
    return f"{'; '.join(parts)}; {env['device_name']}, {dtype}"
