"""What a model's code may do to the process that trains it, each as a few lines for a model's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MODEL = """
import atexit, decimal, gc, locale, logging, multiprocessing, os, random, signal, subprocess, sys, tempfile
import threading, time, warnings
import numpy as np
import torch
from torch import nn

KEPT = []
MIB = int(os.environ.get("DEEDS_MIB", "1"))


class Interrupted(BaseException):
    pass


class Net(nn.Module):
    def __init__(self, variant):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.act = DEEDS.get(variant.split("_")[0].replace("-", "_"))
        self.calls = 0

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            if self.calls == 15 and self.act is not None:
                self.act()
        return self.body(x)


def build(variant: str = "witness") -> nn.Module:
    return Net(variant)


def batch(step, batch_size, generator):
    x = torch.randn(8, 4, generator=generator)
    return x, x.sum(1, keepdim=True).tanh()


def work_on():
    while True:
        torch.ones(100).sum()
        time.sleep(0.01)


def draw_on():
    while True:
        torch.randn(100)
        time.sleep(0.001)


def fail():
    raise RuntimeError("as said")


"""


@dataclass(frozen=True)
class Deed:
    """One deed: its lines, what its cell is recorded as, with what in the line, and whether a driver may do it too."""

    code: str
    status: str = "done"
    line: str = ""
    here: bool = True


DEEDS: Mapping[str, Deed] = {
    "chdir": Deed("os.chdir('/')"),
    "chdir-gone": Deed("folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)"),
    "locale": Deed("locale.setlocale(locale.LC_ALL, 'C')"),
    "environment": Deed("os.environ.clear(); os.environ['OMP_NUM_THREADS'] = '3'"),
    "dtype": Deed("torch.set_default_dtype(torch.float64)", "crashed", "must have the same dtype"),
    "device": Deed("torch.set_default_device('meta')", "crashed", "meta tensor"),
    "threads": Deed("torch.set_num_threads(3)"),
    "no-grad": Deed("torch.set_grad_enabled(False)", "crashed", "grad"),
    "deterministic": Deed("torch.use_deterministic_algorithms(True)"),
    "anomalies": Deed("torch.autograd.set_detect_anomaly(True)"),
    "denormals": Deed("torch.set_flush_denormal(True)"),
    "precision": Deed("torch.set_float32_matmul_precision('medium')"),
    "numpy-raises": Deed("np.seterr(all='raise')"),
    "seeds": Deed("torch.manual_seed(7); np.random.seed(7); random.seed(7)"),
    "warnings": Deed("warnings.simplefilter('error')"),
    "recursion": Deed("sys.setrecursionlimit(120)"),
    "decimals": Deed("decimal.getcontext().prec = 2; gc.disable(); logging.disable(logging.CRITICAL)"),
    "hooks": Deed("sys.excepthook = sys.unraisablehook = lambda *rest: os._exit(9)"),
    "signals": Deed("signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)"),
    "path": Deed("sys.path.clear(); sys.argv.clear()"),
    "no-stdout": Deed("sys.stdout = sys.stderr = None"),
    "closes-stdout": Deed("sys.stdout.close()"),
    "prints": Deed("for i in range(MIB << 10): print(f'{i:1023d}')"),
    "prints-a-line": Deed("for i in range(MIB << 10): print(f'{i:1024d}', end='')"),
    "writes": Deed("for i in range(MIB << 10): os.write(1, b'x' * 1023 + b'\\n')", here=False),
    "exit": Deed("sys.exit(0)", "crashed", "SystemExit"),
    "exit-3": Deed("sys.exit(3)", "crashed", "SystemExit: 3"),
    "interrupt": Deed("raise KeyboardInterrupt", "crashed", "KeyboardInterrupt"),
    "base": Deed("raise Interrupted('by itself')", "crashed", "Interrupted: by itself"),
    "generator": Deed("raise GeneratorExit('by itself')", "crashed", "GeneratorExit: by itself"),
    "os-exit": Deed("os._exit(0)", "crashed", "its worker died 3 times; exit code 0", False),
    "killed": Deed("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "3 times; killed by SIGKILL", False),
    "closes-files": Deed("os.closerange(0, 1024)", "crashed", "its worker died 3 times", False),
    "forks": Deed("os.fork() or time.sleep(3600)", here=False),
    "forks-and-returns": Deed("os.fork()"),
    "starts-a-program": Deed("KEPT.append(subprocess.Popen(['sleep', '3600']))", here=False),
    "starts-a-process": Deed(
        "KEPT.append(multiprocessing.get_context('fork').Process(target=work_on)); KEPT[-1].start()"
    ),
    "threads-stay": Deed("threading.Thread(target=work_on).start()"),
    "threads-draw": Deed("threading.Thread(target=draw_on).start()", here=False),
    "threads-raise": Deed("threading.Thread(target=fail).start()"),
    "at-exit": Deed("atexit.register(fail)", here=False),
    "leaks": Deed("while True: KEPT.append(torch.empty(1 << 28, dtype=torch.uint8))", "oom", "", False),
    "hangs": Deed("time.sleep(3600)", "timeout", "took longer than", False),
    "hangs-deaf": Deed(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); work_on()", "timeout", "took longer than", False
    ),
}


def write_model(file: Path) -> None:
    """A model's file whose variants are the deeds, by their names; any other variant is a witness."""
    functions = [
        f"def {_called(name)}():\n    {deed.code.replace('; ', chr(10) + '    ')}\n" for name, deed in DEEDS.items()
    ]
    table = "\n".join(f"    {name.replace('-', '_')!r}: {_called(name)}," for name in DEEDS)
    file.write_text(_MODEL + "\n\n".join(functions) + f"\n\nDEEDS = {{\n{table}\n}}\n")


def _called(name: str) -> str:
    return f"do_{name.replace('-', '_')}"
