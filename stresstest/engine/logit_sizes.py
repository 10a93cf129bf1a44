"""How large the logits of a trained transformer are: those of attention, and the softmax's sum at the output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from stresstest.engine.population import Population, micro_batches
from stresstest.engine.probes import Blocks, LargestLogits, looking
from stresstest.engine.train import VALIDATION_BATCHES, Batches
from stresstest.tasks.task import VALIDATION


def logit_sizes(population: Population, batches: Batches, seeds: Sequence[int]) -> list[dict[str, float]]:
    """max_attention_logit and log_z_rms of each replica, on the validation batches that its loss is taken on.

    max_attention_logit: the largest magnitude before a softmax of attention, of at most 16 blocks, evenly spread.
    log_z_rms: the root mean square of log(Z) where an output is asked for, Z the sum of exp(logits) (Wortsman et al.
    2023, Sec. 3.1). What is not finite is left out.
    """
    largest_R = square_R = asked_R = torch.zeros(len(seeds), dtype=torch.float64, device=batches.device)
    for step in range(VALIDATION_BATCHES):
        drawn = batches.batch(seeds, step, VALIDATION)
        for (inputs, targets, *_), _ in micro_batches(drawn, population.training.micro_batch):
            look = LargestLogits(len(seeds))
            with looking(look, Blocks(look, population.model.wirings).attention):
                logits_RNV = population.logits(inputs)
            largest_R = torch.stack([largest_R, *(value.double() for value in look.values.values())]).amax(0)
            asked_RN = targets.flatten(1) >= 0
            log_z_RN = logits_RNV.float().logsumexp(-1).double()
            square_R = square_R + torch.where(asked_RN, log_z_RN.square(), 0.0).sum(1)
            asked_R = asked_R + asked_RN.sum(1)
    found = {"max_attention_logit": largest_R.tolist(), "log_z_rms": (square_R / asked_R).sqrt().tolist()}
    return [
        {name: values[row] for name, values in found.items() if math.isfinite(values[row])} for row in range(len(seeds))
    ]
