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
from stresstest.reports.output import FORMATS, JSON
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Result
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


def race_result() -> Result:
    spec = make_spec(RaceSpec, "quick", {"variant": "post-ln,pre-ln", "num_lrs": 2, "seeds": "3", "depth": 1})
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
