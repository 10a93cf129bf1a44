"""The coordinate check: what it records, its exponents, and whether it finds a layer that was left unscaled."""

from __future__ import annotations

import importlib.util
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import stresstest
from stresstest.commands.show_result import document_of
from stresstest.errors import ConfigError
from stresstest.experiments.scale.coords.exponents import checks, exponent, interval, t_quantile
from stresstest.experiments.scale.coords.rows import reduce
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.gate.thresholds import check_threshold
from stresstest.reports.output import FORMATS, render
from stresstest.results.records import Cell, Result, read_result
from stresstest.scenario.thresholds import parse_threshold

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "mup_model.py"
SAME_BATCH = """

def batch(step, batch_size, generator):
    x = torch.randn(64, NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    return x, x[:, :NUM_CLASSES].argmax(dim=1)
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A check of a decoder at three widths, as it is written."""
    folder = tmp_path_factory.mktemp("coords") / "run"
    return stresstest.scale(
        "decoder",
        variant="pre-ln",
        depth=1,
        heads=2,
        seq_len=16,
        seeds=2,
        widths="8,16,32",
        coords=True,
        run_dir=str(folder),
        quiet=True,
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLP after muP, which may forget the LR of a layer; it trains on one batch."""
    path = tmp_path_factory.mktemp("own") / "mlp.py"
    path.write_text(EXAMPLE.read_text() + SAME_BATCH)
    return path


def check(own: Path, forgets: str) -> Result:
    return stresstest.scale(
        f"{own}:build",
        set=f"forgets={forgets}" if forgets else "",
        widths="32,64,128,256",
        coords=True,
        start_lr=1e-3,
        run_dir=str(own.parent / f"run-{forgets}"),
        quiet=True,
    )


@pytest.fixture(scope="module")
def after_mup(own: Path) -> Result:
    """A check of an MLP after muP."""
    return check(own, "")


def changes(cell: Cell, place: str) -> list[float | None]:
    return cell.coords["change"][cell.coords["places"].index(place)]


def test_adams_first_step_moves_the_embedding_by_the_root_of_the_width(decoder: Result) -> None:
    first = {cell.point["width"]: changes(cell, "embedding")[0] or 0.0 for cell in decoder.cells if cell.seed == 0}
    found = exponent([first])
    assert found is not None
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert all(0.3 < change / (1e-4 * math.sqrt(width)) <= 1.0001 for width, change in first.items())


def test_of_a_built_in_model_sublayers_stream_attention_and_logits_are_followed_in_order(decoder: Result) -> None:
    assert decoder.cells[0].coords["places"] == [
        "embedding",
        "logits in attention of block 1",
        "attention of block 1",
        "stream after the attention of block 1",
        "ffn of block 1",
        "stream after the ffn of block 1",
        "logits",
    ]


def test_a_model_of_ones_own_moves_as_in_a_loop_by_hand(own: Path, after_mup: Result) -> None:
    spec = importlib.util.spec_from_file_location("by_hand", own)
    assert spec is not None
    assert spec.loader is not None
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    cell = next(cell for cell in after_mup.cells if cell.point["width"] == 64 and cell.seed == 1)
    torch.manual_seed(1)
    model, data = file.build(64), file.batch(0, 8, None)
    optimizer = file.optimizer(list(model.parameters()), 1e-3)

    def hidden() -> torch.Tensor:
        return model.fc2(model.fc1(data[0]).relu()).detach()

    first, found = hidden(), []
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
        found.append(float((hidden() - first).square().mean().sqrt()))
    np.testing.assert_allclose(changes(cell, "fc2"), found, rtol=1e-3)
    initial = cell.coords["rms"][cell.coords["places"].index("fc2")][0]
    assert initial == pytest.approx(float(first.square().mean().sqrt()), rel=1e-4)


def test_a_model_after_mup_raises_no_alarm(after_mup: Result) -> None:
    (found,) = checks(after_mup.cells)
    assert [place.name for place in found.places] == ["fc1", "fc2", "fc3", "out"]
    assert [place.alarm for place in found.places] == ["", "", "", ""]
    assert found.broken == ()
    assert document_of(after_mup).verdicts[0].answer.startswith("as muP asks")


def test_the_layer_that_was_left_unscaled_is_the_first_that_grows(own: Path) -> None:
    result = check(own, "fc3")
    (found,) = checks(result.cells)
    assert found.grows[0].name == "fc3"
    assert document_of(result).verdicts[0].answer.startswith("look at fc3 first: it grows as width^")
    (metric,) = [row.metrics["change_exponent"] for row in result.trends]
    assert metric.low is not None
    assert metric.low > 0.3


def test_a_threshold_holds_the_largest_exponent(decoder: Result) -> None:
    spec = ScaleSpec.model_validate(decoder.spec)
    assert check_threshold(parse_threshold("it.change_exponent", "max <= 0.25"), {"it": spec}) == 1
    (row,) = decoder.trends
    assert row.metrics["change_exponent"].median.low == pytest.approx(
        statistics.median(max(each) for each in zip(*slopes(decoder), strict=True))
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_has_ended_of_a_run_is_told_without_exponents(decoder: Result, number: int) -> None:
    spec, cells = ScaleSpec.model_validate(decoder.spec), decoder.cells[:number]
    found = reduce(spec, cells)
    assert [row.metrics for row in found.trends] == [{}]
    part = decoder.model_copy(update={"cells": cells, "trends": found.trends, "findings": found.findings})
    assert document_of(part).title == document_of(decoder).title


def slopes(result: Result) -> list[list[float]]:
    """By place the slope of each seed, by numpy."""
    found = []
    for place in range(len(result.cells[0].coords["places"])):
        of = {(cell.seed, cell.point["width"]): cell.coords["change"][place][-1] for cell in result.cells}
        widths = sorted({width for _, width in of})
        logs = np.log2(np.array([[of[seed, width] for seed in (0, 1)] for width in widths], dtype=np.float64))
        found.append(np.polyfit(np.log2(widths), logs, 1)[0].tolist())
    return found


def test_the_report_is_the_same_from_what_is_stored(decoder: Result, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(decoder.to_json())
    for kind in FORMATS:
        text = render(document_of(decoder), kind)
        assert "stream after the ffn of block 1" in text
        assert render(document_of(read_result(tmp_path / "result.json")), kind) == text


def test_an_exponent_is_that_of_the_power_that_was_planted() -> None:
    found = exponent([{width: 3.0 * width**power for width in (8, 20, 64)} for power in (0.4, 0.5, 0.6)])
    assert found is not None
    assert found.value == pytest.approx(0.5)
    low, high = stats.t.interval(0.9, 2, 0.5, stats.sem([0.4, 0.5, 0.6]))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 9, 40])
def test_the_quantile_is_that_of_students_t(dof: int) -> None:
    assert t_quantile(dof) == pytest.approx(stats.t.ppf(0.95, dof), rel=1e-9)


def test_one_seed_has_no_interval_and_a_zero_no_exponent() -> None:
    assert math.isnan(interval([0.5]).low)
    assert exponent([{8: 1.0, 16: 0.0, 32: 1.0}]) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"depths": "2,4,8"}, "leave out depths"),
        ({"target": "width=512"}, "leave out target"),
        ({"start_lr": 0.0, "ramp": "linear"}, "start_lr 0 moves nothing"),
    ],
)
def test_what_cannot_be_checked_is_told_in_a_line(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        stresstest.scale("decoder", coords=True, quiet=True, **settings)
