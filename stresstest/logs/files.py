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
_BINARY = re.compile(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f\x7f]|\A\s*\Z")  # what no text has, if it has zero bytes
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class NoLossError(ConfigError):
    """A file that can be read and holds no train loss: one that was only met in a folder is passed over."""


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
        """The same as text, without the zero bytes of a hole in it; empty of a binary file."""
        if self.encoding.startswith("utf-16"):
            return self.head.decode(self.encoding, "replace")
        text = self.head.replace(b"\0", b"")
        return "" if len(text) < len(self.head) and _BINARY.search(text) else text.decode(self.encoding, "replace")

    @property
    def damage(self) -> tuple[str, ...]:
        """What is to be said of a hole in the text: of a file that was emptied, or a disk that failed, in writing."""
        if b"\0" not in self.head or self.encoding.startswith("utf-16") or not self.head_text:
            return ()
        return (f"{self.head.count(0)} zero bytes were dropped: text was lost there while the log was written",)

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
                text = line.rstrip("\n").replace("\0", "")
                yield _ESCAPES.sub("", text) if "\x1b" in text else text
