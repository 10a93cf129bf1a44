"""The system calls that change files, seen one by one: to record them, to fail one, or to die before it.

`watched` puts itself before `open`, `write`, `fsync`, `mkdir`, `rename`, `unlink` and `truncate` of this process, as
far as they are made from Python, and hands each `Call` to a function before it is made.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Call:
    """One call. `data` and `offset` of a write; `other` is the new name of a rename; `size` of a truncation."""

    name: str
    path: str
    data: bytes = b""
    offset: int = 0
    other: str = ""
    size: int = 0


Watch = Callable[[Call], None]


@contextmanager
def watched(folder: Path, watch: Watch) -> Iterator[None]:
    """`watch` hears of every call about a file in the folder, before it is made; what it raises is its outcome."""
    inside = f"{folder}{os.sep}"

    def told(call: Call) -> None:
        if call.path.startswith(inside) or call.path == str(folder):
            watch(call)

    real = {name: getattr(os, name) for name in ("fsync", "mkdir", "rename", "replace", "unlink", "truncate")}

    def fsync(file: Any) -> None:
        told(Call("fsync", str(Path(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}").readlink())))
        real["fsync"](file)

    def mkdir(path: Any, *rest: Any, **named: Any) -> None:
        told(Call("mkdir", os.fspath(path)))
        real["mkdir"](path, *rest, **named)

    def rename(source: Any, target: Any, **named: Any) -> None:
        told(Call("rename", os.fspath(source), other=os.fspath(target)))
        real["replace"](source, target, **named)

    def unlink(path: Any, **named: Any) -> None:
        told(Call("unlink", os.fspath(path)))
        real["unlink"](path, **named)

    def truncate(path: Any, size: int) -> None:
        told(Call("truncate", os.fspath(path), size=size))
        real["truncate"](path, size)

    opened = _open(told)
    with (
        mock.patch.multiple(
            os, fsync=fsync, mkdir=mkdir, rename=rename, replace=rename, unlink=unlink, truncate=truncate
        ),
        mock.patch.object(io, "open", opened),
        mock.patch.object(builtins, "open", opened),
    ):
        yield


class _File(io.FileIO):
    """A file whose writes are told; what is appended is at its end."""

    def __init__(self, path: str, mode: str, told: Watch) -> None:
        self._told = told
        told(Call("open", path, data=mode.encode()))
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        """Tell, then write."""
        content = bytes(data)
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        self._told(Call("write", str(self.name), data=content, offset=offset))
        return super().write(content)


def _open(told: Watch) -> Callable[..., Any]:
    real = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real(file, mode, *rest, **named)
        raw = _File(os.fspath(file), mode.replace("b", "").replace("t", ""), told)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding=named.get("encoding", "utf-8"), newline=named.get("newline"))

    return opened
