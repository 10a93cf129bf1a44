"""A replica on two ranks trains as on one; what a rank does alone costs the cell, and is said in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.course import hold
from stresstest.runs.all_ranks import _Note
from stresstest.runs.ranks import check_ranks, program
from stresstest.user_code import UserCodeError
from stresstest.user_model.bench import user_bench
from stresstest.user_model.factory import factory_of
from stresstest.user_model.parallel.population import repeated_blocks, share_of
from stresstest.user_model.parallel.settings import resolve_parallel

MODEL = """
import os
import signal

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        return x + self.inner(x)


class Model(nn.Module):
    def __init__(self, width, depth, seed, dies):
        super().__init__()
        self.embedding = nn.Embedding(16, width)
        self.blocks = nn.ModuleList([Residual(width) for _ in range(depth)])
        self.head = nn.Linear(width, 15)  # no multiple of the ranks
        self.dies = dies and seed == 1 and os.environ["RANK"] == "1"
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.dies and self.calls > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def build(width: int = 8, depth: int = 2, dies: bool = False):
    return Model(width, depth, torch.initial_seed(), dies)


def batch(step, batch_size, generator):
    x, other = torch.randint(15, (2, batch_size, 6), generator=generator)
    return x, torch.where(torch.rand(x.shape, generator=generator) < 0.2, other, (3 * x + 1) % 15)


def adamw(params, lr):
    return torch.optim.AdamW(params, lr=lr)


class ReadsItsPart(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-group["lr"] / float(p.grad.norm()))


def reads_its_part(params, lr):
    return ReadsItsPart(params, lr=lr)
"""

# Run on two ranks: it prints what the first one found, after it has seen that the other found the same.
WORKER = """
import json
import signal
import sys

import torch.distributed as dist

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.course import hold
from stresstest.runs import ranks
from stresstest.user_model.parallel.bench import _tried, sharded_bench


def spec_of(given):
    return LrRangeSpec(**{**json.loads(given), "parallel": "fsdp"})


def held(task):
    given, trials, steps = task
    spec = spec_of(given)
    bench = sharded_bench(spec, spec.variant[0], spec.depth, spec.optimizer, "cpu")
    runs = hold(bench, trials, steps)
    found = [[run.detector.judgement().outcome, run.losses, run.grad_norms] for run in runs]
    everyone = [None, None]
    dist.all_gather_object(everyone, (found, bench.model.layout.num_parameters))
    assert repr(everyone[0][0]) == repr(everyone[1][0])
    return {"runs": found, "parameters": [number for _, number in everyone]}


def tried(given):
    spec = spec_of(given)
    return _tried((spec, spec.variant[0], spec.depth, "cpu", None))


def all_raise(task):
    raise ValueError("all of us")


def one_raises(task):
    if dist.get_rank() == 1:
        with ranks.ranks().alike():
            raise ValueError("one of us")
    dist.barrier()


if __name__ == "__main__":
    code = ranks.join()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torchrun sends as soon as the other rank has left
    group = ranks.start_ranks("cpu")
    asked = json.loads(sys.argv[1])
    said = {name: group.train(held, task) for name, task in asked["held"].items()}
    said["optimizer"] = group.train(tried, asked["optimizer"])
    said["all"] = group.train(all_raise, None)
    said["again"] = group.train(tried, asked["again"])
    said["one"] = group.train(one_raises, None)
    print(json.dumps(said))
    ranks.part(0)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ours.py").write_text(MODEL)
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_two_ranks(*words: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "--max-restarts", str(restarts), *words]
    packages = os.pathsep.join(path for path in sys.path if path)
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": packages, "STRESSTEST_RANK_TIMEOUT": "60"}
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=240)


def settings(**more: Any) -> dict[str, Any]:
    return {"model": "ours.py:build", "variant": ["as-built"], "depth": 2, "width": 8, "batch_size": 8} | more


LRS = [2.0**k for k in range(-8, 2)]
STEPS = 24
ONE = {
    "adam": settings(),
    "clipped": settings(clip_norm=1.0),
    "own": settings(optimizer="own", optimizer_fn="adamw"),
}


def one_process(given: dict[str, Any], trials: list[tuple[int, float]]) -> list[list[Any]]:
    spec = LrRangeSpec(**{**given, "probes": "off"})
    found = hold(user_bench(spec, "as-built", 2, spec.optimizer, "cpu"), trials, STEPS)
    return [[run.detector.judgement().outcome, run.losses, run.grad_norms] for run in found]


