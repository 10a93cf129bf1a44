"""Wrappers around the user's module: torch.compile's, which only a training step runs, and those of several devices."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from stresstest.user_code import UserCodeError

_PARALLEL = (DataParallel, DistributedDataParallel)
_NO_COMPILER = ("InvalidCxxCompiler", "CppCompileError", "BackendCompilerFailed", "InductorError", "TritonMissing")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that a wrapper for several devices holds, or the module itself."""
    if isinstance(module, DistributedDataParallel) and torch.distributed.get_world_size() > 1:
        raise UserCodeError(
            "the factory returns DistributedDataParallel over several processes, but each replica trains by itself; "
            "return the module that it wraps"
        )
    if isinstance(getattr(module, "_orig_mod", None), _PARALLEL):
        raise UserCodeError(
            "the factory compiles a module that is wrapped for several devices, but each replica trains on one; return "
            "torch.compile(model) of the module inside"
        )
    return module.module if isinstance(module, _PARALLEL) else module


@contextmanager
def uncompiled() -> Iterator[None]:
    """What torch.compile has wrapped runs as it was written: hooks and other modes of autograd recompile it else."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def begin_compiling(model: Hashable) -> None:
    """Forget what was compiled of other models: of too many sizes torch.compile would give up and say so."""
    if "torch._dynamo" in sys.modules and _compiling.get("model", model) != model:
        torch.compiler.reset()
    _compiling["model"] = model


_compiling: dict[str, Hashable] = {}


def num_graphs() -> int:
    """How many graphs torch.compile has compiled in this process."""
    if "torch._dynamo" not in sys.modules:
        return 0
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def lacks_compiler(line: str) -> bool:
    """Whether an error's line says that torch.compile could not compile."""
    return any(name in line for name in _NO_COMPILER)
