"""Renderings of a small hand-made race and sweep over batch sizes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.arms import grid_lrs
from stresstest.experiments.batch_sweep import rows as batch_sweep
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.race import rows as race
from stresstest.experiments.race.spec import RaceSpec
from stresstest.experiments.table import EXPERIMENTS
from stresstest.reports.document import Chart, Point
from stresstest.reports.numbers import exponent_words
from stresstest.reports.output import FORMATS, JSON
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Result, summarise
from stresstest.specs.profiles import make_spec

DATA = {"name": "synthetic", "bytes": 1, "hash": "abc", "baseline_loss": 3.18, "chance_loss": 5.55}
ENVIRONMENT = {"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0"}


def cell(variant: str, seed: int, point: dict[str, Any], loss: float, breaks: bool) -> Cell:
    recipe = {"outcome": "exploded" if breaks else "stable", "loss": 3.18 if breaks else loss, "cap": 5.6}
    recipe |= {"baseline_loss": 3.18, "initial_loss": 5.6, "progress": [] if breaks else [(4, 3.0), (30 + seed, loss)]}
    key = f"{variant}{seed}{point}"
    metrics = {"seconds_per_step": Bracket.exactly(0.5)}
    return Cell(
        key=key, variant=variant, depth=1, seed=seed, status="done", point=point, recipe=recipe, metrics=metrics
    )


def result_of(command: str, spec: Any, cells: list[Cell]) -> Result:
    found = {"race": race, "batch-sweep": batch_sweep}[command].reduce(spec, cells, DATA)  # type: ignore[attr-defined]
    return Result(
        schema_=RESULT_SCHEMA,
        command=command,
        reproduce=f"stresstest {command}",
        spec=spec.model_dump(mode="json"),
        rules={},
        environment=ENVIRONMENT,
        data=DATA,
        cells=cells,
        summary=found.summary,
        trends=found.trends,
        findings=found.findings,
    )


def race_result(**settings: Any) -> Result:
    asked = {"variant": "post-ln,pre-ln", "num_lrs": 2, "seeds": "3", "depth": 1}
    spec = make_spec(RaceSpec, "quick", asked | settings)
    cells = [
        cell(variant, seed, {"optimizer": "adam", "warmup": "none", "warmup_steps": 0, "peak_lr": lr}, loss, False)
        for variant, loss in (("post-ln", 2.0), ("pre-ln", 1.9))
        for lr in grid_lrs(spec)
        for seed in range(3)
    ]
    return result_of("race", spec, cells)


def sweep_result() -> Result:
    asked = {"optimizer": "adam,sgd", "batch_sizes": "4,16", "tokens": "20k", "num_lrs": 2, "seeds": "3", "depth": 1}
    spec = make_spec(BatchSweepSpec, "quick", asked)
    cells = [
        cell(variant, seed, {"optimizer": optimizer, "batch_size": size, "warmup_steps": 3, "peak_lr": lr}, 2.0, breaks)
        for variant in spec.variant
        for optimizer in spec.optimizer
        for size in spec.batch_sizes
        for lr, breaks in zip(grid_lrs(spec), (False, size == 16), strict=True)
        for seed in range(3)
    ]
    return result_of("batch-sweep", spec, cells)


EVERY = {"race": race_result, "batch-sweep": sweep_result}


def terminal(result: Result, width: int = 120, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_result(result, Console(file=file, width=width, highlight=False, color_system=None), "runs/one", verbose=True)
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(command: str, width: int) -> None:
    out = terminal(EVERY[command](), width)
    assert [line for line in out.splitlines() if cell_len(line) > width] == []
    assert "\u2026" not in out


@pytest.mark.parametrize("command", EVERY)
def test_every_format_renders_both(command: str) -> None:
    result = EVERY[command]()
    for text in (terminal(result), terminal(result, 80, "ascii"), *(result_text(result, k) for k in (*FORMATS, *JSON))):
        assert all(name in text for name in (result.reproduce, *{row.optimizer for row in result.summary}))
    assert terminal(result, 80, "ascii").isascii()


def test_the_terminal_report_of_a_race_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert terminal(race_result(), 100) == snapshot


def test_the_markdown_of_a_batch_sweep_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert result_text(sweep_result(), "md") == snapshot


def charts_of(result: Result) -> dict[str, Chart]:
    pictures = EXPERIMENTS[result.command].document(result).pictures("html")
    return {name: picture for name, picture in pictures if isinstance(picture, Chart)}


def dots(chart: Chart, name: str) -> list[Point]:
    return [point for each in chart.series if each.kind == "dots" and each.name == name for point in each.points]


def test_the_pictures_of_a_race_have_the_numbers_of_its_result() -> None:
    result = race_result()
    race, speedup = charts_of(result).values()
    assert race.reference == ("target", 2.0)
    assert race.below is not None
    for place, row in enumerate(result.summary):
        steps = [value.low for value in row.metrics["steps_to_target"].per_seed.values()]
        there = dots(race.below, row.variant)
        assert [x for x, _ in there] == steps
        assert {round(y) for _, y in there} == {place}
        (median,) = (each.points for each in race.series if each.kind == "line" and each.name == row.variant)
        level = 2.0 if row.variant == "post-ln" else 1.9
        assert median == ((4.0, 3.0), (30.0, 3.0), (31.0, level), (32.0, level)), "of three that are there one by one"
    faster = result.summary[1].metrics["speedup"]
    assert speedup.series[0].points == ((faster.median.low, 0.0),)
    assert speedup.series[0].spans == ((faster.low, faster.high),)
    assert speedup.reference == ("post-ln", 1.0)


def test_one_that_is_not_at_the_target_is_a_cross_at_the_last_step() -> None:
    result = race_result(target_loss="1.95")
    race = charts_of(result)["race"]
    assert race.below is not None
    tones = {each.name: set(each.tones) for each in race.below.series}
    assert tones == {"post-ln": {"bad"}, "pre-ln": {""}}
    assert {x for x, _ in dots(race.below, "post-ln")} == {float(result.spec["train_steps"])}
    forest = charts_of(result)["speedup"].series[0]
    assert forest.spans[0][1] > forest.points[0][0], "an interval without an end goes on to that of the axis"


def test_the_target_of_a_race_is_named_with_its_value_wherever_it_is_meant() -> None:
    result = race_result()
    out, page = terminal(result, 200), result_text(result, "html")
    assert "steps to 2 nats (target)" in " ".join(out.split())
    assert "target: training loss 2 nats" in out, "of the answer"
    assert "Target: a smoothed training loss of 2 nats" in out
    assert all(
        text in page for text in ("Race to a training loss of 2 nats", "target 2</text>", "steps to 2 nats (target)")
    )


def test_the_pictures_of_a_batch_sweep_have_the_numbers_of_its_result() -> None:
    result = sweep_result()
    steps, lrs = charts_of(result).values()
    assert steps.title.startswith("Steps to a training loss of 2 nats")
    assert dots(steps, "adam") == [(float(size), 30.0 + seed) for size in (4, 16) for seed in range(3)]
    guides = {each.name: each.points for each in steps.series if each.kind == "guide"}
    assert guides["perfect scaling: steps ~ 1/batch"] == ((4.0, 31.0), (16.0, 31.0 / 4))
    assert guides["steps ~ 1/sqrt(batch)"] == ((4.0, 31.0), (16.0, 31.0 / 2))
    for optimizer in ("adam", "sgd"):
        (line,) = (each.points for each in lrs.series if each.kind == "line" and each.name == optimizer)
        mine = [row for row in result.summary if row.optimizer == optimizer]
        assert line == tuple((row.point["batch_size"], row.point["peak_lr"]) for row in mine)
    assert steps.below is not None
    assert {y for _, y in dots(steps.below, "sgd")} == {2.0}


def test_a_batch_sweep_whose_courses_are_not_known_shows_its_losses() -> None:
    result = sweep_result()
    for one in result.cells:
        del one.recipe["progress"]
    assert [*charts_of(result)] == ["loss-over-batch", "lr-over-batch"]


def test_an_exponent_is_written_by_its_middle_which_an_end_of_its_bracket_is_not() -> None:
    sides = {0: Bracket(low=-0.43, high=1.43), 1: Bracket(low=-0.43, high=1.43), 2: Bracket(low=0.0, high=1.0)}
    assert exponent_words(summarise("batch_lr_exponent", sides)) == "0.5 (-0.43..1.43)"
    assert exponent_words(summarise("batch_lr_exponent", {0: Bracket(low=0.1, high=None)})) == "-"
