"""Every part of every experiment, on a tiny model: what it promises beforehand is what its result has."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stresstest
from stresstest.commands.show_result import document_of
from stresstest.errors import ConfigError
from stresstest.experiments.base import Experiment, Experiments, Listed
from stresstest.experiments.estimate import estimates
from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.unfinished import unfinished_document
from stresstest.gate.thresholds import check_threshold, default_thresholds, rows_of
from stresstest.reports.numbers import cell_name
from stresstest.reports.output import FORMATS, render
from stresstest.results.records import Result, SummaryRow, TrendRow, read_result
from stresstest.runs.cell_lines import cell_of
from stresstest.scenario.schema import scenario_schema
from stresstest.scenario.thresholds import parse_threshold

SHAPE = {"width": 16, "heads": 2, "seq_len": 12, "variant": ("pre-ln", "post-ln"), "seeds": 2}
TINY: dict[str, dict[str, Any]] = {
    "lr-range": {"depth": 1, "num_steps": 30, "hold_steps": 20},
    "depth-sweep": {
        "depths": (1, 2, 4),
        "measure": ("outcome", "hold"),
        "num_steps": 30,
        "hold_steps": 20,
        "train_steps": 30,
        "probe_steps": (10, 20),
    },
    "warmup": {"depth": 1, "warmup_steps": (0, 10), "num_lrs": 2, "train_steps": 20, "trials": 2, "trials_at_once": 2},
    "race": {"depth": 1, "num_lrs": 2, "train_steps": 20},
    "scale": {"depth": 1, "widths": (16, 20, 24), "num_steps": 30, "hold_steps": 20},
    "shock": {
        "depth": 1,
        "shock": ("lr-pulse", "lost-moments"),
        "after": 25,
        "train_steps": 70,
        "num_steps": 30,
        "hold_steps": 20,
    },
    "batch-sweep": {"depth": 1, "batch_sizes": (4, 8), "tokens": 2000, "num_lrs": 2},
}


SOMETIMES = frozenset(
    "grad_rate activation_rate grad_exponent activation_exponent max_stable_lr_exponent onset_lr jacobian_condition "
    "warmup_gain warmup_sensitivity steps_to_target recipe_loss final_loss validation_loss lr_window predicted_lr "
    "critical_lr sharpness peak_bytes token_accuracy batch_lr_exponent bits_per_byte bleu best_lr_exponent best_lr_at "
    "max_stable_lr_at".split()
)


def sometimes_missing(command: str) -> frozenset[str]:
    """The metrics of a command that a row may lack, as what they are about may not happen."""
    of_a_hold = {"max_attention_logit", "log_z_rms"} if command in ("lr-range", "scale") else set()
    return SOMETIMES | of_a_hold


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_its_entry_in_the_table_says_what_it_says_itself(name: str) -> None:
    listed, experiment = EXPERIMENTS.entries[name], EXPERIMENTS[name]
    assert isinstance(listed, Listed)
    facts = (experiment.name, experiment.summary, experiment.source)
    assert (listed.name, listed.summary, listed.source) == facts
    with pytest.raises(ConfigError, match="summary is another"):
        Experiments([replace(listed, summary="Another.")])[name]


@pytest.fixture(scope="module", params=list(EXPERIMENTS))
def run_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run of an experiment, in a folder of its name."""
    name = str(request.param)
    function = getattr(stresstest, name.replace("-", "_"))
    run = tmp_path_factory.mktemp(name) / name
    function("decoder", **SHAPE, **TINY[name], run_dir=str(run), quiet=True)
    return run


@pytest.fixture(scope="module")
def trained(run_of: Path) -> tuple[Experiment[Any], Result]:
    """An experiment, and what that run gave."""
    return EXPERIMENTS[run_of.name], read_result(run_of / "result.json")


def facts(row: SummaryRow | TrendRow, varies: tuple[str, ...]) -> dict[str, Any]:
    """What a row is about, as the experiment says it beforehand."""
    depth = {"depth": row.depth} if isinstance(row, SummaryRow) else {}
    point = {key: value for key, value in row.point.items() if key in varies}
    return {"variant": row.variant, "optimizer": row.optimizer, **depth, **point}


def test_its_result_has_the_rows_that_it_promised(trained: tuple[Experiment[Any], Result]) -> None:
    experiment, result = trained
    promised = experiment.rows(experiment.spec.model_validate(result.spec))
    found = [facts(row, experiment.varies) for row in (*result.summary, *result.trends)]
    assert sorted(map(sorted_text, found)) == sorted(map(sorted_text, promised))


def sorted_text(row: Any) -> str:
    return str(sorted(row.items()))


