"""Holds that idle processes train ahead of the search that may ask for them, through files of the run directory.

A search asks one question at a time. Whoever has a core to spare trains what it may ask next; what comes of it is the
same to the bit, and what is never asked for is left out. Only the time changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stresstest.json_text import parse_json
from stresstest.measurements.journal import Journal
from stresstest.measurements.replica import ReplicaRun

_ASKED = "asked.json"
_DIGEST_BYTES = 16  # in front of an answer
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 60.0  # with an answer that gets no further: its process hangs, or is slower than training it here


@dataclass(frozen=True)
class Question:
    """A hold: the seed, its constant learning rate, and for how many steps."""

    seed: int
    lr: float
    num_steps: int

    @property
    def name(self) -> str:
        """Of its files; exact."""
        return f"{self.seed}-{self.num_steps}-{self.lr.hex()}"


class NotWantedError(Exception):
    """The search that was to ask this has gone another way."""


class Ahead:
    """What a group of cells lets others train, in a folder of its own; without one, nothing.

    A file named for a question says that somebody began to answer it, who holds its lock for as long; once it is gone,
    the answer is not wanted.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.close()

    def offer(self, questions: Sequence[Question], at_hand: Sequence[Question]) -> None:
        """Whoever has a core to spare may train these, the first first; what was begun of others ends.

        But for the questions at hand, which are trained here unless somebody began.
        """
        if self._folder is None:
            return
        wanted = {question.name for question in (*questions, *at_hand)}
        with contextlib.suppress(OSError):  # a full disk, say: all is trained here
            self._folder.mkdir(parents=True, exist_ok=True)
            for begun in self._folder.glob("*.begun"):
                if begun.stem not in wanted:
                    begun.unlink()
            _write(self._folder / _ASKED, json.dumps([asdict(question) for question in questions]).encode())

    def answer(self, question: Question, wait: Callable[[], None]) -> ReplicaRun | None:
        """What another process made of a question, `None` if none did; calls `wait` while one is at it."""
        if self._folder is None:
            return None
        begun, answered = _files(self._folder, question)
        seen, since = None, 0.0
        while (sign := _last_sign(begun)) is not None:
            with _locked(begun) as locked:
                if locked:
                    break
            if sign != seen:
                seen, since = sign, time.monotonic()
            elif time.monotonic() - since > _PATIENCE_SECONDS:
                break
            wait()
            time.sleep(_POLL_SECONDS)
        return _answer(answered)

    def close(self) -> None:
        """Nothing is wanted any more."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def asked_in(folder: Path) -> list[Question]:
    """The questions that a group offers at the moment."""
    try:
        return [Question(**question) for question in parse_json((folder / _ASKED).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def answer_ahead(folder: Path, question: Question, train: Callable[[Journal], ReplicaRun]) -> None:
    """Train a question of the group whose folder this is, with a journal that ends it once it is not wanted."""
    begun, answered = _files(folder, question)
    with contextlib.suppress(OSError, NotWantedError):
        begun.touch()
        with _locked(begun) as locked:
            if locked and not answered.exists():
                content = pickle.dumps(train(_WhileWanted(begun)))
                _write(answered, _digest(content) + content)


class _WhileWanted(Journal):
    """Keeps nothing; training ends where its file is gone."""

    def __init__(self, begun: Path) -> None:
        super().__init__()
        self._begun = begun

    def offer(self, key: str, state: Callable[[], object]) -> None:
        super().offer(key, state)
        try:
            os.utime(self._begun)  # a sign that it gets further
        except OSError:
            raise NotWantedError from None


def _files(folder: Path, question: Question) -> tuple[Path, Path]:
    return folder / f"{question.name}.begun", folder / f"{question.name}.answer"


def _last_sign(begun: Path) -> int | None:
    """When whoever began an answer last said that it gets further, in nanoseconds; `None` once it is not wanted."""
    try:
        return begun.stat().st_mtime_ns
    except OSError:
        return None


def _answer(path: Path) -> ReplicaRun | None:
    """A pickle, read from the run directory alone, as a checkpoint is; nothing of one that was cut short, say."""
    with contextlib.suppress(OSError):
        stored = path.read_bytes()
        content = stored[_DIGEST_BYTES:]
        if stored[:_DIGEST_BYTES] == _digest(content):
            found: ReplicaRun = pickle.loads(content)
            return found
    return None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether this process has the lock; not where another has it, nor where the file is gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            try:
                yield True
            finally:  # closing is not enough: a process that was forked meanwhile (a loader's worker) has it open too
                fcntl.flock(file, fcntl.LOCK_UN)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".part")
    draft.write_bytes(content)
    draft.replace(path)
