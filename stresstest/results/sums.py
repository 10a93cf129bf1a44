"""Checksums of what is stored, so that nothing rots unseen: 64 bits of BLAKE2b (RFC 7693) of each record and file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError

AGAIN = "run its command again: it keeps what is trained and writes it anew"
_LONGEST = 120  # characters of an error that is told within another
_NAME = b',"sum":"'
_BYTES = 8  # of a checksum
_SEAL = re.compile(rb'([^"]*)"\}\Z')  # behind its name


class DamagedError(ConfigError):
    """What is stored is not what was written."""


def digest(data: bytes) -> str:
    """The checksum of bytes, 16 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=_BYTES).hexdigest()


class Summed:
    """Text as it passes part by part, whose checksum is known once all of it has."""

    def __init__(self, parts: Iterable[str]) -> None:
        self._parts = parts
        self._passed = hashlib.blake2b(digest_size=_BYTES)

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            self._passed.update(part.encode())
            yield part

    @property
    def digest(self) -> str:
        """The checksum of what has passed, as `digest` gives it."""
        return self._passed.hexdigest()


def seal(record: bytes) -> bytes:
    """A JSON object on one line, with the checksum of its bytes as its last key, and the end of the line."""
    return record[:-1] + _NAME + digest(record).encode() + b'"}\n'


def unseal(line: bytes) -> tuple[bytes, bool]:
    """The record of a line without its checksum, and whether it had one; one that does not fit is a `DamagedError`."""
    text = line.removesuffix(b"\n")
    start = text.rfind(_NAME)
    found = None if start < 0 else _SEAL.match(text, start + len(_NAME))
    if found is None:
        return text, False
    record = text[:start] + b"}"
    if digest(record).encode() != found[1]:
        raise DamagedError("its checksum does not fit")
    return record, True


@contextmanager
def being_read(unsealed: Path | None) -> Iterator[None]:
    """Within, what is missing or of another kind in this file, which has no checksum, is a `ConfigError`.

    `None`: there is a checksum, and such an error is a fault of ours.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if unsealed is None or (isinstance(error, ConfigError) and str(unsealed) in str(error)):
            raise
        if isinstance(error, ConfigError):
            raise ConfigError(f"{unsealed}: {error}") from None
        what = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        raise ConfigError(
            f"{unsealed} is not what was written ({what}), and no checksum vouches for it; the file was not changed"
        ) from None


def sealed_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its content, however that is written, as its last key."""
    return {**content, "sum": digest(_canonical(content))}


def checked_json(stored: Mapping[str, Any], path: Path, remedy: str) -> dict[str, Any]:
    """The object without its checksum; one that does not fit, or has lost its name, is a `DamagedError`.

    Older files have none.
    """
    last = "sum" if "sum" in stored else next(reversed(list(stored)), "")
    rest = {name: value for name, value in stored.items() if name != last}
    fits = stored.get(last) == digest(_canonical(rest))
    if fits != (last == "sum"):
        raise DamagedError(f"{path} is damaged (its checksum does not fit); {remedy}")
    return rest if fits else dict(stored)


def sum_of(path: Path) -> Path:
    """Where the checksum of a file lies that has none in itself: beside it, as name.sum."""
    return path.with_suffix(".sum")


def check_file(path: Path, content: bytes, remedy: str) -> bool:
    """A `DamagedError` where the checksum beside a file does not fit its content; whether there is one."""
    try:
        written = sum_of(path).read_text(errors="replace").strip()
    except OSError:
        return False
    if written != digest(content):
        raise DamagedError(f"{path} is damaged (its checksum in {sum_of(path).name} does not fit); {remedy}")
    return True


def _canonical(content: Mapping[str, Any]) -> bytes:
    """As it is read back: names as text, tuples as lists."""
    return json.dumps(json.loads(json.dumps(content)), sort_keys=True, separators=(",", ":")).encode()
