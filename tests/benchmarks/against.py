"""What a build costs beside an earlier one, and whether the two answer alike. Run by hand:

    python tests/benchmarks/against.py COMMIT [--rounds 5] [--only help,list,mlp-1000] [--markdown]

This checkout and COMMIT, checked out beside it, take turns: each work in a process of its own and one thread, CPU
seconds of the process and its children; ratios are taken round by round. Below 1 is better. Of the works that train,
every answer that is not a clock's is compared: the brackets of each cell, outcomes and verdicts. Of the short ones an
untimed round goes first.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMANDS: Mapping[str, str] = {
    "help": "--help",
    "list": "list",
    "status": "status {run}",
    "lr-range": "lr-range -j 1",
    "ci": "run ci -j 1",
    "depth-sweep": "depth-sweep --seeds 1 -j 1",
    "rezero-sweep": "depth-sweep --model mlp --variant rezero --depths 10,100,1000,10000 --seeds 2 -j 1",
}
STEPS: Mapping[str, tuple[str, int, int, int]] = {  # model, depth, replicas, steps
    "mlp-1000": ("mlp", 1000, 1, 30),
    "mlp-1000x8": ("mlp", 1000, 8, 8),
    "mlp-10000": ("mlp", 10000, 1, 6),
    "mlp-10000x8": ("mlp", 10000, 8, 2),
    "decoder": ("decoder", 6, 1, 40),
    "decoder-x3": ("decoder", 6, 3, 20),
}
TRAINS = ("lr-range", "ci", "depth-sweep", "rezero-sweep")
ANSWERS = ("max_stable_lr", "onset_lr", "explosion_lr", "steps_survived", "predicted_lr", "critical_lr")


def main() -> None:
    """Both builds in turn, and what differs in their answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join([*COMMANDS, *STEPS]))
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(timed_steps(*STEPS[asked.step])))
        return
    if not asked.commit:
        parser.error("name the commit to compare with")
    names = asked.only.split(",")
    if unknown := set(names) - COMMANDS.keys() - STEPS.keys():
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder, checked_out(asked.commit, Path(folder) / "before") as before:
        compare(names, {"before": before, "now": ROOT}, Path(folder), asked.rounds, asked.markdown)


def compare(names: Sequence[str], builds: Mapping[str, Path], folder: Path, rounds: int, markdown: bool) -> None:
    """The table of all works, and what the answers of those that train have in common."""
    rows, said = [], []
    build_kernel()
    for name in names:
        found: dict[str, list[dict[str, float]]] = {build: [] for build in builds}
        for turn in range(name in TRAINS, rounds + 1):  # an untimed one of what is short
            for build, path in builds.items():
                one = measured(name, path, folder / f"{name}-{build}-{turn}")
                if turn:
                    found[build].append(one)
        rows.append([name, *figures(found["before"], found["now"])])
        print(*rows[-1], file=sys.stderr)
        if name in TRAINS:
            said.append(f"{name}: {same_answers(*(folder / f'{name}-{build}-{rounds}' for build in builds))}")
    show_table(rows, markdown)
    print(f"{processor()}, {os.cpu_count()} cores, {platform.system()}; one thread; {rounds} rounds")
    print(*said, sep="\n")


def build_kernel() -> None:
    """Before the first turn: a run builds it once a machine."""
    from stresstest.engine import native

    print(f"native kernel: {native.why_not() or native.built_with()}", file=sys.stderr)


def figures(before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> list[str]:
    """Median seconds of each, the ratio with its range, the same of replica-steps and of memory where there are."""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(before, now, strict=True)]
    seconds = [f"{statistics.median(one['seconds'] for one in each):.3g}" for each in (before, now)]
    middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    steps = [f"{one[-1]['steps']:,.0f}" if one[-1].get("steps") else "" for one in (before, now)]
    memory = "" if "bytes" not in now[-1] else f"{now[-1]['bytes'] / before[-1]['bytes']:.2f}"
    return [*seconds, middle, *steps, memory]


def show_table(rows: Sequence[Sequence[str]], markdown: bool) -> None:
    """The rows, for a terminal or for the docs."""
    from tables import show

    show(["work", "before, s", "now, s", "ratio", "steps before", "now", "memory"], rows, markdown)


def measured(name: str, build: Path, run: Path) -> dict[str, float]:
    """CPU seconds of one process, or of its steps alone; replica-steps of a run that trains."""
    environment = {**os.environ, "PYTHONPATH": str(build), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    if name in STEPS:
        command = [sys.executable, __file__, "--step", name]
        done = subprocess.run(command, cwd=build, env=environment, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found
    text = COMMANDS[name].format(run=finished_run(run.parent))
    where = ["--run-dir", str(run)] if name in TRAINS else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "stresstest", *text.split(), *where],
        cwd=run.parent, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds} | ({"steps": steps_of(run)} if name in TRAINS else {})


