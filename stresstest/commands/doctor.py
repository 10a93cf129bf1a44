"""`stresstest doctor`: what a run needs; each check returns what it saw, or raises."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version

import torch

import stresstest
from stresstest.errors import ExitCode
from stresstest.reports.output import console
from stresstest.runs.directory import DEFAULT_ROOT
from stresstest.runs.executor import local_workers


def versions() -> str:
    """The installed versions."""
    needed = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pydantic", "pebble"))
    return f"Python {platform.python_version()}, train-stresstest {stresstest.__version__}, {needed}"


def devices() -> str:
    """The device that `--device auto` takes."""
    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}"
    return (
        f"no CUDA GPU; CPU, {torch.backends.cpu.get_cpu_capability()}, -j {len(local_workers('cpu', None))} by default"
    )


def native_kernel() -> str:
    """Whether model mlp is trained by the native kernel here; built where it is not there yet."""
    from stresstest.engine import native

    missing = native.why_not()
    if missing:
        return f"native kernel: none, so model mlp trains by torch, which is slower; {missing}"
    return f"native kernel: built with {native.built_with()}"


def run_directory() -> str:
    """Runs can be stored."""
    existing = next(p for p in (DEFAULT_ROOT, *DEFAULT_ROOT.parents) if p.exists())
    with tempfile.TemporaryFile(dir=existing):
        pass
    return f"runs can be stored under {DEFAULT_ROOT}"


def same_bytes() -> str:
    """The generated text and images are those of this version."""
    from stresstest.tasks import load_task

    text, images = load_task("language", "synthetic", 8, 64), load_task("images", "synthetic", 8, 64)
    return "; ".join(
        f"generated {what}: hash {str(task.description['hash'])[:12]}, {task.baseline_loss:.3f} nats"
        for what, task in (("text", text), ("images", images))
    )


def bit_equal() -> str:
    """A replica alone and in a population gives the same losses, bit for bit."""
    from stresstest.engine.optimizers import OPTIMIZERS
    from stresstest.engine.population import Population
    from stresstest.engine.replicas import Training
    from stresstest.engine.train import Batches
    from stresstest.models.transformer import Transformer
    from stresstest.specs.base import ModelSpec
    from stresstest.tasks import load_task

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = torch.device("cpu")
        batches = Batches(load_task("language", "synthetic", 2, 16), device)
        model = Transformer(ModelSpec(depth=2, width=16, heads=2, seq_len=16), "pre-ln", {})
        losses = []
        for seeds in ([0], [0, 1, 2]):
            population = Population(model, seeds, Training(OPTIMIZERS["adam"], {}, device))
            lr_R = torch.full((len(seeds),), 1e-2)
            steps = [population.step(batches.batch(seeds, i), lr_R).loss_R[0] for i in range(10)]
            losses.append(torch.stack(steps))
    finally:
        torch.set_num_threads(threads)
    if not torch.equal(*losses):
        raise RuntimeError("results differ, so per-seed results are not exact on this machine")
    return "replicas do not influence each other: bit-equal alone and in a population"


CHECKS: tuple[Callable[[], str], ...] = (versions, devices, native_kernel, run_directory, same_bytes, bit_equal)


def print_diagnosis() -> int:
    """Check what a run needs, one line each; exit 1 when something is wrong."""
    out = console()
    healthy = True
    for check in CHECKS:
        good, text = _checked(check)
        healthy &= good
        out.print(f"{'ok  ' if good else 'FAIL'} {text}", markup=False)
    return ExitCode.OK if healthy else ExitCode.INTERNAL


def _checked(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except Exception as error:
        return False, f"{(check.__doc__ or '').splitlines()[0]} {error}"
