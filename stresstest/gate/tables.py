"""A verdict and claims as tidy tables, for CSV and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.gate.claims_report import Chapter
from stresstest.gate.records import CheckVerdict, GatedRow, GateLine
from stresstest.results.columns import CELL_COLUMNS, METRIC_COLUMNS, Column
from stresstest.results.statistics import MetricSummary
from stresstest.results.tables import Table, table_of

_PLACE: Mapping[str, Column] = {
    "experiment": Column("text", "The experiment, by its name in the scenario or its command."),
    **{name: CELL_COLUMNS[name] for name in ("variant", "depth", "optimizer")},
    "point": Column("text", "What else the row stands for, as JSON."),
    "metric": METRIC_COLUMNS["metric"],
}
_SIDES: Mapping[str, Column] = {
    "base_low": Column("number", "The base's value is at least this."),
    "base_high": Column("number", "The base's value is at most this."),
    "head_low": Column("number", "The head's value is at least this."),
    "head_high": Column("number", "The head's value is at most this."),
    "difference_low": Column("number", "The head differs by at least this; below 0 it is worse. Empty: unbounded."),
    "difference_high": Column("number", "The head differs by at most this. Empty: unbounded."),
    "unit": Column("text", "Unit of the difference."),
}
LINE_COLUMNS: Mapping[str, Column] = {
    **_PLACE,
    "threshold": Column("text", "What was asked for."),
    "level": Column("text", "error or warn."),
    "verdict": Column("text", "What became of it."),
    "reason": Column("text", "Why nothing could be judged, where nothing could."),
    **_SIDES,
    "p": Column("number", "p-value of a loss, adjusted over the lines."),
    "n": Column("integer", "Seeds that both sides have."),
    "alpha": Column("number", "The error that this look may spend."),
    "tolerance": Column("number", "The largest difference that is let pass, in the unit."),
    "resolution": Column("number", "How finely the metric is measured, in the unit."),
}
LINE_SEED_COLUMNS: Mapping[str, Column] = {**_PLACE, "seed": CELL_COLUMNS["seed"], **_SIDES}
LIMIT_COLUMNS: Mapping[str, Column] = {
    **_PLACE,
    **{name: LINE_COLUMNS[name] for name in ("threshold", "level")},
    "passed": Column("boolean", "Whether the limit is kept."),
    "value": Column("text", "What was measured, as printed."),
    "reason": LINE_COLUMNS["reason"],
}
CLAIM_COLUMNS: Mapping[str, Column] = {
    "scenario": Column("text", "The scenario that has the claim."),
    "paper": Column("text", "The paper."),
    "says": Column("text", "The claim."),
    "at": Column("text", "The place along the claim's path, where it has one."),
    "holds": Column("text", "What would have to hold."),
    "verdict": Column("text", "seen, not seen or undecided."),
    "median_low": Column("number", "The median over seeds is at least this."),
    "median_high": Column("number", "The median over seeds is at most this."),
    "low": Column("number", "Lower end of the median's interval; empty: unbounded."),
    "high": Column("number", "Upper end of the median's interval; empty: unbounded."),
    "seeds": Column("integer", "Seeds that it rests on."),
    "holding": Column("integer", "Seeds in which it holds."),
    "p": Column("number", "p-value of the two-sided sign test, adjusted over the paper's claims."),
    "published": Column("text", "What the paper has, at its own size."),
}
VERDICT_TABLES: Mapping[str, Mapping[str, Column]] = {
    "lines": LINE_COLUMNS,
    "seeds": LINE_SEED_COLUMNS,
    "limits": LIMIT_COLUMNS,
}


def verdict_tables(verdict: CheckVerdict) -> dict[str, Table]:
    """Each line, the same seed by seed, and each limit."""
    limits = ({**_place(limit.place, limit.metric), **limit.model_dump()} for limit in verdict.limits)
    return {
        "lines": table_of(map(_line, verdict.lines), tuple(LINE_COLUMNS)),
        "seeds": table_of((row for line in verdict.lines for row in _seeds(line)), tuple(LINE_SEED_COLUMNS)),
        "limits": table_of(limits, tuple(LIMIT_COLUMNS)),
    }


def claims_tables(chapters: Sequence[Chapter]) -> dict[str, Table]:
    """Each claim of each paper, a row for each place along its path."""
    return {"claims": table_of((row for chapter in chapters for row in _claims(chapter)), tuple(CLAIM_COLUMNS))}


def _claims(chapter: Chapter) -> Iterator[dict[str, Any]]:
    for one, place in ((judged, place) for judged in chapter.judged for place in judged.places):
        yield {
            "scenario": chapter.name,
            "paper": chapter.paper,
            "says": one.claim.says,
            "at": place.statement.at,
            "holds": place.statement.text,
            "verdict": place.verdict,
            "median_low": place.median.low,
            "median_high": place.median.high,
            "low": place.low,
            "high": place.high,
            "seeds": place.seeds,
            "holding": place.holding,
            "p": place.p,
            "published": one.claim.published,
        }


def _line(line: GateLine) -> dict[str, Any]:
    return {
        **line.model_dump(exclude={"place", "base", "head"}),
        **_place(line.place, line.metric),
        **_ends("base", None if line.base is None else (line.base.median.low, line.base.median.high)),
        **_ends("head", None if line.head is None else (line.head.median.low, line.head.median.high)),
        **_ends("difference", line.median),
    }


def _seeds(line: GateLine) -> Iterator[dict[str, Any]]:
    for seed in dict.fromkeys((*_of_seeds(line.base), *_of_seeds(line.head))):
        yield {
            **_place(line.place, line.metric),
            "seed": int(seed),
            **_ends("base", _of_seeds(line.base).get(seed)),
            **_ends("head", _of_seeds(line.head).get(seed)),
            **_ends("difference", line.differences.get(seed)),
            "unit": line.unit,
        }


def _of_seeds(side: MetricSummary | None) -> dict[str, tuple[float | None, float | None]]:
    return {} if side is None else {seed: (value.low, value.high) for seed, value in side.per_seed.items()}


def _ends(name: str, ends: tuple[float | None, float | None] | None) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _place(place: GatedRow, metric: str) -> dict[str, Any]:
    return {**place.model_dump(), "point": json.dumps(place.point) if place.point else "", "metric": metric}
