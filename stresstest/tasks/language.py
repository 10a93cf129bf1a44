"""Byte-level language modelling: predict the next byte of a text or binary file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stresstest.errors import ConfigError
from stresstest.lazy import numpy as np
from stresstest.registry import Registry
from stresstest.tasks.generator import generate_text
from stresstest.tasks.task import TRAINING, VALIDATION, Batch, Source, draw_places

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SYNTHETIC_BYTES = 1 << 20
VALIDATION_SHARE = 0.1
VOCABULARY = 256
_ENWIK8_BYTES, _ENWIK8_PART = 100_000_000, 5_000_000


@dataclass(frozen=True)
class DataSource(Source[bytes]):
    """One place that text comes from."""

    kept: int | None = None  # bytes at the end that are for validation; a tenth where it does not say


@cache  # another batch size asks for it again
def _load_synthetic(argument: str) -> bytes:
    if argument:
        raise ConfigError(f"data 'synthetic:{argument}': synthetic has no argument; write synthetic")
    return generate_text(SYNTHETIC_BYTES)


def _load_pydoc(argument: str) -> bytes:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError("data 'pydoc': this Python lacks pydoc_data; use --data synthetic") from None
    return "\n".join(topics[name] for name in sorted(topics)).encode()


def _load_path(argument: str, name: str = "path") -> bytes:
    path = Path(argument).expanduser()
    if not argument or not path.is_file():
        raise ConfigError(f"data file '{argument}' does not exist; give --data {name}:FILE")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"data file '{argument}' cannot be read: {error.strerror}") from None


def _load_enwik8(argument: str) -> bytes:
    data = _load_path(argument, "enwik8")
    if len(data) != _ENWIK8_BYTES:
        raise ConfigError(
            f"data file '{argument}' has {len(data)} bytes; enwik8 has {_ENWIK8_BYTES}: use path:{argument}"
        )
    return data[: _ENWIK8_BYTES - _ENWIK8_PART]


DATA_SOURCES: Registry[DataSource] = Registry(
    "data source",
    [
        DataSource(
            "synthetic",
            "Generated wiki-like text, 1 MiB: Zipf lexicon, recursive grammar, mark-up (the default).",
            "this project",
            _load_synthetic,
        ),
        DataSource("pydoc", "The English help texts in every CPython (differ by version).", "CPython", _load_pydoc),
        DataSource("path", "Any text or binary file, e.g. path:book.txt.", "", _load_path),
        DataSource(
            "enwik8",
            "The first 10^8 bytes of Wikipedia, enwik8:FILE; 90 million for training, 5 for validation.",
            "Hutter 2006",
            _load_enwik8,
            _ENWIK8_PART,
        ),
    ],
)


@dataclass(frozen=True)
class LanguageTask:
    """Bytes split into a training and a validation part, and the losses they are judged against."""

    data: bytes
    batch_size: int
    seq_len: int
    kept: int | None = None  # bytes at the end that are for validation, where they are not a tenth

    @cached_property
    def training(self) -> NDArray[np.uint8]:
        """The first nine tenths."""
        return np.frombuffer(self.data, np.uint8)[: self._split]

    @cached_property
    def validation(self) -> NDArray[np.uint8]:
        """The last tenth."""
        return np.frombuffer(self.data, np.uint8)[self._split :]

    @property
    def num_inputs(self) -> int:
        """Bytes that a prediction reads."""
        return self.seq_len

    @property
    def num_classes(self) -> int:
        """The next byte is one of these."""
        return VOCABULARY

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess."""
        return math.log(VOCABULARY)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the bytes: results on different data are not comparable."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    @property
    def description(self) -> dict[str, int | str | float]:
        """What a result stores of the data."""
        return {
            "bytes": len(self.data),
            "hash": self.fingerprint,
            "baseline_loss": self.baseline_loss,
            "chance_loss": self.chance_loss,
        }

    @cached_property
    def baseline_loss(self) -> float:
        """Unigram entropy of the training part in nats: the best constant predictor's loss."""
        return float(-(self._unigram[self._unigram > 0] * self._log_unigram[self._unigram > 0]).sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each byte in the training part, [256]."""
        return self._unigram

    @cached_property
    def log_prior(self) -> NDArray[np.float64]:
        """Log-probability of each byte under the unigram distribution, [256]; unseen bytes get a half count."""
        return self._log_unigram

    def arrays(self, stream: int) -> tuple[NDArray[np.generic], ...]:
        """The bytes of a stream's part."""
        return (self.validation if stream == VALIDATION else self.training,)

    def places(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> NDArray[np.int64]:
        """Where each sequence of a batch starts, [R, B]: a function of (seed, step, stream) only."""
        part = self.validation if stream == VALIDATION else self.training
        return draw_places(seeds, step, stream, self.batch_size, len(part) - self.seq_len)

    def read(self, arrays: tuple[Tensor, ...], places_RB: Tensor) -> Batch:
        """Bytes and, for each, the byte after it, both [R, B, T], int64."""
        import torch

        span = torch.arange(self.seq_len + 1, device=places_RB.device)
        tokens = arrays[0][places_RB[..., None] + span].long()
        return Batch(tokens[..., :-1], tokens[..., 1:])

    @property
    def _split(self) -> int:
        kept = int(len(self.data) * VALIDATION_SHARE) if self.kept is None else self.kept
        return len(self.data) - kept

    @cached_property
    def _log_unigram(self) -> NDArray[np.float64]:
        return np.asarray(np.log(np.maximum(self._unigram, 0.5 / len(self.training))))

    @cached_property
    def _unigram(self) -> NDArray[np.float64]:
        counts = np.bincount(self.training, minlength=VOCABULARY)
        return np.asarray(counts / counts.sum())


@lru_cache(maxsize=4)
def load_language(data: str, batch_size: int, seq_len: int) -> LanguageTask:
    """The task on the bytes of `data` (NAME[:argument]); a `ConfigError` if they do not suffice."""
    name, _, argument = data.partition(":")
    task = LanguageTask(DATA_SOURCES[name].load(argument), batch_size, seq_len, DATA_SOURCES[name].kept)
    shortest = min(len(task.training), len(task.validation))
    if shortest < seq_len + 1:
        needed = math.ceil((seq_len + 1) / VALIDATION_SHARE)
        raise ConfigError(
            f"data '{data}' has {len(task.data)} bytes, too few for sequences of {seq_len}: "
            f"it needs at least {needed} (a tenth is kept for validation)"
        )
    if task.baseline_loss == 0.0:
        raise ConfigError(f"data '{data}' repeats one byte, so there is nothing to learn")
    return task
