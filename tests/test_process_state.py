"""What the user's code sets in its process ends with the block that runs it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stresstest.process_state import kept_process
from stresstest.user_code import user_code

_SET: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "folder": (lambda: os.chdir("/"), Path.cwd),
    "environment": (lambda: os.environ.pop("PATH"), lambda: os.environ.get("PATH")),
    "recursion": (lambda: sys.setrecursionlimit(400), sys.getrecursionlimit),
    "collector": (gc.disable, gc.isenabled),
    "logging": (lambda: logging.disable(logging.ERROR), lambda: logging.root.manager.disable),
    "module path": (sys.path.clear, lambda: list(sys.path)),
    "arguments": (sys.argv.clear, lambda: list(sys.argv)),
    "warnings": (
        lambda: warnings.filterwarnings("error", "of a kind", category=ImportWarning),
        lambda: [one[0] for one in warnings.filters].count("error"),
    ),
    "hook": (lambda: setattr(threading, "excepthook", print), lambda: threading.excepthook),
    "handler": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGTERM)),
    "alarm": (lambda: signal.alarm(3600), lambda: signal.getitimer(signal.ITIMER_REAL)),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "device": (lambda: torch.set_default_device("meta"), torch.get_default_device),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "threads": (lambda: torch.set_num_threads(3), torch.get_num_threads),
    "determinism": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        torch.get_deterministic_debug_mode,
    ),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "precision": (lambda: torch.set_float32_matmul_precision("medium"), torch.get_float32_matmul_precision),
    "denormals": (
        lambda: torch.set_flush_denormal(True),
        lambda: float(torch.tensor([1e-310], dtype=torch.float64).mul(1.0).item()),
    ),
    "numpy": (lambda: np.seterr(all="raise"), np.geterr),
}


@pytest.mark.parametrize("name", _SET)
def test_a_setting_is_what_it_was(name: str) -> None:
    change, read = _SET[name]
    before = read()
    with kept_process():
        change()
        inside = read()
    assert read() == before
    assert inside != before


def test_it_is_what_it_was_after_an_error_and_from_a_folder_that_is_gone(tmp_path: Path) -> None:
    here = Path.cwd()
    (tmp_path / "gone").mkdir()

    def change() -> None:
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        torch.set_default_dtype(torch.float64)
        raise ValueError("by itself")

    with pytest.raises(ValueError, match="by itself"), kept_process():
        change()
    assert (Path.cwd(), torch.get_default_dtype()) == (here, torch.float32)


@pytest.mark.parametrize("block", [kept_process, lambda: user_code("f()")])
def test_a_fork_that_comes_back_ends_there(block: Callable[[], object], tmp_path: Path) -> None:
    with block():  # type: ignore[attr-defined]  # a context manager
        child = os.fork()
    if not child:
        (tmp_path / "went on").touch()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert not (tmp_path / "went on").exists()
