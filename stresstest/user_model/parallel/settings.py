"""What `--parallel` says of a run: cheap to import, where the rest brings torch.distributed along (a second)."""

from __future__ import annotations

from typing import TypeVar

from stresstest.engine.memory import Need
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.errors import ConfigError
from stresstest.specs.base import TrainingSpec
from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.parsing import parse_choice
from stresstest.user_model.bench import OWN

T = TypeVar("T", bound=TrainingSpec)


def is_parallel(spec: TrainingSpec) -> bool:
    """Whether a replica spans the ranks of the run."""
    return isinstance(spec, BoundarySpec) and spec.parallel != "off"


def resolve_parallel(spec: T) -> T:
    """The spec with what a sharded replica does not have switched off; what cannot be is a `ConfigError`."""
    for name in spec.optimizers:
        if name != OWN and not OPTIMIZERS[parse_choice(name, OPTIMIZERS).name].elementwise:
            raise ConfigError(
                f"optimizer {name} needs each whole tensor, of which parallel fsdp has a part on each "
                "rank; use another, or an optimizer(params, lr) of your own that takes DTensors"
            )
    if spec.accumulate > 1:
        raise ConfigError("accumulate splits a batch that one device trains on; with parallel fsdp leave it out")
    return spec.model_copy(update={"theory": False, "probes": "off"})


def part_of(need: Need, world: int) -> Need:
    """Memory of one replica on each of so many ranks; this rank's part of the weights is held twice."""
    shares = [size // world for size in vars(need).values()]
    return Need(2 * shares[0], *shares[1:])
