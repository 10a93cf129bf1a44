"""Batches for each family: `batch(step, batch_size, generator, split)`, a dict as the family's models take it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.errors import ConfigError
from stresstest.tasks.images import load_images
from stresstest.tasks.masked import ASKED_SHARE, MASKED_SHARE, RANDOM_SHARE
from stresstest.tasks.task import TRAINING, VALIDATION
from stresstest.tasks.translation import PAIR_SOURCES
from stresstest.user_model.constants.targets import IGNORED
from stresstest.user_model.hugging_face.tokens import Text, Tokens, encoded, parts_of

Batch = dict[str, Tensor]
_ANSWER = 8  # the most tokens that are marked
_NOISE = 0.5  # of a tone of amplitude 1
_TONES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)  # waves in 64 samples of each class
_SPAN = 160.0

CHANGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda text: text,
    bytes.upper,
    lambda text: b"".join(text.split()),
    lambda text: text[::-1],
)


@dataclass(frozen=True)
class TextSource:
    """Where text comes from, and its tokens: what the batches of language are made of."""

    data: str
    seq_len: int
    tokens: Tokens

    @cached_property
    def parts(self) -> tuple[bytes, bytes]:
        """Training and validation text."""
        return parts_of(self.data, self.seq_len)

    @cached_property
    def text(self) -> Text:
        """The same as tokens."""
        return encoded(self.tokens, self.parts, self.data, self.seq_len)

    def rows(self, batch_size: int, length: int, generator: torch.Generator, split: str) -> Tensor:
        """Stretches of the text, [B, T]."""
        part = self.text.validation if split == "validation" else self.text.training
        starts = torch.randint(len(part) - length, (batch_size,), generator=generator)
        return part[starts[:, None] + torch.arange(length)]

    def framed(self, batch_size: int, generator: torch.Generator, split: str) -> tuple[Tensor, Tensor]:
        """Rows between the tokens that begin and end one, [B, T], and where the text is."""
        begin, end = self.tokens.begin, self.tokens.end
        frame = (begin is not None) + (begin is not None and end is not None)
        inner = self.rows(batch_size, max(1, self.seq_len - frame), generator, split)
        return self.frame(inner)

    def frame(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T] with its begin and end where there are such tokens, and where the text is, bool [B, T]."""
        columns, places = [inner], [torch.ones_like(inner, dtype=torch.bool)]
        if self.tokens.begin is not None:
            for token, at in ((self.tokens.begin, 0), (self.tokens.end, len(columns) + 1)):
                if token is not None:
                    columns.insert(at, torch.full_like(inner[:, :1], token))
                    places.insert(at, torch.zeros_like(inner[:, :1], dtype=torch.bool))
        return torch.cat(columns, 1), torch.cat(places, 1)


def causal(source: TextSource) -> Callable[..., Batch]:
    """The next token; the model shifts the labels itself."""

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        tokens = source.rows(batch_size, source.seq_len, generator, split)
        return {"input_ids": tokens, "labels": tokens}

    return batch


def masked(source: TextSource) -> Callable[..., Batch]:
    """BERT's: 15 % of the tokens are asked for; of them 80 % are hidden, 10 % another token, 10 % as they were."""
    mask = source.tokens.mask
    if mask is None:
        raise ConfigError("its tokenizer has no mask token, so nothing can be hidden; give a batch() with --batch-fn")

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        tokens, is_text = source.framed(batch_size, generator, split)
        order = torch.rand(tokens.shape, generator=generator).masked_fill(~is_text, 2.0).argsort(1)
        asked = torch.zeros_like(is_text)
        asked.scatter_(1, order[:, : max(1, round(ASKED_SHARE * int(is_text[0].sum())))], True)
        what = torch.rand(tokens.shape, generator=generator)
        other = source.text.training[torch.randint(len(source.text.training), tokens.shape, generator=generator)]
        changed = torch.where(what < MASKED_SHARE, mask, torch.where(what < MASKED_SHARE + RANDOM_SHARE, other, tokens))
        return {
            "input_ids": torch.where(asked, changed, tokens),
            "attention_mask": torch.ones_like(tokens),
            "labels": torch.where(asked, tokens, IGNORED),
        }

    return batch


