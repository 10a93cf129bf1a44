"""Why it broke: planted faults are named where they are, healthy runs name none, and a moved signal is dated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.cli.main import run as command
from stresstest.engine.divergence import Detector
from stresstest.engine.outcomes import Reference
from stresstest.experiments.break_findings import look_closer, why
from stresstest.experiments.depth_sweep.findings import explained
from stresstest.measurements.diagnosis import moves, overflows
from stresstest.measurements.replica import ReplicaRun
from stresstest.models.layout import TensorName
from stresstest.results.records import Cell, TrendRow
from tests.benchmarks.planted_faults import DEPTH, FAULTS, run

NAMES = [TensorName("w", 1, "w of block 1"), TensorName("w", 2, "w of block 2")]
STEPS = 60
SMALL = {"batch_size": 2, "seq_len": 16}  # float16 is slow on a CPU


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_planted_fault_is_named_with_its_place_and_nothing_else(name: str) -> None:
    block = list(FAULTS).index(name) % DEPTH
    result = run(name, block, seed=block, **SMALL)
    (cell,) = result.cells
    fault = FAULTS[name]
    place = fault.place.format(block)
    assert [(s["cause"], s["place"]) for s in cell.why["suspects"]] == [(fault.cause, place)]
    (finding,) = [finding for finding in result.findings if finding.kind == "suspect"]
    assert place in finding.text
    assert "Try first: " in finding.text


@pytest.mark.parametrize(("dtype", "seed"), [("float32", 3), ("float16", 109)])
def test_a_healthy_model_has_no_suspect_though_the_ramp_breaks_it(dtype: str, seed: int) -> None:
    (cell,) = run("", 0, seed, dtype=dtype, **SMALL).cells
    assert cell.ramp["outcome"] in ("exploded", "nonfinite")
    assert cell.why["suspects"] == []


def curve(levels: dict[int, float], seed: int = 0) -> ReplicaRun:
    """A run whose second tensor's gradient has these levels from these steps on; all else is noise."""
    rng = np.random.default_rng(seed)
    frames = np.exp(0.1 * rng.standard_normal((STEPS, 3, len(NAMES))))
    for step, level in levels.items():
        frames[step:, 1, 1] *= level
    made = ReplicaRun(0, Detector(Reference(5.0, 0.1, 5.0, 5.0)))
    made.frames, made.lrs, made.losses = list(frames.astype(np.float32)), [1.0] * STEPS, [1.0] * STEPS
    return made


@pytest.mark.parametrize("level", [10.0, 0.1])
def test_a_level_that_changes_is_dated_with_its_place_and_factor(level: float) -> None:
    (move,) = moves(NAMES, curve({40: level}), stop=50)
    assert (move.signal, move.place) == ("gradient", "w of block 2")
    assert move.lead == 10
    assert move.factor == pytest.approx(level, rel=0.3)


def test_a_spike_of_two_steps_noise_and_what_comes_after_the_break_are_no_moves() -> None:
    assert moves(NAMES, curve({40: 10.0, 42: 0.1}), stop=STEPS) == []
    assert moves(NAMES, curve({40: 10.0}), stop=39) == []
    assert moves(NAMES, curve({12: 10.0}), stop=58) == [], "so far ahead it is the course of training"
    assert moves(NAMES, curve({20: 10.0}), stop=58) != []
    assert [seed for seed in range(20) if moves(NAMES, curve({}, seed), STEPS)] == []


def test_a_vanishing_gradient_has_a_factor_that_json_can_hold() -> None:
    (move,) = moves(NAMES, curve({40: 0.0}), stop=50)
    assert move.factor == 0.0
    assert json.dumps(move.factor, allow_nan=False)
    assert math.isfinite(move.factor)


@pytest.mark.parametrize(("explosion", "named"), [(59, True), (30, False)])
def test_an_overflow_is_a_cause_only_where_the_loss_had_not_blown_up_before(explosion: int, named: bool) -> None:
    broke = curve({})
    for step in range(STEPS - 1):
        broke.detector.update(9.0 if step >= explosion else 4.0)
    broke.detector.update(math.nan)
    assert broke.detector.judgement().explosion_step == explosion
    broke.looks = {0: {("overflow_share", "x"): 0.0}, STEPS: {("overflow_share", "x"): 0.1}}
    assert [suspect.place for suspect in overflows(broke)] == ["x"] * named


def test_a_gradient_that_is_no_number_any_more_has_no_factor() -> None:
    (move,) = moves(NAMES, curve({40: math.nan}), stop=50)
    assert move.lead == 10
    assert move.factor is None
    (text,) = texts(*(said(seed, moved=[vars(move)]) for seed in range(3)))
    assert "became non-finite" in text