def test_two_ranks_come_to_what_one_process_does_and_end_alike() -> None:
    trials = {"adam": [(0, lr) for lr in LRS], "clipped": [(2, LRS[2])], "own": [(1, LRS[2])]}
    asked = {
        "held": {name: [json.dumps(given), trials[name], STEPS] for name, given in ONE.items()},
        "optimizer": json.dumps(settings(optimizer="own", optimizer_fn="reads_its_part")),
        "again": json.dumps(settings()),
    }
    done = on_two_ranks("worker.py", json.dumps(asked))
    assert done.stdout, done.stderr
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    whole = sum(p.numel() for p in factory_of(LrRangeSpec(**settings())).make(0, "as-built", 2, 8).parameters())
    for name, given in ONE.items():
        answer, (kind, text, _) = said[name]
        assert kind == "done", text
        assert sum(answer["parameters"]) == whole
        assert max(answer["parameters"]) < 0.6 * whole
        for ours, theirs in zip(answer["runs"], one_process(given, trials[name]), strict=True):
            assert ours[0] == theirs[0]
            alike = 10 if theirs[0] == "stable" else 4  # steps in which what explodes has not yet grown the rounding
            assert ours[1][:alike] == pytest.approx(theirs[1][:alike], rel=1e-4)
            assert ours[2][:3] == pytest.approx(theirs[2][:3], rel=1e-4)
    outcomes = {run[0] for run in said["adam"][0]["runs"]}
    assert "stable" in outcomes
    assert len(outcomes) > 1
    assert said["own"][0]["runs"][0][1][:10] == pytest.approx(by_hand(seed=1, lr=LRS[2], steps=10), rel=1e-4)

    assert said["optimizer"][1][0] == "failed"
    assert "otherwise than the whole one" in said["optimizer"][1][1]
    assert said["all"][1][0] == "failed"
    assert said["all"][1][1].endswith("ValueError: all of us")
    assert said["again"][1][0] == "done"  # the ranks still go together
    assert said["one"][1][0] == "left"
    assert "rank 1" in said["one"][1][1]
    assert said["one"][1][1].endswith("one of us")


def by_hand(seed: int, lr: float, steps: int) -> list[float]:
    """The losses of a loop in plain torch."""
    bench = user_bench(LrRangeSpec(**settings()), "as-built", 2, "adam", "cpu")
    module = bench.model.make(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        x, y = bench.batches.batch([seed], step)[0].data
        loss = nn.functional.cross_entropy(module(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_rank_that_dies_ends_the_cell_and_not_the_run() -> None:
    words = "-m stresstest lr-range --model ours.py:build --set dies=true --seeds 1,2 --batch-size 8 --num-steps 20"
    more = "--hold-steps 20 --start-lr 0.01 --end-lr 4 --parallel fsdp --run-dir run"
    done = on_two_ranks(*words.split(), *more.split(), restarts=1)
    cells = {cell["seed"]: cell for cell in map(json.loads, Path("run/cells.jsonl").read_text().splitlines())}
    assert {seed: cell["status"] for seed, cell in cells.items()} == {1: "crashed", 2: "done"}
    assert "rank 1 died" in cells[1]["error"]
    assert "exitcode  : 4" in done.stderr
    assert done.stdout.count("Learning-rate range test") == 1
    assert done.stderr.count("[2/2]") == 1
    assert not Path("run/in-training.json").exists()
    again = json.loads(Path("run/manifest.json").read_text())["again"]
    assert again.startswith("torchrun --nproc-per-node 2 -m stresstest lr-range")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "ours.py:build"], "start them with torchrun: torchrun --nproc-per-node 2 -m stresstest lr-range"),
        ([], "parallel works only with your own model, FILE.py:FACTORY; decoder is built in"),
        (["--model", "ours.py:build", "--theory"], "parallel fsdp has no theory"),
        (["--model", "ours.py:build", "--probes", "full"], "parallel fsdp has no probes"),
    ],
)
def test_what_cannot_be_parallel_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lr-range", "--parallel", "fsdp", *words]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert len(said.splitlines()) == 1


def test_several_ranks_that_would_all_do_the_same_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert program() == ["torchrun", "--nproc-per-node", "2", "-m", "stresstest"]
    assert run(["lr-range", "--model", "ours.py:build"]) == 2
    assert "torchrun started 2 processes, which all would train the same" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="from the command line alone"):
        check_ranks(parallel=True)


@pytest.mark.parametrize("name", ["lamb", "muon"])
def test_an_optimizer_of_whole_tensors_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs each whole tensor"):
        resolve_parallel(LrRangeSpec(**settings(optimizer=name, parallel="fsdp")))


def test_a_batch_is_split_into_equal_shares_of_its_examples() -> None:
    x = torch.arange(12).view(6, 2)
    data = {"x": x, "texts": list("abcdef"), "scale": torch.ones(()), "pair": (x + 1, 0.5)}
    first, last = (share_of(data, rank, 3) for rank in (0, 2))
    assert torch.equal(first["x"], x[:2])
    assert torch.equal(last["x"], x[4:])
    assert last["texts"] == ["e", "f"]
    assert torch.equal(last["pair"][0], x[4:] + 1)
    assert last["scale"] == 1.0
    with pytest.raises(UserCodeError, match="a batch of 6 examples cannot be split between 4 ranks"):
        share_of(data, 0, 4)
    with pytest.raises(UserCodeError, match="first axes of 5, 6"):
        share_of((x, x[:5]), 0, 2)


def test_the_blocks_of_a_model_are_what_repeats_in_it() -> None:
    blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(3)])
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "blocks": blocks, "ends": nn.ModuleList([nn.ReLU(), nn.ReLU()])})
    assert repeated_blocks(model) == list(blocks)
    assert repeated_blocks(nn.Linear(2, 2)) == []


def test_a_cell_under_way_is_lost_after_a_restart_or_when_it_was_begun_twice(tmp_path: Path) -> None:
    first, restarted = (_Note(tmp_path / "note.json", restarts) for restarts in (0, 1))
    assert not first.tells_of("a")
    first.write("a")
    assert not first.tells_of("a")
    assert restarted.tells_of("a")
    assert not restarted.tells_of("b")
    first.write("a")
    assert first.tells_of("a")
    first.remove()
    assert not first.tells_of("a")
