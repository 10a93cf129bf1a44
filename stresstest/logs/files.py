"""The files to read: their first bytes, and their text as lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stresstest.errors import ConfigError

_HEAD = 1 << 16
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class NoLossError(ConfigError):
    """A file that can be read and holds no train loss: where it was only met in a folder, it is no log."""


@dataclass(frozen=True)
class LogFile:
    """A file that may be a log; `shown` is its name in what is printed.

    more: further files of the same run, in the order in which they were written. notes: how they were found.
    """

    path: Path
    shown: str
    more: tuple[LogFile, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB."""
        with self.path.open("rb") as stream:
            return stream.read(_HEAD)

    @cached_property
    def head_text(self) -> str:
        """The same as text; empty of a binary file."""
        if b"\0" in self.head and not self.encoding.startswith("utf-16"):
            return ""
        return self.head.decode(self.encoding, "replace")

    @cached_property
    def encoding(self) -> str:
        """UTF-8 unless its first bytes are those of UTF-16, which PowerShell's `>` writes."""
        if self.head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        start = self.head[:512]
        if len(start) >= 64 and start[1::2].count(0) > len(start) * 0.45 and b"\0" not in start[::2]:
            return "utf-16-le"
        return "utf-8-sig"

    @property
    def suffix(self) -> str:
        """The last suffix of its name, in lower case."""
        return self.path.suffix.lower()

    def lines(self) -> Iterator[str]:
        """Its lines, also where a carriage return ends one, without colour codes."""
        with self.path.open(encoding=self.encoding, errors="replace", newline=None) as stream:
            for line in stream:
                yield _ESCAPES.sub("", line.rstrip("\n")) if "\x1b" in line else line.rstrip("\n")