def finished_run(folder: Path) -> Path:
    """A small run that has ended, for `status`."""
    run = folder / "finished"
    if not run.exists():
        text = (
            f"lr-range --model mlp --variant pre-ln --depth 2 --seeds 1 --num-steps 30 --hold-steps 30 --run-dir {run}"
        )
        subprocess.run(
            [sys.executable, "-m", "stresstest", *text.split()],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
        )  # fmt: skip
    return run


def timed_steps(model: str, depth: int, replicas: int, steps: int) -> dict[str, float]:
    """CPU seconds of a replica-step of a population as the tool trains it, and its peak of memory."""
    import torch

    from stresstest.engine.optimizers import OPTIMIZERS
    from stresstest.engine.train import Batches
    from stresstest.experiments.lr_range.spec import LrRangeSpec
    from stresstest.models.build import make_model
    from stresstest.tasks import load_task

    torch.set_num_threads(1)
    engine: Any = importlib.import_module("stresstest.engine.population")  # where both builds have both names
    variant = "rezero" if model == "mlp" else "pre-ln"
    spec = LrRangeSpec(
        model=model, variant=(variant,), depth=depth, **({"task": "images", "batch_size": 32} if model == "mlp" else {})
    )
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    batches = Batches(task, torch.device("cpu"))
    native = {"kernel": "native"} if any(f.name == "kernel" for f in dataclasses.fields(engine.Training)) else {}
    training = engine.Training(OPTIMIZERS["adam"], {}, torch.device("cpu"), **(native if model == "mlp" else {}))
    seeds = list(range(replicas))
    population = engine.Population(make_model(spec, variant, depth, task), seeds, training)
    lr_R = torch.full((replicas,), 1e-4)
    for step in range(2):
        population.step(batches.batch(seeds, step), lr_R)
    started = time.process_time()
    for step in range(2, 2 + steps):
        batch = batches.batch(seeds, step)
        population.step(batch, lr_R)
        batches.constant_loss(batch)
    seconds = (time.process_time() - started) / steps / replicas
    return {"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def stored(run: Path) -> list[dict[str, Any]]:
    """The cells of a run's result, or of a scenario's, in their order."""
    cells = [cell for path in sorted(run.rglob("result.json")) for cell in json.loads(path.read_text())["cells"]]
    return sorted(cells, key=lambda cell: (cell["variant"], cell["depth"], cell["seed"]))


def steps_of(run: Path) -> float:
    """Replica-steps of all ramps and holds."""
    return sum(part["steps"] for cell in stored(run) for part in (cell["ramp"], *cell["hold"]) if part)


def same_answers(before: Path, now: Path) -> str:
    """What differs in the answers of two builds, in words."""
    pairs = list(zip(stored(before), stored(now), strict=True))
    differ = []
    for one, other in pairs:
        place = f"{one['variant']} depth {one['depth']} seed {one['seed']}"
        holds = [{hold["lr"]: hold["outcome"] for hold in cell["hold"]} for cell in (one, other)]
        differ += [
            f"{place}: {name} {one['metrics'].get(name)} and {other['metrics'].get(name)}"
            for name in ANSWERS
            if apart(one["metrics"].get(name), other["metrics"].get(name))
        ]
        both = [lr for lr in holds[0] if lr in holds[1] and holds[0][lr] != holds[1][lr]]
        differ += [f"{place}: LR {lr:g} is {holds[0][lr]} and {holds[1][lr]}" for lr in both]
        if one["ramp"] and one["ramp"]["outcome"] != other["ramp"]["outcome"]:
            differ.append(f"{place}: the ramp is {one['ramp']['outcome']} and {other['ramp']['outcome']}")
    verdicts = [
        [line for path in sorted(run.rglob("answer.json")) for line in json.loads(path.read_text())["verdicts"]]
        for run in (before, now)
    ]
    differ += [f"verdict: {a!r} and {b!r}" for a, b in zip(*verdicts, strict=False) if a != b]
    return f"{len(pairs)} cells, answers equal" if not differ else "\n  ".join([f"{len(pairs)} cells", *differ])


def apart(one: Mapping[str, float | None] | None, other: Mapping[str, float | None] | None) -> bool:
    """Whether two brackets differ by more than 2 %, which is rounding's share of what is measured as a number."""
    if one is None or other is None:
        return one is not other
    return any(
        (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > 0.02 * abs(a))
        for a, b in ((one[side], other[side]) for side in ("low", "high"))
    )


def processor() -> str:
    """The processor's name, where the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """A commit beside this one, for as long as it is needed."""
    subprocess.run(["git", "worktree", "add", "-q", "--detach", folder, commit], cwd=ROOT, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
