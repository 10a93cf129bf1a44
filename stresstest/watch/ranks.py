"""One verdict on every process of a distributed run, and one process that writes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_first() -> bool:
    """Whether this process writes: the only one, or the one of rank 0."""
    return not _is_distributed() or dist.get_rank() == 0


def mean_over_ranks(loss: Tensor | float, device: torch.device) -> Tensor | float:
    """The mean of all processes' losses, the same on each; as it is where there is one process."""
    if not _is_distributed() or dist.get_world_size() == 1:
        return loss
    mean = torch.as_tensor(loss, dtype=torch.float32, device=device).detach().clone().reshape(())
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
