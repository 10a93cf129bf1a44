"""Whether rows of a population get the bits that each gets by itself is seen before they train together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import Group, Measured, make_bench, train_cells
from stresstest.measurements.base import Bench, CellPlan
from stresstest.measurements.boundary import measure_ramp
from stresstest.measurements.built_in import BuiltInBench

SEEDS = (0, 1, 2)


def shaped(width: int, **given: Any) -> LrRangeSpec:
    settings = {"model": "mlp", "task": "images", "kernel": "torch", "batch_size": 4, **given}
    return LrRangeSpec(variant=("pre-ln",), depth=2, width=width, seeds=SEEDS, num_steps=20, **settings)


def trained(spec: LrRangeSpec, seeds: Sequence[int], branches: bool = False) -> list[Measured]:
    cells = tuple(CellPlan(f"cell{seed}", "pre-ln", spec.depth, seed) for seed in seeds)
    return train_cells(measure_ramp, Group(spec, "cpu", cells, branches=branches))


def losses(cells: Sequence[Measured]) -> list[Any]:
    return [one.curves["ramp_loss"] for one in cells]


@pytest.mark.parametrize(
    "spec",
    [shaped(9), shaped(31), shaped(32), shaped(9, model="decoder", task="language", heads=3, seq_len=16)],
    ids=["mlp 9", "mlp 31", "mlp 32", "decoder 9"],
)
def test_cells_that_are_given_out_together_have_the_bits_of_each_alone_at_any_width(spec: LrRangeSpec) -> None:
    together, alone = losses(trained(spec, SEEDS)), [losses(trained(spec, [seed]))[0] for seed in SEEDS]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(together, alone, strict=True))


def populations(spec: LrRangeSpec, **given: Any) -> list[int]:
    """How many replicas each population had that trained a ramp."""
    sizes: list[int] = []

    def count(bench: Bench, spec: Any, cells: Sequence[CellPlan]) -> Any:
        sizes.append(len(cells))
        return measure_ramp(bench, spec, cells)

    cells = tuple(CellPlan(f"cell{seed}", "pre-ln", spec.depth, seed) for seed in SEEDS)
    train_cells(count, Group(spec, "cpu", cells, **given))
    return sizes


def test_rows_that_are_alike_train_together_and_others_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert populations(shaped(32)) == [3]
    monkeypatch.setattr(BuiltInBench, "rows_are_alike", lambda bench, seeds: False)
    assert populations(shaped(32)) == [1, 1, 1]
    assert populations(shaped(32), branches=True) == [3]


def test_a_step_that_does_not_fit_the_memory_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bench: BuiltInBench, seeds: Sequence[int]) -> Any:
        raise MemoryError

    monkeypatch.setattr(BuiltInBench, "_first_step", fail)
    bench = make_bench(shaped(32), "pre-ln", 2, "adam", "cpu")
    assert bench.rows_are_alike(SEEDS)
