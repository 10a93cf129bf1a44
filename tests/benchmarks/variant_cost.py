"""What a step of each variant costs beside Pre-LN's, the two of a pair one after the other: python FILE [cuda]."""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from tables import show

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.models.build import make_model
from stresstest.runs.identity import environment
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task

VARIANTS = ["post-ln", "normformer", "rezero", "deepnorm", "sub-ln", "peri-ln"]
SIZES = [(6, 64), (6, 128), (6, 256)]
PAIRS = 30


def population(variant: str, depth: int, width: int, device: torch.device) -> tuple[Population, Batches]:
    spec = make_spec(LrRangeSpec, "quick", {"depth": depth, "width": width, "heads": 4})
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    model = make_model(spec, variant, depth, task)
    return Population(model, [0], Training(OPTIMIZERS["adam"], {}, device)), Batches(task, device)


def seconds(one: tuple[Population, Batches], step: int, device: torch.device) -> float:
    batch = one[1].batch([0], step)
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    one[0].step(batch, torch.full((1,), 1e-4, device=device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    torch.set_num_threads(1)
    rows = []
    for depth, width in SIZES:
        reference = population("pre-ln", depth, width, device)
        for variant in VARIANTS:
            other = population(variant, depth, width, device)
            pairs = [(seconds(other, step, device), seconds(reference, step, device)) for step in range(PAIRS + 5)][5:]
            ratios = np.array([a / b for a, b in pairs])
            low, middle, high = np.percentile(ratios, [25, 50, 75])
            rows.append([f"{depth} blocks, width {width}", variant, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"])
    name = environment(str(device), "float32")["device_name"]
    print(f"a step beside pre-ln's, {PAIRS} pairs, batch 8 x 64, one replica, {name}")
    show(["size", "variant", "times pre-ln", "middle half"], rows, markdown=True)


if __name__ == "__main__":
    main()
