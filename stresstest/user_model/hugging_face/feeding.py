"""Which batches a model of Hugging Face is fed with: those of its family, as its config reads them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stresstest.errors import ConfigError
from stresstest.tasks.task import VALIDATION, splitmix64
from stresstest.user_model.hugging_face import data as batches
from stresstest.user_model.hugging_face.configs import POSITIONS, said
from stresstest.user_model.hugging_face.naming import Named
from stresstest.user_model.hugging_face.tokens import VOCABULARY, Tokens, byte_tokens

_SAMPLES = 8_000  # of a recording: 24 frames of wav2vec 2.0's
_SIDE = 32  # of images, where a config says no size


@dataclass(frozen=True)
class Feed:
    """What the batches are made of: a data source, the length of a sequence, and the rows of a batch."""

    data: str
    seq_len: int
    batch_size: int

    @property
    def fingerprint(self) -> str:
        """Hash of the files that the data source names."""
        digest = hashlib.blake2b(self.data.encode(), digest_size=8)
        for part in self.data.partition(":")[2].split(","):
            place = Path(part.strip()).expanduser()
            if part and place.exists():
                for file in sorted(place.iterdir()) if place.is_dir() else [place]:
                    digest.update(file.read_bytes() if file.is_file() else b"")
        return digest.hexdigest()


class FamilyStream:
    """A family's batches by seed, step and stream, each from a generator of its own."""

    held_out = True

    def __init__(
        self, make: Callable[[], Callable[..., Any]], batch_size: int, words: str, dtype: torch.dtype = torch.float32
    ) -> None:
        self._make = make
        self._dtype = dtype  # of pictures and recordings: the model's
        self._batch_size = batch_size
        self._words = words

    @cached_property
    def _batch(self) -> Callable[..., Any]:
        return self._make()

    def draw(self, seed: int, step: int, stream: int) -> Any:
        """The batch: a dict of tensors, as the family's models take it."""
        key = splitmix64(splitmix64(np.array([seed], np.uint64)) + np.uint64(step * 4 + stream))
        generator = torch.Generator().manual_seed(int(key[0] >> np.uint64(1)))
        split = "validation" if stream == VALIDATION else "train"
        batch = self._batch(step, self._batch_size, generator, split=split)
        return {name: part.to(self._dtype) if part.is_floating_point() else part for name, part in batch.items()}

    def of(self, batch_size: int) -> FamilyStream:
        """The same with batches of another size."""
        sized = copy.copy(self)
        sized._batch_size = batch_size
        return sized

    def named(self, step: int, stream: int) -> str:
        """As a line says it."""
        return f"batch {step} of {self._words}"

    def words(self) -> str:
        """Where batches come from."""
        return self._words

    def description(self) -> Mapping[str, int | str | float]:
        """What a result calls them."""
        return {"name": self._words}


def stream_of(named: Named, config: Any, tokens: Tokens | None, feed: Feed) -> FamilyStream | None:
    """The family's batches; `None` where the built-in bytes are what a causal language model reads."""
    family = named.family
    if family.data == "images":
        words = f"the built-in images, {feed.data}"
        make = _images(named, config, feed.data)
    elif family.data == "sound":
        words, make = "the built-in tones", _sound(named, config)
    else:
        text = _text_config(config)
        _positions(named, text, feed.seq_len)
        if tokens is None and family.name == "causal":
            _vocabulary(named, text, 256, "bytes")
            return None
        words = f"{feed.data}, {family.summary[0].lower()}{family.summary[1:].removesuffix('.')}"
        if tokens is not None:
            words += f", through {tokens.name}"
        tokens = tokens or byte_tokens()
        _vocabulary(named, text, tokens.size, tokens.name)
        make = _text(named, config, batches.TextSource(feed.data, feed.seq_len, tokens))
    dtype = said(config, "dtype")
    floats = dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else torch.float32
    return FamilyStream(make, feed.batch_size, words, floats)


def _text(named: Named, config: Any, source: batches.TextSource) -> Callable[[], Callable[..., Any]]:
    labels = getattr(config, "num_labels", 2)
    makers: Mapping[str, Callable[[], Callable[..., Any]]] = {
        "causal": lambda: batches.causal(source),
        "masked": lambda: batches.masked(source),
        "seq2seq": lambda: batches.seq2seq(source),
        "sequence-classification": lambda: batches.sequence_classification(source, labels),
        "token-classification": lambda: batches.token_classification(source, labels),
        "question-answering": lambda: batches.question_answering(source),
    }
    return makers[named.family.name]


def _text_config(config: Any) -> Any:
    return next((value for name, value in vars(config).items() if name == "text_config" and value), config)


def _positions(named: Named, config: Any, seq_len: int) -> None:
    """A sequence must not be longer than the positions that a model has, nor too short to hold a next token."""
    if seq_len < 2 and named.family.name == "causal":
        raise ConfigError(f"{named.path}: seq-len {seq_len} has no next token to predict; use --seq-len 2 or more")
    for name in POSITIONS:
        most = said(config, name)
        if isinstance(most, int) and 0 < most < seq_len:
            more = f", or --set {name}={seq_len}" if named.folder is None else ""
            raise ConfigError(
                f"{named.path}: seq-len {seq_len} is more than its {most} positions; use --seq-len {most}{more}"
            )


def _vocabulary(named: Named, config: Any, size: int, name: str) -> None:
    has = said(config, "vocab_size")
    if isinstance(has, int) and has < size:
        remedy = "set vocab_size" if named.folder is None else "put the tokenizer that it was trained with there"
        why = f" ({VOCABULARY - 256} special tokens and 256 bytes)" if size == VOCABULARY else ""
        raise ConfigError(f"{named.path}: its vocabulary of {has} is too small for {name}, {size}{why}; {remedy}")


def _images(named: Named, config: Any, data: str) -> Callable[[], Callable[..., Any]]:
    part = getattr(config, "vision_config", config)
    size = said(part, "image_size") or _SIDE
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    patch = said(part, "patch_size")
    if isinstance(patch, int) and (sides[0] % patch or sides[1] % patch):
        raise ConfigError(
            f"{named.path}: image_size {sides[0]} is not a multiple of patch_size {patch}; set one to fit the other"
        )
    channels = said(part, "num_channels") or 3
    return lambda: batches.images(data, (sides[0], sides[1]), channels, config.num_labels)


def _sound(named: Named, config: Any) -> Callable[[], Callable[..., Any]]:
    if isinstance(said(config, "conv_stride"), list | tuple):
        return lambda: batches.sound((_SAMPLES,), config.num_labels, "input_values")
    bins, frames = said(config, "num_mel_bins"), said(config, "max_length")
    if isinstance(bins, int) and isinstance(frames, int) and named.kind == "audio-spectrogram-transformer":
        return lambda: batches.sound((frames, bins), config.num_labels, "input_values")
    raise ConfigError(f"{named.path}: no recordings are built in for {named.kind}; give a batch() with --batch-fn")
