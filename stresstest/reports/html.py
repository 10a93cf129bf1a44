"""A result as one self-contained HTML page: no network, readable without JavaScript, light and dark."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stresstest.reports.contest import contest_facts
from stresstest.reports.html_depth_sweep import depth_sweep_facts
from stresstest.reports.numbers import has_constant, interval, lr, middle, number
from stresstest.reports.warmup_map import warmup_facts
from stresstest.reports.words import LR_RANGE_COLUMNS, constant_words, loss_format, loss_range, model_words
from stresstest.results.records import MetricSummary, Result, SummaryRow
from stresstest.specs.base import is_own

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 200, 44, 24


def render_html(result: Result) -> str:
    """The page's text."""
    environment = Environment(loader=PackageLoader("stresstest", "reports"), autoescape=True, undefined=StrictUndefined)
    template, facts_of = _PAGES[result.command]
    model = model_words(result.spec, result.data)
    settings = json.dumps({"spec": result.spec, "rules": result.rules}, indent=1)
    shared = {"result": result, "settings": settings, "model": model, "constant": constant_words(result)}
    return environment.get_template(template).render(shared | {"loss": loss_format(result)} | facts_of(result))


def _lr_range_facts(result: Result) -> dict[str, Any]:
    return {
        "columns": LR_RANGE_COLUMNS,
        "value": _value,
        "times": lambda row: _value(row.times_weakest),
        "chart": lambda row: _chart(result, row),
        "held": lambda row: _held(result, row),
    }


def _value(metric: MetricSummary | None) -> dict[str, str]:
    if metric is None:
        return {"middle": "-", "interval": ""}
    return {"middle": middle(metric), "interval": interval(metric)}


def _chart(result: Result, row: SummaryRow) -> dict[str, Any]:
    """Coordinates of the loss curve and its marks in an SVG of fixed size."""
    spec = result.spec
    ends = (spec["start_lr"] or spec["end_lr"] / spec["num_steps"], spec["end_lr"])
    low, high = loss_range(result)
    baseline = result.data["baseline_loss"]
    known = has_constant(result.data) and baseline <= high
    label = number if is_own(spec["model"]) else "{:.1f}".format

    def x(value: float) -> float:
        share = math.log(value / ends[0]) / math.log(ends[1] / ends[0])
        return round(_LEFT + share * (_WIDTH - _LEFT - 16), 1)

    def y(loss: float) -> float:
        share = (min(loss, high) - low) / ((high - low) or 1.0)
        return float(round((1 - share) * (_HEIGHT - _BOTTOM - 8) + 8, 1))

    marks = []
    for name in ("max_stable_lr", "onset_lr", "explosion_lr"):
        metric = row.metrics.get(name)
        if metric is not None and metric.median.low is not None and metric.median.high is not None:
            marks.append({"x": x(max(ends[0], metric.median.low)), "name": name, "lr": lr(metric.median.low)})
    decades = range(math.ceil(math.log10(ends[0])), math.floor(math.log10(ends[1])) + 1)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "points": " ".join(f"{x(a)},{y(b)}" for a, b in row.curve if a > 0),
        "baseline": y(baseline) if known else None,
        "ticks": [{"x": x(10.0**d), "label": f"1e{d}"} for d in decades],
        "losses": [{"y": y(v), "label": label(v)} for v in (low, *([baseline] if known else []), high)],
        "marks": marks,
    }


def _held(result: Result, row: SummaryRow) -> list[dict[str, Any]]:
    """The held LRs of one variant, by LR, with each seed's outcome."""
    outcomes: dict[float, dict[int, Mapping[str, Any]]] = {}
    for cell in result.cells:
        if cell.variant == row.variant:
            for trial in cell.hold:
                outcomes.setdefault(trial["lr"], {})[cell.seed] = trial
    return [{"lr": lr(value), "seeds": seeds} for value, seeds in sorted(outcomes.items())]


_PAGES: dict[str, tuple[str, Callable[[Result], dict[str, Any]]]] = {
    "lr-range": ("lr_range.html.j2", _lr_range_facts),
    "depth-sweep": ("depth_sweep.html.j2", depth_sweep_facts),
    "warmup": ("warmup.html.j2", warmup_facts),
    "race": ("contest.html.j2", contest_facts),
    "batch-sweep": ("contest.html.j2", contest_facts),
}
