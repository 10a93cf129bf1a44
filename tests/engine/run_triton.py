"""One step of the Triton kernel at sizes of each kind, for compute-sanitizer: `... -m tests.engine.run_triton cuda`."""

from __future__ import annotations

import sys

import torch

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from tests.engine.native_models import build, examples

if __name__ == "__main__":
    device = torch.device(sys.argv[1])
    for variant, width, batch in (("normformer:res_scale=true", 5, 19), ("rezero", 64, 33), ("peri-ln", 70, 5)):
        training = Training(OPTIMIZERS["adam"], {}, device, kernel="triton")
        population = Population(build(variant, depth=3, width=width), [0, 1], training)
        one = examples([0, 1], batch)
        one = one._replace(inputs=one.inputs.to(device), targets=one.targets.to(device))
        readings = population.step(one, torch.full((2,), 1e-3, device=device))
        print(variant, width, batch, readings.loss_R.tolist())
