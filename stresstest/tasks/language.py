"""Byte-level language modelling: predict the next byte of a text or binary file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresstest.errors import ConfigError
from stresstest.tables import Table
from stresstest.tasks.generator import generate_text

SYNTHETIC_BYTES = 1 << 20
VALIDATION_SHARE = 0.1
CHANCE_LOSS = math.log(256)

# Streams of batch offsets that never meet: training, the loss at initialisation, validation.
TRAINING, INITIAL, VALIDATION = range(3)


@dataclass(frozen=True)
class DataSource:
    """One place that bytes come from; `load` takes what stands behind the colon."""

    name: str
    summary: str
    source: str
    load: Callable[[str], bytes]


def _load_synthetic(argument: str) -> bytes:
    if argument:
        raise ConfigError(f"data 'synthetic:{argument}': synthetic takes nothing behind a colon")
    return generate_text(SYNTHETIC_BYTES)


def _load_pydoc(argument: str) -> bytes:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError("data 'pydoc': this Python lacks pydoc_data; use --data synthetic") from None
    return "\n".join(topics[name] for name in sorted(topics)).encode()


def _load_path(argument: str) -> bytes:
    path = Path(argument).expanduser()
    if not argument or not path.is_file():
        raise ConfigError(f"data file '{argument}' does not exist; give --data path:FILE")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"data file '{argument}' cannot be read: {error.strerror}") from None


DATA_SOURCES: Table[DataSource] = Table(
    "data source",
    [
        DataSource(
            "synthetic",
            "Generated wiki-like text, 1 MiB: Zipf lexicon, recursive grammar, mark-up (the default).",
            "this project",
            _load_synthetic,
        ),
        DataSource("pydoc", "The English that every CPython carries (differs by version).", "CPython", _load_pydoc),
        DataSource("path", "Any text or binary file, e.g. path:enwik8.", "", _load_path),
    ],
)


@dataclass(frozen=True)
class LanguageTask:
    """Bytes split into a training and a validation part, and the losses they are judged against."""

    data: bytes
    batch_size: int
    seq_len: int

    @cached_property
    def training(self) -> NDArray[np.uint8]:
        """The first nine tenths."""
        return np.frombuffer(self.data, np.uint8)[: self._split]

    @cached_property
    def validation(self) -> NDArray[np.uint8]:
        """The last tenth."""
        return np.frombuffer(self.data, np.uint8)[self._split :]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the bytes: results on different data are not comparable."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    @cached_property
    def baseline_loss(self) -> float:
        """Unigram entropy of the training part in nats: the best constant predictor's loss."""
        return float(-(self._unigram[self._unigram > 0] * self.log_unigram[self._unigram > 0]).sum())

    @cached_property
    def log_unigram(self) -> NDArray[np.float64]:
        """Log-probability of each byte under the unigram distribution, [256]; unseen bytes get a half count."""
        return np.asarray(np.log(np.maximum(self._unigram, 0.5 / len(self.training))))

    def offsets(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> NDArray[np.int64]:
        """Where each sequence of a batch starts, [R, B]: a function of (seed, step, stream) only."""
        part = self.validation if stream == VALIDATION else self.training
        keys = _splitmix64(np.array(seeds, np.uint64) * np.uint64(4) + np.uint64(stream))
        places = np.arange(self.batch_size, dtype=np.uint64) + np.uint64(step * self.batch_size)
        counters: NDArray[np.uint64] = keys[:, None] + places
        return (_splitmix64(counters) % np.uint64(len(part) - self.seq_len)).astype(np.int64)

    @property
    def _split(self) -> int:
        return len(self.data) - int(len(self.data) * VALIDATION_SHARE)

    @cached_property
    def _unigram(self) -> NDArray[np.float64]:
        counts = np.bincount(self.training, minlength=256)
        return np.asarray(counts / counts.sum())


@lru_cache(maxsize=4)
def load_task(data: str, batch_size: int, seq_len: int) -> LanguageTask:
    """The task on the bytes of `data` (NAME[:argument]); a `ConfigError` if they do not suffice."""
    name, _, argument = data.partition(":")
    task = LanguageTask(DATA_SOURCES[name].load(argument), batch_size, seq_len)
    shortest = min(len(task.training), len(task.validation))
    if shortest < seq_len + 1:
        needed = math.ceil((seq_len + 1) / VALIDATION_SHARE)
        raise ConfigError(
            f"data '{data}' has {len(task.data)} bytes, too few for sequences of {seq_len}: "
            f"it needs at least {needed} (a tenth is kept for validation)"
        )
    if task.baseline_loss == 0.0:
        raise ConfigError(f"data '{data}' repeats one byte: there is nothing to learn")
    return task


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Steele et al. 2014: integers only, so that batches are the same on every machine."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
