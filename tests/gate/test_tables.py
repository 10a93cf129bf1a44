"""Verdicts and claims as tables: what the verdict object says, a row a line, a seed, a limit and a claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from stresstest.gate.report import parse_verdict_output, show_verdict
from stresstest.gate.tables import claims_tables, verdict_tables
from tests.gate.test_claims_report import CHAPTERS
from tests.gate.test_report import gate_line, limit_line, verdict_of


def rows(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_a_verdict_has_a_row_a_line_a_seed_and_a_limit() -> None:
    line = gate_line("regressed")
    at = line.place.model_copy(update={"point": {"peak_lr": 0.5}})
    tables = verdict_tables(verdict_of([line.model_copy(update={"place": at})], [limit_line(False)]))
    (told,) = rows(tables["lines"])
    assert (told["experiment"], told["variant"], told["depth"], told["point"]) == ("e", "pre-ln", 4, '{"peak_lr": 0.5}')
    assert (told["verdict"], told["base_low"], told["head_high"], told["p"]) == ("regressed", 0.1, 0.12, 1 / 64)
    assert (told["difference_low"], told["difference_high"], told["unit"]) == (-1.0, -1.0, "oct")
    assert [(row["seed"], row["base_low"], row["difference_low"]) for row in rows(tables["seeds"])] == [
        (seed, 0.1, -1.0) for seed in range(6)
    ]
    assert [row["passed"] for row in rows(tables["limits"])] == [False]


def test_a_line_without_a_base_has_empty_fields() -> None:
    alone = gate_line("no-baseline").model_copy(update={"base": None, "differences": {}, "median": (None, None)})
    tables = verdict_tables(verdict_of([alone]))
    assert [(row["base_low"], row["head_low"]) for row in rows(tables["lines"])] == [(None, 0.1)]
    assert {row["difference_low"] for row in rows(tables["seeds"])} == {None}


def test_a_verdict_is_written_as_a_folder_of_tables(tmp_path: Path) -> None:
    outputs = [parse_verdict_output(f"csv:{tmp_path}/tables")]
    show_verdict(verdict_of([gate_line("improved")]), tmp_path, outputs, as_json=True)
    assert list(pd.read_csv(tmp_path / "tables" / "lines.csv").verdict) == ["improved"]


def test_claims_have_a_row_each_with_their_paper() -> None:
    found = rows(claims_tables(CHAPTERS)["claims"])
    assert [(row["scenario"], row["verdict"]) for row in found] == [
        ("xiong", "seen"),
        ("bert", "not seen"),
        ("bert", "undecided"),
    ]
    assert (found[0]["median_low"], found[0]["low"], found[0]["high"], found[0]["seeds"]) == (1.5, 1.2, None, 3)
