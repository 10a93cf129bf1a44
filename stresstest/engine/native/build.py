"""Compile the kernel once a machine, and keep it in the user's cache folder.

A file's name tells all that it depends on, so that a home which several machines share is safe; a build that is
finished takes its place at once, so that two processes can build at the same time.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("kernel.cpp")
# Never -ffast-math, not even $CXX's: NaN and overflow are what this tool measures, and loading it would flush all
# denormal numbers of the process to zero.
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fno-fast-math", "-fno-unsafe-math-optimizations", "-ffp-contract=off",
    "-fno-math-errno", "-shared", "-fPIC",
)  # fmt: skip
_COMPILERS = ("g++", "clang++", "c++")
_SECONDS = 300.0  # that a compiler may take


@dataclass(frozen=True)
class Kernel:
    """The kernel as loaded, and its compiler; or the reason why there is none."""

    library: ctypes.CDLL | None = None
    compiler: str = ""
    reason: str = ""


class _NoKernelError(Exception):
    """Why the kernel cannot be had, in the user's words."""


@cache
def kernel() -> Kernel:
    """The kernel of this machine, built if it is not there yet: one try a process."""
    return make_kernel(SOURCE)


def make_kernel(source: Path) -> Kernel:
    """Build a source, or find it built, and load it."""
    try:
        compiler, version = _compiler()
        path = _built(source, compiler, version)
        return Kernel(ctypes.CDLL(str(path)), version)
    except _NoKernelError as error:
        return Kernel(reason=str(error))
    except OSError as error:
        return Kernel(reason=f"the native kernel cannot be loaded: {error}")


def _compiler() -> tuple[list[str], str]:
    """The words that call a C++ compiler, and its version's first line."""
    own = shlex.split(os.environ.get("CXX", ""))
    for words in [own] if own else [[name] for name in _COMPILERS]:
        if shutil.which(words[0]) is not None:
            printed = _run([*words, "--version"])
            if printed.returncode == 0 and printed.stdout.strip():
                return words, printed.stdout.splitlines()[0].strip()
    asked = f"$CXX, {shlex.join(own)}," if own else f"{', '.join(_COMPILERS[:-1])} or {_COMPILERS[-1]}"
    raise _NoKernelError(f"install a C++ compiler for the native kernel: {asked} cannot be run here")


def _built(source: Path, compiler: Sequence[str], version: str) -> Path:
    """The shared object of a source, which is compiled where it is not there yet."""
    text = b"".join(path.read_bytes() for path in [source, *sorted(source.parent.glob("*.h"))])
    words = [*compiler, *FLAGS]
    key = hashlib.blake2b("\n".join([*words, version, _cpu()]).encode() + text, digest_size=12).hexdigest()
    folder = _folder()
    path = folder / f"{source.stem}-{key}.so"
    if not path.exists():
        _compile(words, source, path)
    _refuse_what_others_write(path)
    return path


def _compile(words: Sequence[str], source: Path, path: Path) -> None:
    handle, name = tempfile.mkstemp(".so", f"{source.stem}-", path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        done = _run([*words, "-o", name, str(source)])
        if done.returncode != 0:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            said = next((line for line in lines if "error" in line), lines[0] if lines else "it says nothing")
            raise _NoKernelError(f"{shlex.join(words[:1])} cannot compile the native kernel: {said}")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NoKernelError(f"the C++ compiler {words[0]} cannot be run: {error}") from None


def _folder() -> Path:
    """The user's own cache folder, which nobody else can write to: what lies there is executed."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (root if root.is_absolute() else Path.home() / ".cache") / "stresstest"  # as its specification says
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_what_others_write(folder)
    except (OSError, RuntimeError) as error:
        raise _NoKernelError(f"set XDG_CACHE_HOME to a folder of yours, for the native kernel: {error}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _NoKernelError(f"set XDG_CACHE_HOME to a folder of yours, for the native kernel: no write to {folder}")
    return folder


def _refuse_what_others_write(path: Path) -> None:
    seen = path.stat()
    if seen.st_uid != os.geteuid() or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _NoKernelError(f"let nobody but you own or write {path}, which the native kernel is loaded from")


def _cpu() -> str:
    """What -march=native depends on: the CPU's model and flags."""
    about = [platform.system(), platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return " ".join(about)
    wanted = ("cpu family", "model", "flags", "Features", "CPU part")
    first = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in reversed(lines)}
    return "\n".join([*about, *(first.get(name, "") for name in wanted)])
