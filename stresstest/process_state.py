"""What the user's code may change in the process that runs it, kept: the cells beside it must not feel it."""

from __future__ import annotations

import contextlib
import decimal
import gc
import locale
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

# Of a setting: what it is now, and how it becomes that again. Torch and numpy are imported where they are used.
_Setting = tuple[Callable[[], Any], Callable[[Any], object]]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM)


@contextlib.contextmanager
def kept_process() -> Iterator[None]:
    """Afterwards the settings of the process are what they were: folder, locale, torch's defaults and the like.

    What was added to the environment and to the module path stays: imports do so, and happen once. A fork that comes
    back here ends.
    """
    process = os.getpid()
    settings = [*_OF_PYTHON, *_of_torch(), *(_of_signals() if _in_main_thread() else ())]
    before = [_read(get) for get, _ in settings]
    try:
        yield
    finally:
        end_where_forked(process)
        for (get, put), value in zip(settings, before, strict=True):
            if _read(get) != value:
                with contextlib.suppress(Exception):  # a folder that is gone, say: what else there is matters more
                    put(value)


def end_where_forked(process: int) -> None:
    """End this process where it is another one: a fork of the user's code that goes on with what we do."""
    if os.getpid() != process:
        os._exit(1)


def _read(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except Exception:
        return None


def _put_environment(before: dict[str, str]) -> None:
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def _put_path(before: list[str]) -> None:
    sys.path[:] = [*(folder for folder in sys.path if folder not in before), *before]


def _raising() -> list[Any]:
    """The filters that make a warning an error."""
    return [one for one in warnings.filters if one[0] == "error"]


def _put_raising(before: list[Any]) -> None:
    kept = [one for one in warnings.filters if one[0] != "error" or one in before]
    warnings.filters[:] = kept  # type: ignore[index]  # a list, which typeshed calls a sequence


def _put_argv(before: list[str]) -> None:
    sys.argv[:] = before


def _put_streams(before: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = before


def _put_hooks(before: tuple[Any, Any, Any]) -> None:
    sys.excepthook, sys.unraisablehook, threading.excepthook = before


_OF_PYTHON: tuple[_Setting, ...] = (
    (os.getcwd, os.chdir),
    (lambda: dict(os.environ), _put_environment),
    (lambda: locale.setlocale(locale.LC_ALL), lambda before: locale.setlocale(locale.LC_ALL, before)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    (lambda: decimal.getcontext().copy(), decimal.setcontext),
    (lambda: logging.root.manager.disable, logging.disable),
    (lambda: list(sys.path), _put_path),
    (lambda: list(sys.argv), _put_argv),
    (_raising, _put_raising),
    (lambda: (sys.stdout, sys.stderr), _put_streams),
    (lambda: (sys.excepthook, sys.unraisablehook, threading.excepthook), _put_hooks),
)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _of_signals() -> Iterator[_Setting]:
    """Only the main thread may set handlers; one that Python did not set cannot be put back."""
    for number in _SIGNALS:
        yield partial(signal.getsignal, number), partial(_put_handler, number)
    yield partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()), partial(signal.pthread_sigmask, signal.SIG_SETMASK)
    yield lambda: bool(signal.getitimer(signal.ITIMER_REAL)[0]), lambda before: before or signal.alarm(0)


def _put_handler(number: signal.Signals, before: Any) -> None:
    if before is not None:
        signal.signal(number, before)


def _of_torch() -> Iterator[_Setting]:
    import numpy as np
    import torch

    backends = torch.backends
    yield torch.get_default_dtype, torch.set_default_dtype
    yield torch.get_default_device, lambda before: torch.set_default_device(None if before.type == "cpu" else before)
    yield torch.is_grad_enabled, torch.set_grad_enabled
    yield torch.get_num_threads, torch.set_num_threads
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    yield torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
    yield _flushes_denormals, torch.set_flush_denormal
    yield lambda: backends.cudnn.enabled, lambda before: setattr(backends.cudnn, "enabled", before)
    yield lambda: backends.cudnn.benchmark, lambda before: setattr(backends.cudnn, "benchmark", before)
    yield lambda: backends.cudnn.deterministic, lambda before: setattr(backends.cudnn, "deterministic", before)
    yield np.geterr, lambda before: np.seterr(**before)


def _flushes_denormals() -> bool:
    """Which torch does not tell."""
    import torch

    smallest = torch.tensor([1e-310], dtype=torch.float64, device="cpu")
    return not bool((smallest * 1.0).item())
