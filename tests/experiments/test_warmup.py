"""The map of warm-up x peak LR: what is trained, what becomes of it, and what the map comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stresstest.engine.outcomes import Reference, Rules
from stresstest.experiments.cells import run
from stresstest.experiments.lr_range.measure import plan as plan_lr_range
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan
from stresstest.experiments.training import Group, train_cells
from stresstest.experiments.warmup.map import arm_rows, arms_of, map_points
from stresstest.experiments.warmup.measure import measure_warmup, plan
from stresstest.experiments.warmup.rows import reduce
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.measurements.scheduled import cap
from stresstest.results.records import Bracket, Cell, Finding, SummaryRow, TrendRow
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec

TINY: dict[str, Any] = {
    "depth": 2,
    "width": 16,
    "heads": 2,
    "seq_len": 16,
    "batch_size": 4,
    "train_steps": 40,
    "warmup_steps": "0,8",
    "start_lr": 0.01,
    "end_lr": 0.32,
    "num_lrs": 3,
    "trials": 0,
    "seeds": "2",
    "device": "cpu",
}


def planned(**settings: Any) -> Plan:
    return plan(make_spec(WarmupSpec, "quick", TINY | settings))


def trained(path: Path, sweep: Plan) -> list[Cell]:
    with open_run(path, {"identity": sweep.identity, "command": "", "again": ""}) as store:
        return run(sweep, store, RunSettings(jobs=1))[0]


def records(cells: Sequence[Cell]) -> list[str]:
    return sorted(cell.model_copy(update={"seconds": 0.0, "probe_seconds": 0.0}).model_dump_json() for cell in cells)


OF_MODEL: dict[str, dict[str, Any]] = {
    "decoder": TINY | {"variant": "post-ln"},
    "mlp": {
        **{name: TINY[name] for name in ("train_steps", "warmup_steps", "trials", "seeds", "device")},
        "model": "mlp",
        "variant": "residual",
        "depth": 3,
        "width": 8,
        "batch_size": 20,
        "start_lr": 1e-3,
        "end_lr": 1e35,
        "num_lrs": 5,
    },
}


@pytest.mark.parametrize("model", OF_MODEL)
def test_settings_and_seeds_trained_as_one_population_are_each_as_if_alone(model: str) -> None:
    sweep = plan(make_spec(WarmupSpec, "quick", OF_MODEL[model]))
    together = train_cells(measure_warmup, Group(sweep.spec, "cpu", tuple(sweep.cells)))
    alone = [train_cells(measure_warmup, Group(sweep.spec, "cpu", (cell,)))[0] for cell in sweep.cells]
    assert records([m.cell for m in together]) == records([m.cell for m in alone])
    outcomes = {m.cell.recipe["outcome"] for m in together}
    assert len(outcomes) > 1
    assert model != "mlp" or "nonfinite" in outcomes, "neighbours that die change nothing"


def test_without_a_warm_up_the_map_is_the_hold_of_lr_range(tmp_path: Path) -> None:
    held_settings = {name: TINY[name] for name in ("depth", "width", "heads", "seq_len", "batch_size", "seeds")}
    held_settings |= {"num_steps": 60, "hold_steps": 40, "variant": "pre-ln", "device": "cpu"}
    held = trained(tmp_path / "hold", plan_lr_range(make_spec(LrRangeSpec, "quick", held_settings)))
    tried = {(cell.seed, trial["lr"]): trial for cell in held for trial in cell.hold}
    seeds = {cell.seed for cell in held}
    lr = next(
        lr
        for (_, lr), trial in tried.items()
        if trial["outcome"] == "stable" and {(s, lr) for s in seeds} <= tried.keys()
    )
    mapped = trained(tmp_path / "map", planned(variant="pre-ln", start_lr=lr, end_lr=lr, num_lrs=1, warmup_steps="0"))
    for cell in mapped:
        assert cell.recipe["validation_loss"] == tried[cell.seed, lr]["validation_loss"]
        assert cell.recipe["outcome"] == tried[cell.seed, lr]["outcome"]


def test_without_a_warm_up_its_shapes_are_one_cell_and_optimizers_are_not() -> None:
    sweep = planned(warmup="linear,cosine,none", optimizer="adam,radam", variant="pre-ln", seeds="0,")
    points = map_points(sweep.spec)  # type: ignore[arg-type]  # of a warm-up search
    assert len(sweep.cells) == len(points) == 2 * 3 * (1 + 2)
    assert len({cell.key for cell in sweep.cells}) == len(sweep.cells)
    assert {point["warmup"] for point in points if point["warmup_steps"] == 0} == {"none"}


@pytest.mark.parametrize(
    "change", [{"decay": "cosine"}, {"train_steps": 41}, {"decay": "inverse-sqrt:since=3"}, {"clip_norm": 1.0}]
)
def test_a_cell_has_another_key_when_its_training_differs(change: dict[str, Any]) -> None:
    assert not {cell.key for cell in planned().cells} & {cell.key for cell in planned(**change).cells}


def test_a_larger_map_trains_only_what_is_new() -> None:
    few, many = planned(), planned(warmup_steps="0,8,16", num_lrs=5, trials=3, seeds="3")
    assert {cell.key for cell in few.cells} < {cell.key for cell in many.cells}


def test_the_identity_of_a_search_is_its_space_and_not_its_length() -> None:
    search = {"map": False, "trials": 5}
    assert planned(**search).identity == planned(**search | {"trials": 9}).identity
    assert planned(**search).identity != planned(**search, sampler="random").identity
    assert planned(**search).identity != planned(**search, end_lr=0.64).identity
    assert planned(**search).identity != planned(**search, search_seed=1).identity


@pytest.mark.parametrize(("initial", "most"), [(5.0, 5.0), (5.6, 5.6), (9.0, 5.5), (math.inf, 5.5), (math.nan, 5.5)])
def test_having_learned_nothing_costs_the_initial_loss_or_chance_where_that_is_far_below(
    initial: float, most: float
) -> None:
    assert cap(Reference(initial, 0.1, 3.2, 5.5), Rules()) == most


# Cells by hand: the loss of a run that trains, or how it fails.
Map = Mapping[tuple[int, float], Sequence[float | str]]


def cells_of(variant: str, outcomes: Map, optimizer: str = "adam") -> list[Cell]:
    found = []
    for (steps, lr), by_seed in outcomes.items():
        where = {"optimizer": optimizer, "warmup": "linear" if steps else "none"}
        for seed, what in enumerate(by_seed):
            fails = isinstance(what, str)
            recipe = {"outcome": what if fails else "stable", "loss": 5.0 if fails else what}
            found.append(
                Cell(
                    key=f"{variant}{steps}{lr}{seed}",
                    variant=variant,
                    depth=6,
                    seed=seed,
                    status="done",
                    point=where | {"warmup_steps": steps, "peak_lr": lr},
                    recipe=recipe | {"cap": 5.0, "initial_loss": 5.0},
                )
            )
    return found


NEEDS_WARMUP: Map = {
    (0, 0.1): [3.0, 3.0, 3.0],
    (0, 0.2): [2.0, "relapsed", "failed-to-train"],
    (0, 0.4): ["relapsed", "exploded", "nonfinite"],
    (10, 0.1): [3.0, 3.0, 3.0],
    (10, 0.2): [2.0, 2.0, "relapsed"],
    (10, 0.4): ["relapsed", "relapsed", "relapsed"],
    (20, 0.1): ["failed-to-train", 3.5, 3.5],
    (20, 0.2): [2.5, 2.5, 2.5],
    (20, 0.4): [2.0, "relapsed", "relapsed"],
}
ROBUST: Map = {place: [2.0, 2.5, 3.0] for place in NEEDS_WARMUP}


def spec_of(**settings: Any) -> WarmupSpec:
    ranges = {"warmup_steps": "0,10,20", "start_lr": 0.1, "end_lr": 0.4, "num_lrs": 3, "trials": 0}
    return make_spec(WarmupSpec, "quick", ranges | {"variant": "post-ln,pre-ln"} | settings)


def reduced(*maps: tuple[str, Map], **settings: Any) -> tuple[list[SummaryRow], list[TrendRow], list[Finding]]:
    spec = spec_of(variant=",".join(name for name, _ in maps), **settings)
    cells = [cell for name, outcomes in maps for cell in cells_of(name, outcomes)]
    found = reduce(spec, cells)
    return found.summary, found.trends, found.findings


def per_seed(row: SummaryRow | TrendRow, metric: str) -> list[tuple[float | None, float | None]]:
    return [(value.low, value.high) for value in row.metrics[metric].per_seed.values()]


def test_max_stable_lr_of_a_warm_up_is_the_bracket_on_the_maps_learning_rates() -> None:
    rows, _, _ = reduced(("post-ln", NEEDS_WARMUP))
    lows = [[low for low, _ in per_seed(row, "max_stable_lr")] for row in rows]
    highs = [[high for _, high in per_seed(row, "max_stable_lr")] for row in rows]
    assert [row.point["warmup_steps"] for row in rows] == [0, 10, 20]
    assert lows == [[0.2, 0.1, 0.1], [0.2, 0.2, 0.1], [0.4, 0.2, 0.2]]
    assert highs[0] == [0.4, 0.2, 0.2]
    assert highs[2][0] is None, "the top of the map trains"


def test_min_warmup_is_the_first_of_the_map_that_trains_and_silent_where_the_lr_is_too_small() -> None:
    _, [trend], _ = reduced(("post-ln", NEEDS_WARMUP))
    needs = [list(summary.per_seed.values()) for summary in trend.min_warmup.values()]
    never = Bracket(low=20, high=None)
    assert needs[0] == [Bracket.exactly(0)] * 3
    assert needs[1] == [Bracket.exactly(0), Bracket.exactly(10), Bracket.exactly(20)]
    assert needs[2] == [Bracket.exactly(20), never, never]
    slow = {place: ["failed-to-train"] * 3 if place[1] == 0.1 else by for place, by in NEEDS_WARMUP.items()}
    _, [trend], _ = reduced(("post-ln", slow))
    assert len(trend.min_warmup) == 2


def test_sensitivities_are_their_closed_forms_over_rows_and_over_the_columns_of_the_window() -> None:
    rows, [trend], _ = reduced(("post-ln", NEEDS_WARMUP))
    assert [low for low, _ in per_seed(rows[0], "lr_sensitivity")] == pytest.approx(
        [(3 + 2 + 5) / 3 - 2, (3 + 5 + 5) / 3 - 3, (3 + 5 + 5) / 3 - 3]
    )
    # The window of the variant, for every seed: 0.1 and 0.2, which most seeds train with some warm-up.
    columns = [((3 + 3 + 5) / 3 - 3, (2 + 2 + 2.5) / 3 - 2), (0.5 / 3, (5 + 2 + 2.5) / 3 - 2), (0.5 / 3, 7.5 / 3)]
    columns[2] = (0.5 / 3, (5 + 5 + 2.5) / 3 - 2.5)
    expected = [(a + b) / 2 for a, b in columns]
    assert [low for low, _ in per_seed(trend, "warmup_sensitivity")] == pytest.approx(expected)
    shares = [trend.metrics[f"{name}_share"].per_seed["0"].low for name in ("warmup", "lr", "interaction")]
    assert sum(share for share in shares if share is not None) == pytest.approx(1.0)


def test_the_findings_say_who_needs_how_much_and_compare_seed_by_seed() -> None:
    _, _, findings = reduced(("post-ln", NEEDS_WARMUP), ("pre-ln", ROBUST))
    text = {finding.kind: finding.text for finding in findings if finding.subject != "pre-ln"}
    assert (
        text["compared-warmup"]
        == "At 0.2 post-ln needs at least 10 warm-up steps; pre-ln needs none (medians over seeds)."
    )
    assert "needs no warm-up at 0.1, at least 10 steps at 0.2, and at 0.4 no warm-up up to 20" in text["min-warmup"]
    compared = text["compared-sensitivity"]
    assert compared.startswith("In every seed, post-ln's loss depends more on the warm-up than pre-ln's: ")
    own = [finding.text for finding in findings if finding.subject == "pre-ln"]
    assert any("pre-ln needs no warm-up at 0.1 to 0.4, the top of the range" in text for text in own)


def test_a_difference_that_not_every_seed_has_is_not_told() -> None:
    mixed = {place: [by[0], 3.0, 3.0] for place, by in NEEDS_WARMUP.items()}
    other = {place: [3.0, by[1], 3.0] for place, by in NEEDS_WARMUP.items()}
    _, _, findings = reduced(("post-ln", mixed), ("pre-ln", other))
    [text] = [finding.text for finding in findings if finding.kind == "compared-sensitivity"]
    assert "depend on the warm-up: " in text
    assert "(-" in text


def test_a_longer_warm_up_that_breaks_is_a_finding_and_one_that_is_slow_is_none() -> None:
    broken = NEEDS_WARMUP | {(20, 0.2): ["relapsed"] * 3, (20, 0.1): [3.0] * 3}
    _, _, findings = reduced(("post-ln", broken))
    assert any(f.kind == "not-monotone" and "20 steps at 0.2" in f.text for f in findings)
    slow = NEEDS_WARMUP | {(20, 0.1): ["failed-to-train"] * 3}
    _, _, findings = reduced(("post-ln", slow))
    assert not any(f.kind == "not-monotone" for f in findings)


@pytest.mark.parametrize(
    ("losses", "outcome", "side"),
    [
        ((3.1, 4.0, 5.0), "failed-to-train", "above"),
        ((5.0, 4.0, 3.3), "failed-to-train", "below"),
        ((5.0, 5.0, 5.0), "exploded", "above"),
    ],
)
def test_where_everything_fails_the_report_says_on_which_side_and_where_to_look(
    losses: tuple[float, ...], outcome: str, side: str
) -> None:
    spec = spec_of(variant="post-ln")
    cells = []
    for point in map_points(spec):
        [cell] = cells_of("post-ln", {(point["warmup_steps"], point["peak_lr"]): [outcome]})
        rank = sorted({p["peak_lr"] for p in map_points(spec)}).index(point["peak_lr"])
        cells.append(cell.model_copy(update={"recipe": cell.recipe | {"loss": losses[rank]}}))
    found = reduce(spec.model_copy(update={"seeds": (0,)}), cells)
    finding = found.findings[0]
    assert finding.kind == "nothing-trains"
    assert side in finding.text
    assert ("--start-lr 0.00039 --end-lr 0.1" if side == "above" else "--start-lr 0.4 --end-lr 102") in finding.text
    assert found.searches[0].trained == 0
    assert "warmup_sensitivity" not in found.trends[0].metrics, "no learning rate has a warm-up that trains"


def test_statistics_are_of_the_seeds_that_have_a_result_everywhere() -> None:
    spec = spec_of(variant="post-ln")
    grid = sorted({point["peak_lr"] for point in map_points(spec)})
    places = {(steps, lr): [2.0, 2.5, 3.0] for steps in (0, 10, 20) for lr in grid}
    cells = cells_of("post-ln", places)
    cells[-1] = Cell(key="x", variant="post-ln", depth=6, seed=2, status="oom", point=cells[-1].point)
    rows, _ = arm_rows(arms_of(spec, cells))
    assert all(set(row.metrics["lr_sensitivity"].per_seed) == {"0", "1"} for row in rows)