def said(seed: int, **why: Any) -> Cell:
    nothing: dict[str, Any] = {
        "suspects": [],
        "moved": [],
        "dead": [],
        "probes": "economy",
        "calm_runs": 3,
        "alarms": {},
    }
    return Cell(key=str(seed), variant="v", depth=6, seed=seed, status="done", why=nothing | why)


def moved(signal: str, lead: int, factor: float = 4.0) -> dict[str, Any]:
    return {"signal": signal, "place": "x", "lead": lead, "factor": factor}


def texts(*cells: Cell) -> list[str]:
    return [finding.text for finding in why("v", cells, cells)]


def test_a_signal_that_moves_in_stable_runs_too_is_passed_over() -> None:
    both = {"moved": [moved("update", 30), moved("gradient", 12)], "alarms": {"update": 2}}
    (text,) = texts(*(said(seed, **both) for seed in range(3)))
    assert "the gradient of x; it grew 4 times, 12 steps before the break (3 of 3 seeds" in text
    assert "moves in 0 of the 9 runs that train" in text
    assert "--clip-norm" in text
    assert texts(*(said(seed, moved=[moved("update", 30)], alarms={"update": 2}) for seed in range(3))) == []


def test_where_nothing_gave_a_sign_the_first_to_move_after_the_onset_is_said() -> None:
    late = [said(seed, moved=[moved("gradient", -3 - seed)]) for seed in range(3)]
    found = list(why("v", late, late))
    assert "it grew 4 times, 3 to 5 steps after the onset, with no sign before it (3 of 3 seeds" in found[0].text
    (hint,) = look_closer(found, late)
    assert "--probes full" in hint.text
    assert not list(look_closer(found, [said(0, probes="full")])), "nothing more can be read"
    early = [said(seed, moved=[moved("gradient", 3)]) for seed in range(3)]
    assert not list(look_closer(list(why("v", early, early)), early))


def test_a_suspect_of_most_seeds_silences_what_moved_and_one_of_few_is_not_said() -> None:
    suspect = {"cause": "init", "place": "w", "value": 100.0}
    most = [said(0, suspects=[suspect]), said(1, suspects=[suspect], moved=[moved("gradient", 3)]), said(2)]
    (text,) = texts(*most)
    assert text == (
        "v: w starts 100 times as large as its peers (2 of 3 seeds). Try first: initialise it like its peers."
    )
    assert texts(said(0, suspects=[suspect]), said(1), said(2)) == []


def test_blocks_that_died_are_said() -> None:
    (text,) = texts(said(0, dead=["ffn of block 1", "ffn of block 2"]), said(1, dead=["ffn of block 1"]))
    assert text.startswith("v: after the break, ffn of block 1 output only zeros")


def test_the_last_frames_are_kept_and_the_levels_of_probes_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "lr-range --variant pre-ln --depth 2 --width 16 --seeds 1 --num-steps 40 --hold-steps 20 --no-theory -q"
    found = {}
    for level in ("off", "economy", "full"):
        assert command([*words.split(), "--probes", level, "--run-dir", level]) in (0, 3)
        (cell,) = json.loads(Path(level, "result.json").read_text())["cells"]
        found[level] = cell
    assert not found["off"]["why"]
    assert found["off"]["probe_seconds"] == 0.0 < found["economy"]["probe_seconds"]
    for name in ("metrics", "ramp", "hold"):
        assert found["off"][name] == found["economy"][name] == found["full"][name]
    curves = [np.load(path) for path in Path("full").rglob("*.npz")]
    (one,) = [each for each in curves if "last_frames" in each]
    record = found["full"]["why"]
    steps = min(20, found["full"]["ramp"]["steps"])
    assert one["last_frames"].shape == (steps, 3, len(record["tensors"]))
    assert one["looks"].shape == (len(one["look_steps"]), len(record["places"]))


def test_a_sweep_explains_the_shallowest_depth_at_which_its_recipe_fails() -> None:
    suspect = {"cause": "init", "place": "w", "value": 100.0}
    outcomes = {2: "stable", 4: "exploded", 8: "exploded"}
    cells = [
        said(seed, suspects=[suspect]).model_copy(update={"depth": depth, "recipe": {"outcome": outcome}})
        for depth, outcome in outcomes.items()
        for seed in range(3)
    ]
    trend = TrendRow(variant="v", optimizer="adam", metrics={})
    (finding,) = explained(trend, cells, cells)
    assert finding.text.startswith("v (4 blocks): w starts 100 times as large as its peers (3 of 3 seeds).")
    assert not list(explained(trend, cells[:3], cells[:3])), "all of them train"
