"""The native kernel: forward, backward and update of a deep residual MLP in C++, built where a compiler is.

It is an extra, never a need: where it cannot be had, `why_not` says why, and training goes on by torch's operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stresstest.engine.native import build

if TYPE_CHECKING:
    from stresstest.engine.optimizer import Optimizer
    from stresstest.registry import OptionValue
    from stresstest.specs.base import ModelSpec

NORMS = ("layer-norm", "rms-norm", "none")  # that the kernel has


def ready() -> bool:
    """Whether the kernel can be used here; built at first use, which takes seconds, and kept for later processes."""
    return not why_not()


def why_not() -> str:
    """Why the kernel cannot be used here, in plain words; empty where it can."""
    return build.kernel().reason


def built_with() -> str:
    """The compiler that built it, as it names itself; empty without a kernel."""
    return build.kernel().compiler


def takes(
    spec: ModelSpec,
    variant: str,
    options: Mapping[str, OptionValue],
    optimizer: Optimizer,
    dtype: str,
    device_type: str,
) -> str:
    """Why the kernel cannot train this, in plain words; empty where it can. No compiler is asked.

    Every variant of the MLP and every optimizer is taken; what has no native update (LAMB, Muon) is updated by torch.
    """
    if spec.model != "mlp":
        return f"the native kernel trains model mlp alone, and this is {spec.model}"
    if device_type != "cpu":
        return f"the native kernel runs on a CPU, and the device is {device_type}"
    if dtype != "float32":
        return f"the native kernel computes in float32, and the dtype is {dtype}"
    if spec.norm not in NORMS:
        return f"the native kernel has the norms {', '.join(NORMS)}, and this is {spec.norm}"
    return ""