def seq2seq(source: TextSource) -> Callable[..., Batch]:
    """Pairs of sentences, cut where they are too long; of a text that is no pairs, text with gaps and the text."""
    tokens = source.tokens
    name, _, argument = source.data.partition(":")
    if name not in PAIR_SOURCES:
        return _with_gaps(source)
    parts = []
    for pairs in PAIR_SOURCES[name].load(argument):
        rows = [[list(tokens.encode(" ".join(side).encode())) + _ends(tokens) for side in pair] for pair in pairs]
        sides = []
        for side in range(2):
            table = torch.full((len(rows), source.seq_len), -1)
            for i, row in enumerate(rows):
                table[i, : len(row[side])] = torch.tensor(row[side][: source.seq_len])
            sides.append(table)
        parts.append(sides)

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        sources, targets = parts[split == "validation"]
        rows = torch.randint(len(sources), (batch_size,), generator=generator)
        read, said = sources[rows], targets[rows]
        return {
            "input_ids": read.masked_fill(read < 0, tokens.pad),
            "attention_mask": (read >= 0).long(),
            "labels": said.masked_fill(said < 0, IGNORED),
        }

    return batch


def _with_gaps(source: TextSource) -> Callable[..., Batch]:
    gap = source.tokens.mask if source.tokens.mask is not None else source.tokens.pad

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        tokens = source.rows(batch_size, source.seq_len, generator, split)
        hidden = torch.rand(tokens.shape, generator=generator) < ASKED_SHARE
        return {
            "input_ids": torch.where(hidden, gap, tokens),
            "attention_mask": torch.ones_like(tokens),
            "labels": tokens,
        }

    return batch


def _ends(tokens: Tokens) -> list[int]:
    return [] if tokens.end is None else [tokens.end]


def sequence_classification(source: TextSource, num_labels: int) -> Callable[..., Batch]:
    """Stretches of text to which one of the first `num_labels` of `CHANGES` was done."""
    if not 2 <= num_labels <= len(CHANGES):
        raise ConfigError(
            f"num_labels {num_labels}: the built-in classes of text are 2 to {len(CHANGES)}; set num_labels, or give "
            "a batch() with --batch-fn"
        )
    tokens = source.tokens
    changed = [
        encoded(tokens, (change(source.parts[0]), change(source.parts[1])), source.data, source.seq_len)
        for change in CHANGES[:num_labels]
    ]
    framed = tokens.begin is not None
    length = max(1, source.seq_len - (1 + (tokens.end is not None)) * framed)

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        labels = torch.randint(num_labels, (batch_size,), generator=generator)
        where = torch.rand(batch_size, generator=generator, dtype=torch.float64)
        rows = []
        for label, place in zip(labels.tolist(), where.tolist(), strict=True):
            part = changed[label].validation if split == "validation" else changed[label].training
            start = int(place * (len(part) - length))
            rows.append(part[start : start + length])
        ids, _ = source.frame(torch.stack(rows))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    return batch


def token_classification(source: TextSource, num_labels: int) -> Callable[..., Batch]:
    """Of what kind the token before each is: lower-case, other, capitals, digits, as many as there are labels."""
    if num_labels < 2:
        raise ConfigError(f"num_labels {num_labels}: there are at least 2 kinds of tokens; set num_labels")

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        ids, is_text = source.framed(batch_size, generator, split)
        kinds = source.tokens.kinds[ids].clamp(max=num_labels - 1)
        labels = torch.full_like(ids, IGNORED)
        labels[:, 1:] = torch.where(is_text[:, :-1] & is_text[:, 1:], kinds[:, :-1], IGNORED)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    return batch


