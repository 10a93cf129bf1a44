"""All that waits for a GPU, in one run: `gpu_day.sh` calls this. What is done is written at once, row by row.

    python tests/benchmarks/gpu_day.py OUT [--minutes 6] [--device cuda] [--tiny]

Contenders take turns in one process (milliseconds a step, median and range of the rounds); `today` is kernel torch,
`new` kernel triton for the deep MLP and kernel graph for the decoder. OUT gets gpu_day.json and gpu_day.md. With
--tiny, on a CPU too, sizes are toys and the Triton kernel is interpreted: it tries the script, and its numbers mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from step_cost import bare_chunk, bare_copy, our_chunk
from turns import Chunk, now, take_turns

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Kernel, Training
from stresstest.engine.train import Batches
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.transformer import Transformer
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task
from stresstest.tasks.task import TRAINING

TINY_COMMAND = (
    "--model mlp --variant rezero --depth 2 --width 8 --batch-size 8 --seeds 1 --num-steps 20 --hold-steps 20 -j 1"
).split()


@dataclass
class Row:
    """One line of the table; times in the row's unit, as "median (min to max)"."""

    work: str
    unit: str
    today: str = ""
    new: str = ""
    reach: str = ""
    note: str = ""


@dataclass(frozen=True)
class Day:
    """Where it is measured, and until when."""

    device: torch.device
    tiny: bool
    ends: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()


def spread(times: list[float], by: float = 1.0) -> str:
    """Median and range."""
    values = [time_ / by for time_ in times]
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def mlp_chunk(day: Day, kernel: Kernel, spec: ModelSpec, batch: int, replicas: int, optimizer: str = "adam") -> Chunk:
    """Steps of a deep ReZero MLP on images."""
    task = load_task("images", "synthetic", batch, 1)
    model = ResidualMlp(spec, "rezero", {}, task.num_inputs, task.num_classes)
    training = Training(OPTIMIZERS[optimizer], {}, day.device, kernel=kernel)
    return our_chunk(model, training, Batches(task, day.device), replicas)


def deep_mlp(day: Day, width: int, batch: int, replicas: int, reach: str, both: bool = True) -> Row:
    """Torch's operations and the Triton kernel in turn."""
    depth, width, batch = (6, 8, 4) if day.tiny else (10_000, width, batch)
    spec = ModelSpec(model="mlp", depth=depth, width=width)
    row = Row(f"deep ReZero MLP, width {width}, batch {batch}, {depth:,} layers, R = {replicas}", "ms a replica-step")
    row.reach = reach
    kernels: tuple[Kernel, ...] = ("torch", "triton") if both else ("triton",)
    found = take_turns({kernel: mlp_chunk(day, kernel, spec, batch, replicas) for kernel in kernels}, 3, 2, day.device)
    row.today = spread(found["torch"], replicas) if both else ""
    row.new = spread(found["triton"], replicas)
    parameters = depth * width * (width + 1)
    if day.device.type == "cuda":
        # Read forward and back, gradient written; Adam reads that, and reads and writes parameters and two moments.
        least = 1000 * 4 * parameters * replicas * (3 + 7) / bandwidth(day.device)
        row.note = f"{100 * least / statistics.median(found['triton']):.0f} % of what memory allows"
    return row


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy on the device: read and written."""
    source = torch.empty(1 << 28, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        started = now(device)
        target.copy_(source)
        times.append(now(device) - started)
    return 2 * 4 * source.numel() / min(times)


def decoder_chunk(day: Day, kernel: Kernel, replicas: int) -> Chunk:
    """Steps of the default decoder."""
    model, batches = decoder(day)
    return our_chunk(model, Training(OPTIMIZERS["adam"], {}, day.device, kernel=kernel), batches, replicas)


def decoder(day: Day) -> tuple[Transformer, Batches]:
    """Six blocks of width 64, or a toy."""
    spec = ModelSpec(depth=1, width=8, heads=2, seq_len=8) if day.tiny else ModelSpec()
    return Transformer(spec, "pre-ln", {}), Batches(load_task("language", "synthetic", 8, spec.seq_len), day.device)


def graphs(day: Day) -> tuple[Kernel, ...]:
    """Kernel torch, and graph where there is a GPU."""
    return ("torch", "graph") if day.device.type == "cuda" else ("torch",)


def decoders(day: Day, replicas: int, reach: str) -> Row:
    """Torch's operations one by one, and as a graph."""
    spec = decoder(day)[0].spec
    row = Row(f"decoder, {spec.depth} blocks, width {spec.width}, R = {replicas}", "ms a replica-step", reach=reach)
    found = take_turns({kernel: decoder_chunk(day, kernel, replicas) for kernel in graphs(day)}, 5, 20, day.device)
    row.today = spread(found["torch"], replicas)
    row.new = spread(found["graph"], replicas) if "graph" in found else ""
    return row


