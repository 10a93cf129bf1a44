"""The sweep over batch sizes: its budget, its scaling, and where an optimizer stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stresstest.cli.main import run as run_line
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.schedules import schedule
from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.arms import Arm
from stresstest.experiments.batch_sweep.measure import plan
from stresstest.experiments.batch_sweep.rows import reduce, scaling_batch
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.cells import run
from stresstest.models.build import make_model
from stresstest.results.records import Bracket, Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task

TINY: dict[str, Any] = {
    "depth": 1,
    "width": 16,
    "heads": 2,
    "seq_len": 8,
    "batch_sizes": "4,16",
    "tokens": "2k",
    "num_lrs": 2,
    "start_lr": 0.004,
    "end_lr": 0.016,
    "seeds": "3",
    "device": "cpu",
}


def spec(**settings: Any) -> BatchSweepSpec:
    return make_spec(BatchSweepSpec, "quick", TINY | settings)


def trained(path: Path, asked: BatchSweepSpec) -> list[Cell]:
    planned = plan(asked)
    with open_run(path, {"identity": planned.identity, "command": "", "again": ""}) as store:
        return run(planned, store, RunSettings(jobs=1))[0]


def test_equal_tokens_sqrt_scaling_and_as_many_steps_of_warmup_for_all() -> None:
    asked = spec()
    assert [asked.steps(size) for size in (4, 16)] == [62, 15]  # 2,000 tokens
    points = {(c.point["batch_size"], c.point["peak_lr"]): c.point["warmup_steps"] for c in plan(asked).cells}
    assert points == {(4, 0.004): 3, (4, 0.016): 3, (16, 0.008): 3, (16, 0.032): 3}  # a fifth of 15
    linear = {(c.point["batch_size"], c.point["peak_lr"]) for c in plan(spec(lr_scaling="linear")).cells}
    assert linear == {(4, 0.004), (4, 0.016), (16, 0.016), (16, 0.064)}


def test_a_cell_is_the_training_of_its_own_batch_size(tmp_path: Path) -> None:
    """Step by step, by hand: LAMB at batch 16."""
    asked = spec(optimizer="lamb", batch_sizes="4,16", num_lrs=1, end_lr=0.004, seeds="1")
    cell = next(c for c in trained(tmp_path, asked) if c.point["batch_size"] == 16)
    task = load_task("language", "synthetic", 16, 8)
    batches = Batches(task, torch.device("cpu"))
    training = Training(OPTIMIZERS["lamb"], {}, torch.device("cpu"))
    population = Population(make_model(asked, "pre-ln", 1, task), [0], training)
    for step, share in enumerate(schedule("linear", 3, "linear", 15)):
        loss = population.step(batches.batch([0], step), torch.tensor([0.008 * share], dtype=torch.float32)).loss_R
    assert cell.recipe["steps"] == 15
    import numpy as np

    stored = np.load(next(tmp_path.glob(f"curves/*{cell.key}*")))["loss"]
    assert stored[-1] == float(loss)


def arms(*losses: float, baseline: float = 3.0) -> dict[int, Arm]:
    """Batch sizes 32, 64, ... that end at these losses."""
    found = {}
    for number, loss in enumerate(losses):
        recipe = {"loss": loss, "outcome": "stable", "cap": 5.0, "baseline_loss": baseline}
        cell = Cell(key="", variant="a", depth=1, seed=0, status="done", recipe=recipe)
        found[32 << number] = Arm("a", 1, "adam", "linear", {(0, 0.1): {0: cell}})
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 1.1, 1.19, 1.21), Bracket(low=128, high=256)),  # two nats are learned: a tenth is 0.2
        ((1.0, 1.1, 1.2), Bracket(low=128, high=None)),
        ((1.0, 1.5, 1.0), Bracket(low=32, high=64)),  # what comes back has stopped before
        ((3.5, 3.4), Bracket(low=64, high=None)),  # nothing was learned: nothing is given away
    ],
)
def test_a_batch_that_gives_away_a_tenth_has_stopped(losses: tuple[float, ...], expected: Bracket) -> None:
    assert scaling_batch(arms(*losses), 0) == expected


def test_rows_are_by_optimizer_and_batch_and_a_stored_spec_reads_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = spec()
    found = reduce(asked, trained(tmp_path / "a", asked))
    assert [(row.optimizer, row.point["batch_size"], row.point["steps"]) for row in found.summary] == [
        ("adamw", 4, 62),
        ("adamw", 16, 15),
        ("lamb", 4, 62),
        ("lamb", 16, 15),
    ]
    assert [trend.optimizer for trend in found.trends] == ["adamw", "lamb"]
    assert all("scaling_batch" in trend.metrics for trend in found.trends)
    line = ["batch-sweep", "-j", "1", "--run-dir", str(tmp_path / "b"), "-q", "-o", str(tmp_path / "b.html")]
    for name, value in TINY.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    assert run_line(line) == 0
    out = capsys.readouterr().out
    assert "use batches up to" in out or "scales up to batch" in out
    assert "<h1>Batch sweep: " in (tmp_path / "b.html").read_text()
    assert run_line(["report", str(tmp_path / "b")]) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tokens": "lots"}, "not a number of tokens; give e.g. 500k or 2M"),
        ({"tokens": "k"}, "not a number of tokens"),
        ({"tokens": "1k"}, "are 7 steps of batch size 16; give at least 1280"),
        ({"tokens": "1000G"}, "steps of batch size 4; give at most 320000000"),
        ({"batch_sizes": "16,4"}, "must be positive whole numbers in increasing order"),
        ({"batch_sizes": "a"}, "give whole numbers"),
        ({"batch_size": 12}, "a batch sweep varies batch_size"),
    ],
)
def test_what_is_wrong_is_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(spec(**wrong))
