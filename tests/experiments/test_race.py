"""The race to a target loss: what a course is, who is there when, and how ratios are paired."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stresstest.cli.main import run as run_line
from stresstest.engine.outcomes import Rules
from stresstest.errors import ConfigError
from stresstest.experiments.cells import run
from stresstest.experiments.race.measure import plan
from stresstest.experiments.race.rows import reduce, speedups, steps_to
from stresstest.experiments.race.spec import RaceSpec
from stresstest.measurements.scheduled import progress
from stresstest.results.records import Bracket, Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec

TINY: dict[str, Any] = {
    "variant": "post-ln,pre-ln",
    "depth": 1,
    "width": 16,
    "heads": 2,
    "seq_len": 16,
    "batch_size": 4,
    "train_steps": 60,
    "num_lrs": 2,
    "seeds": "3",
    "device": "cpu",
}


def spec(**settings: Any) -> RaceSpec:
    return make_spec(RaceSpec, "quick", TINY | settings)


def trained(path: Path, asked: RaceSpec) -> list[Cell]:
    planned = plan(asked)
    with open_run(path, {"identity": planned.identity, "command": "", "again": ""}) as store:
        return run(planned, store, RunSettings(jobs=1))[0]


def cell(variant: str, seed: int, course: list[tuple[int, float]], lr: float = 0.001, loss: float = 2.0) -> Cell:
    recipe = {"progress": course, "loss": loss, "cap": 3.0, "outcome": "stable"}
    point = {"optimizer": "adam", "warmup": "none", "warmup_steps": 0, "peak_lr": lr}
    metrics = {"seconds_per_step": Bracket.exactly(0.5)}
    return Cell(
        key=f"{variant}{seed}{lr}", variant=variant, depth=1, seed=seed, status="done", point=point, recipe=recipe,
        metrics=metrics,
    )  # fmt: skip


def test_a_course_is_the_median_of_five_wherever_it_is_a_hundredth_lower_than_ever() -> None:
    judged = np.random.default_rng(0).normal(0.0, 0.2, 200) + np.linspace(3.0, 1.0, 200)
    run: Any = SimpleNamespace(judged=list(judged), detector=SimpleNamespace(rules=Rules()))
    run.detector.reference = SimpleNamespace(baseline_loss=3.0)
    expected, least = [], math.inf
    for step in range(4, 200):
        level = float(np.median(judged[step - 4 : step + 1]))
        if level <= least - 0.03:
            least = level
            expected.append((step, level))
    assert progress(run) == expected
    assert 10 < len(expected) < 60


def test_steps_to_a_target_are_those_before_the_first_level_that_low() -> None:
    one = cell("a", 0, [(4, 3.0), (10, 2.5), (20, 2.0)])
    assert steps_to(one, 2.5, 60) == Bracket.exactly(10)
    assert steps_to(one, 2.4, 60) == Bracket.exactly(20)
    assert steps_to(one, 1.9, 60) == Bracket(low=60, high=None)


def test_ratios_are_of_each_seed_and_open_where_one_is_not_there() -> None:
    there, never = Bracket.exactly(10), Bracket(low=60, high=None)
    assert speedups({0: Bracket.exactly(30)}, {0: there}) == {0: Bracket.exactly(3.0)}
    assert speedups({0: never}, {0: there}) == {0: Bracket(low=6.0, high=None)}
    assert speedups({0: there}, {0: never}) == {0: Bracket(low=None, high=1 / 6)}
    assert speedups({0: never}, {0: never}) == {}


def test_the_target_is_the_references_end_seed_by_seed() -> None:
    cells = [cell("post-ln", s, [(4, 3.0), (40, 2.0 + s / 10)]) for s in range(3)]
    cells += [cell("pre-ln", s, [(4, 3.0), (10, 2.0 + s / 10), (50, 1.0)]) for s in range(3)]
    rows = reduce(spec(num_lrs=1, end_lr=0.001), cells).summary
    assert [row.variant for row in rows] == ["post-ln", "pre-ln"]
    assert rows[1].metrics["speedup"].per_seed == {str(s): Bracket.exactly(4.0) for s in range(3)}
    assert rows[0].metrics["speedup"].median == Bracket.exactly(1.0)
    assert rows[1].metrics["tokens_to_target"].median == Bracket.exactly(10 * 4 * 16)
    assert rows[1].metrics["seconds_to_target"].median == Bracket.exactly(5.0)


def test_a_target_that_is_given_is_the_same_for_all() -> None:
    cells = [cell("post-ln", s, [(4, 3.0), (40, 2.0)]) for s in range(3)]
    cells += [cell("pre-ln", s, [(4, 3.0), (10, 2.5)]) for s in range(3)]
    rows = reduce(spec(num_lrs=1, end_lr=0.001, target_loss=2.2), cells).summary
    assert rows[0].metrics["steps_to_target"].median == Bracket.exactly(40)
    assert rows[1].metrics["steps_to_target"].median == Bracket(low=60, high=None)
    assert rows[1].metrics["speedup"].median == Bracket(low=None, high=40 / 60)


def test_each_entrant_runs_at_the_lr_at_which_it_is_there_soonest() -> None:
    cells = [cell("post-ln", s, [(4, 3.0), (40, 2.0)], lr) for s in range(3) for lr in (0.001, 0.008)]
    cells += [cell("pre-ln", s, [(4, 3.0), (30, 2.0)], 0.001, loss=1.0) for s in range(3)]
    cells += [cell("pre-ln", s, [(4, 3.0), (20, 2.0)], 0.008, loss=1.9) for s in range(3)]
    found = reduce(spec(), cells)
    assert found.summary[1].point == {"peak_lr": 0.008}
    assert any("highest of the grid" in finding.text for finding in found.findings)
    assert any("2 times as fast" in finding.text for finding in found.findings)


def test_equal_races_are_equal_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["race", "-j", "1", "--run-dir", str(tmp_path / "run"), "-o", str(tmp_path / "race.html")]
    for name, value in TINY.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    assert run_line([*line, "--max-cells", "5"]) == 0
    capsys.readouterr()
    assert run_line([*line, "-o", str(tmp_path / "race.md")]) == 0
    seen = capsys.readouterr()
    assert "Race: decoder, depth 1, width 16, adam, 3 seeds" in seen.out
    assert "times as fast" in seen.out
    assert seen.err.count("[") == 7  # of twelve cells five were there
    assert "<h1>Race: " in (tmp_path / "race.html").read_text()
    assert "| post-ln |" in (tmp_path / "race.md").read_text()
    one, two = (trained(tmp_path / name, spec()) for name in ("a", "b"))
    assert [c.recipe for c in one] == [c.recipe for c in two]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"warmup_steps": 60}, "leave no other steps of train_steps"),
        ({"num_lrs": 1}, "is not a range of 1 learning rates"),
        ({"target_loss": -1.0}, "target_loss"),
        ({"decay": "slow"}, "slow"),
    ],
)
def test_what_is_wrong_is_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(spec(**wrong))
