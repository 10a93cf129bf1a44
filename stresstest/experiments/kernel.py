"""Which kernel trains the cells of a plan, torch or the native one of the MLP: chosen once, for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

from stresstest.engine import native
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.errors import ConfigError
from stresstest.models.build import shape_at
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import TrainingSpec
from stresstest.specs.parsing import parse_choice

Kernel = Literal["torch", "native"]
OTHER: Mapping[Kernel, Kernel] = {"torch": "native", "native": "torch"}
Shape = tuple[TrainingSpec, int]  # the settings of a cell, and its depth


@dataclass(frozen=True)
class Chosen:
    """The kernel of a plan; `other`: with which the same run may have begun, where nobody asked for one."""

    kernel: Kernel
    other: Kernel | None = None


def choose_kernel(spec: TrainingSpec, shapes: Iterable[Shape], device: str, trains: bool = True) -> Chosen:
    """The kernel that was asked for; of `auto` the native one where all cells can have it.

    A compiler is looked for only where the native kernel takes every cell. Raises `ConfigError` where it was asked for
    and cannot be had.
    """
    unfit = "nothing is trained" if not trains else _unfit(spec, shapes, device) if spec.kernel != "torch" else ""
    if spec.kernel == "torch" or (unfit and spec.kernel == "auto"):
        return Chosen("torch")
    if unfit:
        raise ConfigError(f"leave out kernel native: {unfit}")
    missing = native.why_not()
    if spec.kernel == "native":
        if missing:
            raise ConfigError(f"{missing}; or leave out kernel native")
        return Chosen("native")
    kernel: Kernel = "torch" if missing else "native"
    return Chosen(kernel, OTHER[kernel])


def check_kernel(spec: TrainingSpec) -> None:
    """Whether this machine has the kernel with which a run began; `ConfigError` where it has not."""
    if spec.kernel == "native" and (missing := native.why_not()):
        raise ConfigError(f"{missing}; or train all cells again, with kernel torch: this run began with the native one")


def _unfit(spec: TrainingSpec, shapes: Iterable[Shape], device: str) -> str:
    """Why the native kernel cannot train all of these, or nothing."""
    if spec.model != "mlp":
        return f"it trains model mlp alone, and this is {spec.model}"
    variants = [parse_choice(text, VARIANTS) for text in spec.variant]
    optimizers = [OPTIMIZERS[parse_choice(text, OPTIMIZERS).name] for text in spec.optimizers]
    for (sized, depth), variant, optimizer in product(shapes, variants, optimizers):
        model, where = shape_at(sized, depth), device.partition(":")[0]
        if reason := native.takes(model, variant.name, variant.options, optimizer, sized.dtype, where):
            return reason
    return ""
