"""What an experiment would cost at full size: parameters, memory, FLOPs, time on a GPU. Nothing is allocated.

FLOPs are counted on the meta device, where tensors have shapes and no numbers, at two small depths: all of it is
linear in depth. A backward pass counts twice a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from stresstest.engine.memory import Need
from stresstest.experiments.plan import need_of
from stresstest.experiments.table import EXPERIMENTS
from stresstest.models.build import make_model
from stresstest.models.variants import STAGES
from stresstest.specs.base import TrainingSpec
from stresstest.tasks import load_task
from stresstest.tasks.task import INITIAL

SUSTAINED = 1e14  # FLOP/s: 100 TFLOP/s


@dataclass(frozen=True)
class Estimate:
    """Of one variant at one depth, or size: one replica's numbers, and what all its cells take."""

    variant: str
    depth: int
    size: str  # in words
    parameters: int
    need: Need
    flops_a_step: float
    runs: int
    steps: int  # of all runs together

    @property
    def hours(self) -> float:
        """On a GPU that sustains 100 TFLOP/s."""
        return self.flops_a_step * self.steps / SUSTAINED / 3600


def estimates(spec: TrainingSpec) -> list[Estimate]:
    """Every variant at every depth, or size, of a spec."""
    few = STAGES if spec.model == "resnet" else 1
    found = []
    for variant, part in product(spec.variant, EXPERIMENTS.of(spec).parts(spec)):
        depth, cost, sized = part.depth, part.cost, part.spec.model_copy(update={"batch_size": part.cost.batch_size})
        need = need_of("train", sized, variant, depth, spec.optimizers[0])
        flops = 3.0 * cost.batch_size * at_depth(depth, partial(forward_flops, sized, variant), few)
        parameters = at_depth(depth, partial(num_parameters, sized, variant), few)
        found.append(Estimate(variant, depth, part.words, round(parameters), need, flops, cost.runs, cost.steps))
    return found


def at_depth(depth: int, of: Callable[[int], float], few: int = 1) -> float:
    """A number that is linear in depth, from two shallow models; `few`: a ResNet's stages grow together."""
    if depth <= 2 * few:
        return float(of(depth))
    two, three = of(2 * few), of(3 * few)
    return two + (depth / few - 2) * (three - two)


def num_parameters(spec: TrainingSpec, variant: str, depth: int) -> int:
    """Parameters of a model, whose layout is known without its numbers."""
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    return make_model(spec, variant, depth, task).layout.num_parameters


def forward_flops(spec: TrainingSpec, variant: str, depth: int) -> float:
    """FLOPs of a forward pass and its loss of one example (products of matrices, convolutions and attention)."""
    task = load_task(spec.task, spec.data, 1, spec.seq_len)
    model = make_model(spec, variant, depth, task)
    arrays = tuple(torch.from_numpy(array[:].copy()) for array in task.arrays(INITIAL))
    batch = task.read(arrays, torch.from_numpy(task.places([0], 0, INITIAL)))
    theta_RP = torch.empty(1, model.layout.num_parameters, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.plain_loss(model.layout.views(theta_RP), batch.inputs.to("meta"), batch.targets.to("meta"))
    return float(counter.get_total_flops())
