"""What reports say of losses that are no likelihoods, of small ones, and of runs that are flat."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.document_parts import data_words
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.race.document import race_legend
from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.warmup.map import map_points
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.reports.output import FORMATS, JSON
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Result
from stresstest.specs.profiles import make_spec

MSE: Mapping[str, Any] = {
    "name": "own batches",
    "hash": "abc",
    "takes": [],
    "loss_unit": "",
    "baseline_loss": 0.0123,
    "chance_loss": 0.0123,
    "constant_predictor_known": True,
}
CURVE = [[1e-4, 0.012], [1e-2, 0.004], [10.0, 0.5]]
FACTS = {"outcome": "exploded", "learned": True, "hold_monotone": True, "clip_fraction": 0.0, "skipped_steps": 0}


def trial(lr: float, outcome: str) -> dict[str, Any]:
    return {"lr": lr, "outcome": outcome, "validation_loss": 0.0031, "initial_loss": 0.012, "last_loss": 0.0119}


def ranged(data: Mapping[str, Any], curve: list[list[float]] = CURVE, below: str = "stable", **spec: Any) -> Result:
    metrics = {name: Bracket(low=0.01, high=0.02) for name in ("max_stable_lr", "onset_lr", "explosion_lr")}
    metrics |= {"steps_survived": Bracket.exactly(90)}
    where = {"key": "0", "variant": "as-built", "depth": 1, "seed": 0}
    held = [trial(0.01, below), trial(0.02, "relapsed")]
    cells = [Cell(**where, status="done", metrics=metrics, ramp=FACTS | {"curve": curve}, hold=held)]
    resolved = make_spec(LrRangeSpec, "quick", {"seeds": "1"})
    return result_of("lr-range", resolved, data, cells, spec)


def mapped(data: Mapping[str, Any], losses: Mapping[str, float], **spec: Any) -> Result:
    """A map whose places go through these outcomes, with the loss of each."""
    asked = {"warmup_steps": "0,10", "num_lrs": 2, "seeds": "1", "trials": 0, "variant": "pre-ln"}
    resolved = make_spec(WarmupSpec, "quick", asked)
    cells = []
    for i, where in enumerate(map_points(resolved)):
        outcome = list(losses)[i % len(losses)]
        recipe = {"outcome": outcome, "loss": losses[outcome], "cap": 0.0123, "initial_loss": 7.0}
        at = {"key": str(i), "variant": "pre-ln", "depth": 6, "seed": 0, "point": dict(where)}
        cells.append(Cell(**at, status="done", recipe=recipe))
    return result_of("warmup", resolved, data, cells, spec)


def result_of(command: str, spec: Any, data: Mapping[str, Any], cells: list[Cell], more: Mapping[str, Any]) -> Result:
    found = EXPERIMENTS[command].reduce(spec, cells, data)
    return Result(
        schema_=RESULT_SCHEMA,
        command=command,
        reproduce=f"stresstest {command}",
        spec=spec.model_dump(mode="json") | {"model": "f.py:build"} | more,
        rules={},
        environment={"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0"},
        data=dict(data),
        cells=cells,
        summary=found.summary,
        trends=found.trends,
        findings=found.findings,
    )


def terminal(result: Result) -> str:
    file = io.StringIO()
    print_result(result, Console(file=file, width=120, highlight=False, color_system=None), "runs/one", verbose=True)
    return file.getvalue()


def visible(page: str) -> str:
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]  # all that is shown
    parser.feed(page.partition("</style>")[2])
    return " ".join(" ".join(parts).split())


def everywhere(result: Result) -> str:
    return "\n".join([terminal(result), result_text(result, "md"), visible(result_text(result, "html"))])


@pytest.mark.parametrize("unit", ["nats", ""])
def test_nats_are_printed_of_a_likelihood_and_of_no_other_loss(unit: str) -> None:
    data = dict(MSE) | {"loss_unit": unit}
    results = [ranged(data), mapped(data, {"stable": 0.0031, "flat": 0.0119})]
    assert all(("nats" in everywhere(result)) == (unit == "nats") for result in results)


def test_small_losses_keep_two_digits_in_tables_and_charts() -> None:
    assert "Loss (0.004 to 0.015) against the ramp's LR" in terminal(ranged(MSE))
    page = visible(result_text(ranged(MSE), "html"))
    assert "stable 0.0031" in page
    assert "constant predictor 0.0123)" in page
    result = mapped(MSE, {"stable": 0.0031, "relapsed": 0.000123})
    for text in (terminal(result), result_text(result, "md"), visible(result_text(result, "html"))):
        assert "0.0031" in text
        assert "0.00012<" in text
        assert "0.00 " not in text


@pytest.mark.parametrize(("start", "ends"), [(0.3, "0.1 to 0.38"), (-5.0, "-5.2 to -3.75")])
def test_the_chart_of_a_model_that_starts_below_the_constant_predictor_shows_its_own_losses(
    start: float, ends: str
) -> None:
    data = dict(MSE) | {"baseline_loss": 40.0, "chance_loss": 40.0}
    result = ranged(data, curve=[[1e-4, start], [1e-2, start - 0.2], [10.0, 90.0]])
    assert f"Loss ({ends}) against" in terminal(result)
    assert ">constant predictor</text>" not in result_text(result, "html"), "it lies outside of the chart"


def test_a_start_for_want_of_a_constant_predictor_is_not_called_one() -> None:
    result = ranged(dict(MSE) | {"constant_predictor_known": False})
    page = result_text(result, "html")
    assert ">constant predictor " not in page
    assert "constant predictor unknown" in visible(page)
    assert ">constant predictor " in result_text(ranged(MSE), "html")


def test_the_examples_are_those_that_a_batch_holds_and_the_constant_says_how_it_was_found() -> None:
    spec = ranged(MSE).spec
    assert data_words(spec, MSE).startswith(f"{spec['batch_size']} examples per step of own batches")
    data = dict(MSE) | {"examples": 32, "constant": "by minimising the loss"}
    assert data_words(spec, data) == (
        "32 examples per step of own batches (constant predictor: 0.0123, by minimising the loss)"
    )
    assert data_words(spec, data | {"loss_unit": "nats"}).endswith("0.0123 nats, by minimising the loss)")


@pytest.mark.parametrize(
    ("unit", "words"), [("nats", "a smoothed training loss of 0.5 nats. "), ("", "a smoothed training loss of 0.5. ")]
)
def test_a_races_target_is_in_the_losss_unit(unit: str, words: str) -> None:
    result = ranged(dict(MSE) | {"loss_unit": unit}, target_loss=0.5).model_copy(update={"command": "race"})
    assert words in race_legend(result)


def test_a_flat_run_has_its_own_mark_and_class_and_the_legends_explain_it_only_where_there_is_one() -> None:
    flat, other = (mapped(MSE, {"stable": 0.0031, outcome: 0.0119}) for outcome in ("flat", "relapsed"))
    assert "0.012-" in terminal(flat)
    assert 'class="dull"' in result_text(flat, "html")
    assert 'class="dull"' not in result_text(other, "html")
    said = "- flat (makes no clear progress and does no harm)"
    assert said in terminal(flat)
    assert said not in terminal(other)
    harmless = "did no harm where there was too little to learn"
    assert harmless in " ".join(terminal(ranged(MSE, below="flat")).split())
    assert harmless not in " ".join(terminal(ranged(MSE)).split())


def test_a_flat_run_is_not_a_break_of_a_map() -> None:
    result = mapped(MSE, {"flat": 0.0119})
    [row, _] = result.summary
    assert row.metrics["max_stable_lr"].median == Bracket(low=result.spec["end_lr"], high=None)
    [found] = [finding for finding in result.findings if finding.kind == "too-little-to-learn"]
    assert (
        "4 of 4 runs did no harm. More --train-steps may show progress, and a larger --end-lr the boundary."
        in found.text
    )
    assert "nothing-trains" not in {finding.kind for finding in result.findings}


@pytest.mark.parametrize("kind", [*FORMATS, *JSON])
def test_every_format_renders_a_flat_result(kind: str) -> None:
    assert "does no harm, 0.02 breaks it" in result_text(ranged(MSE, below="flat"), kind)