def question_answering(source: TextSource) -> Callable[..., Batch]:
    """Where a stretch between two marks, the tokens that end a text, begins and ends."""
    mark = source.tokens.mask if source.tokens.mask is not None else source.tokens.end
    if mark is None:
        raise ConfigError("its tokenizer has no token to mark an answer with; give a batch() with --batch-fn")
    if source.seq_len < 2 * _ANSWER:
        raise ConfigError(f"seq-len {source.seq_len} is too short for a marked answer; use at least {2 * _ANSWER}")

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        ids, is_text = source.framed(batch_size, generator, split)
        first, length = int(is_text[0].long().argmax()), int(is_text[0].sum())
        marks = first + torch.randint(length - _ANSWER - 2, (batch_size,), generator=generator)
        sizes = torch.randint(1, _ANSWER, (batch_size,), generator=generator)
        rows = torch.arange(batch_size)
        ids = ids.clone()
        ids[rows, marks], ids[rows, marks + sizes + 1] = mark, mark
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "start_positions": marks + 1,
            "end_positions": marks + sizes,
        }

    return batch


def images(data: str, size: tuple[int, int], channels: int, num_labels: int) -> Callable[..., Batch]:
    """The built-in images, of the first `num_labels` classes, at a size and with 1 or 3 channels."""
    task = load_images(data, 1)
    if channels not in (1, 3):
        raise ConfigError(f"num_channels {channels}: the built-in images have 1 or 3; give a batch() with --batch-fn")
    if num_labels < 2:
        raise ConfigError(f"num_labels {num_labels}: the built-in images have 2 to 10 classes; set num_labels")
    parts = []
    for stream in (TRAINING, VALIDATION):
        pixels, classes = map(torch.from_numpy, task.arrays(stream))
        mine = classes < num_labels
        parts.append((pixels[mine], classes[mine].long()))
    has = 3 if task.num_inputs % 3 == 0 else 1
    side = math.isqrt(task.num_inputs // has)

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        pixels, classes = parts[split == "validation"]
        rows = torch.randint(len(classes), (batch_size,), generator=generator)
        shown = pixels[rows].view(-1, has, side, side).float() / 127.5 - 1.0
        if has != channels:
            shown = shown.mean(1, keepdim=True) if channels == 1 else shown.expand(-1, channels, -1, -1)
        if (side, side) != size:
            shown = F.interpolate(shown, size, mode="bilinear", align_corners=False)
        return {"pixel_values": shown.contiguous(), "labels": classes[rows]}

    return batch


def sound(shape: tuple[int, ...], num_labels: int, inputs: str) -> Callable[..., Batch]:
    """A tone of one of `num_labels` pitches with a phase of its own, in noise: samples [B, T], or a spectrogram's
    stripe [B, T, bins].
    """
    if not 2 <= num_labels <= len(_TONES):
        raise ConfigError(
            f"num_labels {num_labels}: the built-in tones are 2 to {len(_TONES)}; set num_labels, or give a batch() "
            "with --batch-fn"
        )
    tones = torch.tensor(_TONES[:num_labels], dtype=torch.float32)

    def batch(step: int, batch_size: int, generator: torch.Generator, split: str = "train") -> Batch:
        labels = torch.randint(num_labels, (batch_size,), generator=generator)
        phase = torch.rand(batch_size, generator=generator)[:, None]
        noise = _NOISE * torch.randn((batch_size, *shape), generator=generator)
        if len(shape) == 1:
            waves = torch.arange(shape[0])[None] * tones[labels][:, None] / _SPAN
            return {inputs: torch.sin(2 * torch.pi * (waves + phase)) + noise, "labels": labels}
        bins = torch.arange(shape[1])[None]
        stripe = torch.exp(-((bins - (labels[:, None] + 0.5) * shape[1] / num_labels) ** 2) / 2.0)
        return {inputs: stripe[:, None] + noise, "labels": labels}

    return batch