def test_its_rows_have_metrics_that_it_promised_but_for_what_may_not_happen_and_no_others(
    trained: tuple[Experiment[Any], Result],
) -> None:
    experiment, result = trained
    promised = experiment.metrics(experiment.spec.model_validate(result.spec))
    of_each = {name for row in result.summary for name in row.metrics}
    over_all = {name for row in result.trends for name in row.metrics}
    assert of_each <= {name for name, resolution in promised.items() if not resolution.over_all}
    assert over_all <= {name for name, resolution in promised.items() if resolution.over_all}
    assert of_each
    assert set(promised) - of_each - over_all <= sometimes_missing(experiment.name)


def test_what_it_gates_by_default_can_be_answered(trained: tuple[Experiment[Any], Result]) -> None:
    experiment, result = trained
    specs = {"it": experiment.spec.model_validate(result.spec)}
    thresholds = [parse_threshold(key, text) for key, text in default_thresholds(specs)]
    assert {threshold.metric for threshold in thresholds} == set(experiment.gated)
    for threshold in thresholds:
        assert check_threshold(threshold, specs) == len(rows_of(specs["it"], threshold.metric))


def test_its_cells_have_names_of_their_own(trained: tuple[Experiment[Any], Result]) -> None:
    names = [cell_name(cell) for cell in trained[1].cells]
    assert len(set(names)) == len(names)


def test_its_cost_is_that_of_the_runs_that_it_had(trained: tuple[Experiment[Any], Result]) -> None:
    experiment, result = trained
    spec = experiment.spec.model_validate(result.spec)
    runs = sum(one.runs for one in estimates(spec))
    assert runs == len(result.cells)
    assert all(one.steps > 0 and one.hours > 0 for one in estimates(spec))


@pytest.mark.parametrize("kind", FORMATS)
def test_it_has_a_report_in_every_format(trained: tuple[Experiment[Any], Result], kind: str) -> None:
    experiment, result = trained
    text = render(experiment.document(result), kind)
    for variant in ("pre-ln", "post-ln"):
        assert variant in text
    assert result.findings
    assert html.unescape(text).count(result.reproduce) >= 1


def test_its_run_without_a_result_tells_what_has_ended(
    trained: tuple[Experiment[Any], Result], run_of: Path, tmp_path: Path
) -> None:
    lines = (run_of / "cells.jsonl").read_text().splitlines(keepends=True)
    for name in ("manifest.json", "plan.json"):
        shutil.copy(run_of / name, tmp_path)
    for number in (0, 1, len(lines) // 2, len(lines) - 1):
        (tmp_path / "cells.jsonl").write_text("".join(lines[:number]) + lines[-1][:40])
        document = unfinished_document(tmp_path)
        assert document.state == f"{number} of {len(lines)} cells; not final: {len(lines) - number} to come"
        for kind in FORMATS:
            assert document.state in render(document, kind)
        ended = cell_of(lines[number - 1].encode())
        assert (cell_name(ended) in render(document, "html")) == (number > 0)
    assert document.title == trained[0].document(trained[1]).title


def test_its_run_without_a_result_or_checksums_that_lacks_something_is_told(run_of: Path, tmp_path: Path) -> None:
    manifest = json.loads((run_of / "manifest.json").read_text())
    del manifest["sum"]
    for name in ("plan.json", "cells.jsonl"):
        shutil.copy(run_of / name, tmp_path)

    def told(changed: dict[str, Any]) -> str:
        (tmp_path / "manifest.json").write_text(json.dumps(changed))
        try:
            return unfinished_document(tmp_path).state
        except ConfigError as error:
            return str(error)

    assert str(tmp_path) not in told(manifest)
    for lost in ("again", "command", "data", "environment", "identity", "reproduce", "rules", "schema", "spec"):
        assert str(tmp_path) in told({name: value for name, value in manifest.items() if name != lost})
    for wrong in ({"shard": [1, "a"]}, {"shard": 3}, {"again": 1}, {"spec": []}, {"data": None}):
        assert f"damaged ({next(iter(wrong))}: not what was written)" in told(manifest | wrong)


def test_it_is_in_the_schema_and_its_settings_have_help(trained: tuple[Experiment[Any], Result]) -> None:
    experiment = trained[0]
    commands = scenario_schema()["properties"]["experiments"]["additionalProperties"]["oneOf"]
    (mine,) = [each for each in commands if each["properties"]["command"]["const"] == experiment.name]
    assert set(experiment.spec.model_fields) <= set(mine["properties"])
    assert all(field.description for field in experiment.spec.model_fields.values())


def test_a_shipped_scenario_asks_it() -> None:
    root = Path(stresstest.__path__[0]).parent / "scenarios"
    text = "".join(path.read_text() for path in root.glob("*.yaml"))
    assert all(f"command: {name}" in text for name in EXPERIMENTS)


def test_its_page_has_nothing_that_a_reader_would_complain_about(
    trained: tuple[Experiment[Any], Result], complaints: Callable[[str], list[str]]
) -> None:
    _, result = trained
    assert complaints(render(document_of(result), "html")) == []