def over_bare(day: Day) -> Row:
    """A bare loop of one replica, as often as there are replicas, against a population."""
    model, batches = decoder(day)
    training = Training(OPTIMIZERS["adam"], {}, day.device)
    [bytes_] = batches.task.arrays(TRAINING)
    data = torch.from_numpy(bytes_.copy()).to(day.device)
    bare = bare_chunk(batches, bare_copy(model, Population(model, [0], training)), data, False, False)
    replicas = 4 if day.tiny else 64
    chunks = {"bare": bare, **{kernel: decoder_chunk(day, kernel, replicas) for kernel in graphs(day)}}
    found = take_turns(chunks, 5, 20, day.device)
    times = {
        kernel: [replicas * one / ours for one, ours in zip(found["bare"], found[kernel], strict=True)]
        for kernel in graphs(day)
    }
    row = Row(f"over bare PyTorch, one after the other, {replicas} replicas", "times", reach="at least 300")
    row.today, row.new = spread(times["torch"]), spread(times["graph"]) if "graph" in times else ""
    return row


def whole_command(day: Day) -> Row:
    """`stresstest lr-range` from start to end, in processes of their own."""
    row = Row("stresstest lr-range, from start to end", "s", reach="at most 20")
    for kernel in graphs(day):
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "stresstest", "lr-range", "--device", str(day.device), "--kernel", kernel]
            words += ["--run-dir", folder, "-q", *(TINY_COMMAND if day.tiny else [])]
            started = time.monotonic()
            subprocess.run(words, check=True, capture_output=True, timeout=90)
        setattr(row, "today" if kernel == "torch" else "new", f"{time.monotonic() - started:.1f}")
    return row


def headline(day: Day) -> Row:
    """ReZero's own run, of its notebook, while time is left."""
    depth, width, steps = (6, 8, 5) if day.tiny else (10_000, 150, 12_500)
    row = Row(f"ReZero's own run: {depth:,} layers, width {width}, Adagrad 0.003, {steps:,} steps", "minutes")
    row.reach = "trained, at most 20"
    spec = ModelSpec(model="mlp", depth=depth, width=width)
    task = load_task("images", "synthetic", 128 if not day.tiny else 4, 1)
    model = ResidualMlp(spec, "rezero", {}, task.num_inputs, task.num_classes)
    population = Population(model, [0], Training(OPTIMIZERS["adagrad"], {}, day.device, kernel="triton"))
    batches, lr_R = Batches(task, day.device), torch.full((1,), 0.003, device=day.device)
    started, losses = time.monotonic(), []
    for step in range(steps):
        losses.append(population.step(batches.batch([0], step), lr_R).loss_R)
        if step % 50 == 0 and (day.left < 10 or not math.isfinite(losses[-1].item())):
            break
    minutes = (time.monotonic() - started) / 60
    last = torch.cat(losses[-50:]).mean().item()
    row.new = f"{minutes:.1f}"
    row.note = f"{len(losses):,} steps: loss {losses[0].item():.3f} to {last:.3f} (mean of the last 50)"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0, help="in which rows may begin")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toys, to try the script")
    args = parser.parse_args()
    if args.tiny and args.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    day = Day(torch.device(args.device), args.tiny, time.monotonic() + 60 * args.minutes)
    many = 2 if args.tiny else 64
    works: list[tuple[str, Callable[[Day], Row]]] = [
        ("decoder, R = 1", partial(decoders, replicas=1, reach="at most 2")),
        ("decoder, many", partial(decoders, replicas=many, reach="at most 0.05")),
        ("mlp, R = 1", partial(deep_mlp, width=32, batch=32, replicas=1, reach="at most 40")),
        ("mlp, many", partial(deep_mlp, width=32, batch=32, replicas=many, reach="at most 1", both=False)),
        ("mlp, wide", partial(deep_mlp, width=256, batch=128, replicas=1, reach="at most 60")),
        ("over bare PyTorch", over_bare),
        ("lr-range", whole_command),
        ("headline", headline),
    ]
    rows: list[Row] = []
    args.out.mkdir(parents=True, exist_ok=True)
    for name, work in works:
        try:
            rows.append(Row(name, "", note="no time was left") if day.left < 30 else work(day))
        except Exception as error:  # the other rows are wanted whatever becomes of one
            traceback.print_exc()
            rows.append(Row(name, "", note=f"failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"))
        write(args.out, rows, day)
        print(f"{name}: {rows[-1]}", flush=True)


def write(out: Path, rows: list[Row], day: Day) -> None:
    """The table so far."""
    name = torch.cuda.get_device_name(day.device) if day.device.type == "cuda" else "CPU"
    facts: dict[str, Any] = {"device": name, "torch": torch.__version__, "tiny": day.tiny}
    (out / "gpu_day.json").write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    lines = ["| work | unit | today | new | reach | |", "| --- | --- | --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(asdict(row).values()) + " |" for row in rows]
    (out / "gpu_day.md").write_text(f"{name}, torch {torch.__version__}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
