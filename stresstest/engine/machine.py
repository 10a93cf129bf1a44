"""What a run meets on its machine: memory, as far as the system tells (Linux, in part elsewhere), and git."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path


def free_memory() -> int:
    """Bytes that this process may still take, under every limit that it runs under; huge if unknown."""
    return min([*_machine_free(), *_group_free(), *_limit_free()], default=1 << 62)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let an allocation beyond what is free fail, rather than have the system kill this process."""
    used = _status("VmData")
    if used is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (used + free_memory(), soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def resident_memory() -> int | None:
    """Bytes of this process that are in memory."""
    return _status("VmRSS")


def peak_memory() -> int | None:
    """The most that `resident_memory` has been, since the start or `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> bool:
    """Give unused heap back and start the peak anew; false where that cannot be done."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def _machine_free() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])


def _group_free() -> Iterator[int]:
    """What the control group leaves (version 2, then 1), its page cache counted as free."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            stat = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
            cache = int(stat.get("inactive_file", stat.get("total_inactive_file", 0)))
            yield max(0, int(limit.read_text()) - int(used.read_text()) + cache)


def _limit_free() -> Iterator[int]:
    """What `ulimit -d` and `ulimit -v` leave."""
    with contextlib.suppress(ImportError):  # not a Unix
        import resource

        for limit, used in ((resource.RLIMIT_DATA, _status("VmData")), (resource.RLIMIT_AS, _status("VmSize"))):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY and used is not None:
                yield max(0, soft - used)


def _status(name: str) -> int | None:
    """A line of /proc/self/status in bytes."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name + ":")).split()[1])
    return None


def keep_out_of_git(path: Path) -> None:
    """Tell git to leave alone what lies under .stresstest: runs are not part of a repository."""
    for folder in path.absolute().parents:
        if folder.name == ".stresstest" and not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("*\n")
