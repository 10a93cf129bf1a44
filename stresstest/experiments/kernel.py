"""What trains the cells of a plan, torch or a kernel of ours: chosen once, for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from stresstest.engine import native
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import Kernel
from stresstest.errors import ConfigError
from stresstest.models import mlp_triton
from stresstest.models.build import shape_at
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import TrainingSpec
from stresstest.specs.parsing import parse_choice

OTHER: Mapping[Kernel, Kernel] = {"torch": "native", "native": "torch"}
Shape = tuple[TrainingSpec, int]  # the settings of a cell, and its depth


@dataclass(frozen=True)
class Chosen:
    """The kernel of a plan; `other`: with which the same run may have begun, where nobody asked for one."""

    kernel: Kernel
    other: Kernel | None = None


def choose_kernel(spec: TrainingSpec, shapes: Iterable[Shape], device: str, trains: bool = True) -> Chosen:
    """The kernel that was asked for; of `auto` the native one where all cells can have it.

    A compiler is looked for only where the native kernel takes every cell. What was never measured on a GPU, triton and
    graph, is taken where it is asked for alone. Raises `ConfigError` where it was asked for and cannot be had.
    """
    if spec.kernel == "torch":
        return Chosen("torch")
    asked: Kernel = "native" if spec.kernel == "auto" else spec.kernel
    unfit = _unfit(asked, spec, shapes, device) if trains else "nothing is trained"
    if spec.kernel == "auto":
        if unfit:
            return Chosen("torch")
        kernel: Kernel = "torch" if native.why_not() else "native"
        return Chosen(kernel, OTHER[kernel])
    if unfit:
        raise ConfigError(f"leave out kernel {asked}: {unfit}")
    if missing := _missing(asked):
        raise ConfigError(f"{missing}; or leave out kernel {asked}")
    return Chosen(asked)


def check_kernel(spec: TrainingSpec) -> None:
    """Whether this machine has the kernel with which a run began; `ConfigError` where it has not."""
    if missing := _missing(spec.kernel):
        raise ConfigError(
            f"{missing}; or train all cells again, with kernel torch: this run began with the {spec.kernel} one"
        )


def _missing(kernel: str) -> str:
    """What this machine lacks for a kernel, in plain words; empty where it lacks nothing."""
    return native.why_not() if kernel == "native" else mlp_triton.missing() if kernel == "triton" else ""


def _unfit(kernel: Kernel, spec: TrainingSpec, shapes: Iterable[Shape], device: str) -> str:
    """Why a kernel cannot train all of these, or nothing."""
    if kernel == "graph":
        return _uncapturable(spec, device)
    if spec.model != "mlp":
        return f"it trains model mlp alone, and this is {spec.model}"
    variants = [parse_choice(text, VARIANTS) for text in spec.variant]
    optimizers = [OPTIMIZERS[parse_choice(text, OPTIMIZERS).name] for text in spec.optimizers]
    for (sized, depth), variant, optimizer in product(shapes, variants, optimizers):
        model, where = shape_at(sized, depth), device.partition(":")[0]
        if kernel == "native":
            reason = native.takes(model, variant.name, variant.options, optimizer, sized.dtype, where)
        else:
            reason = mlp_triton.takes(model.width, model.norm, sized.dtype, where)
        if reason:
            return reason
    return ""


def _uncapturable(spec: TrainingSpec, device: str) -> str:
    """Why a step cannot be captured as a CUDA graph, or nothing."""
    if not device.startswith("cuda"):
        return f"CUDA graphs need a GPU, and the device is {device}"
    if spec.dropout:
        return "the masks of dropout are drawn on the host, step by step"
    return ""
