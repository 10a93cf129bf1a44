"""A result as Markdown, for pull requests and notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stresstest.reports.contest import contest_facts
from stresstest.reports.depth_table import main_columns, signal_columns, training_rows, trend_columns
from stresstest.reports.numbers import interval, middle
from stresstest.reports.warmup_map import (
    arm_title,
    best_settings,
    grid,
    legend,
    lr_headers,
    needs_words,
    over_lrs_rows,
    over_warmups_rows,
    place_words,
)
from stresstest.reports.words import LR_RANGE_COLUMNS, loss_format
from stresstest.results.records import MetricSummary, Result


def render_markdown(result: Result) -> str:
    """Tables, the findings, and how to run it again."""
    lines = [f"### stresstest {result.command}", "", *_TABLES[result.command](result)]
    lines += ["", *(f"- {finding.text}" for finding in result.findings), "", f"`{result.reproduce}`", ""]
    return "\n".join(lines)


def _lr_range(result: Result) -> list[str]:
    measured = [name for name in LR_RANGE_COLUMNS if any(name in row.metrics for row in result.summary)]
    rows = [[row.variant, *(_value(row.metrics.get(name)) for name in measured)] for row in result.summary]
    return _table(["variant", *measured], rows)


def _depth_sweep(result: Result) -> list[str]:
    columns, trends = main_columns(result), trend_columns(result)
    headers = ["variant", "depth", *(column.header.replace("\n", " ") for column in columns)]
    rows = [[row.variant, str(row.depth), *(column.text(row) for column in columns)] for row in result.summary]
    lines = _table(headers, rows)
    if len(result.spec["depths"]) > 1 and trends:
        over = [[row.variant, *(text(row) for _, text in trends)] for row in result.trends]
        lines += ["", *_table(["over depth", *(header for header, _ in trends)], over)]
    if training := training_rows(result):
        signal = signal_columns()
        headers = ["variant", "depth", "step", *(column.header.replace("\n", " ") for column in signal)]
        keys = [[one.row.variant, str(one.row.depth), str(one.step)] for one in training]
        texts = [[column.text(one.row) for column in signal] for one in training]
        lines += ["", *_table(headers, [key + text for key, text in zip(keys, texts, strict=True)])]
    return lines


def _warmup(result: Result) -> list[str]:
    lines, loss = [], loss_format(result)
    for trend in result.trends:
        lines += [f"**{arm_title(trend)}**", ""]
        rows = [[str(steps), *(place_words(place, loss) for place in places)] for steps, places in grid(trend).items()]
        lines += [*_table(["warm-up", *lr_headers(trend)], [*rows, ["needs", *needs_words(trend)]]), ""]
    sheets = [("variant", over_lrs_rows(result)), ("over warm-ups", over_warmups_rows(result))]
    for first, named in [*sheets, ("variant", best_settings(result))]:
        if named:
            lines += [*_table([first, *named[0][1]], [[name, *values.values()] for name, values in named]), ""]
    return [*lines, legend(result)]


def _contest(result: Result) -> list[str]:
    facts = contest_facts(result)
    lines = [f"{facts['title']}; {facts['setting']}", ""]
    for first, named in facts["sheets"]:
        lines += [*_table([first, *named[0][1]], [[name, *values.values()] for name, values in named]), ""]
    return [*lines, facts["legend"]]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(headers)} |",
        "|---|" + "---:|" * (len(headers) - 1),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _value(metric: MetricSummary | None) -> str:
    return "-" if metric is None else f"{middle(metric)} ({interval(metric)})"


_TABLES = {"lr-range": _lr_range, "depth-sweep": _depth_sweep, "warmup": _warmup}
_TABLES |= {"race": _contest, "batch-sweep": _contest}
