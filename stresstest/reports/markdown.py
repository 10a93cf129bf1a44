"""A result as Markdown, for pull requests and notes."""

from __future__ import annotations

from stresstest.findings import interval, middle
from stresstest.results import MetricSummary, Result

_COLUMNS = ("max_stable_lr", "onset_lr", "explosion_lr", "steps_survived", "lr_window", "validation_loss")


def render_markdown(result: Result) -> str:
    """A table of variants, the findings, and how to run it again."""
    lines = [
        f"### stresstest {result.command}",
        "",
        "| variant | " + " | ".join(_COLUMNS) + " |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for row in result.summary:
        values = (_value(row.metrics.get(name)) for name in _COLUMNS)
        lines.append(f"| {row.variant} | " + " | ".join(values) + " |")
    lines += ["", *(f"- {finding.text}" for finding in result.findings), "", f"`{result.reproduce}`", ""]
    return "\n".join(lines)


def _value(metric: MetricSummary | None) -> str:
    return "-" if metric is None else f"{middle(metric)} ({interval(metric)})"
