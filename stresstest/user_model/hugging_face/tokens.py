"""Text as token numbers: by a folder's tokenizer, or bytes behind the few special tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stresstest.errors import ConfigError
from stresstest.tasks.language import load_language

PAD, END, BEGIN, MASK, UNKNOWN = range(5)
FIRST_BYTE = 8  # the special tokens' places, of which three are free
VOCABULARY = FIRST_BYTE + 256
MOST_TEXT = 1 << 23  # bytes of each part that go through a tokenizer, which is slow
KINDS = ("lower-case letters", "other", "capitals", "digits")


@dataclass(frozen=True)
class Tokens:
    """How text becomes tokens: `encode` gives numbers, `text_of` the text of a number; `None` for tokens that lack."""

    encode: Callable[[bytes], Sequence[int]]
    text_of: Callable[[int], str]
    size: int
    pad: int
    end: int | None
    begin: int | None
    mask: int | None
    name: str

    @cached_property
    def kinds(self) -> Tensor:
        """Of each token of the vocabulary its kind, a place in `KINDS`."""
        return torch.tensor([_kind(self.text_of(number)) for number in range(self.size)])


@dataclass(frozen=True)
class Text:
    """A training and a validation part, each [N] tokens; text for what has to be encoded anew."""

    training: Tensor
    validation: Tensor


def byte_tokens() -> Tokens:
    """Bytes behind `FIRST_BYTE` special places."""
    return Tokens(
        encode=lambda text: [FIRST_BYTE + byte for byte in text],
        text_of=lambda number: chr(number - FIRST_BYTE) if number >= FIRST_BYTE else "",
        size=VOCABULARY,
        pad=PAD,
        end=END,
        begin=BEGIN,
        mask=MASK,
        name="bytes",
    )


def tokenizer_tokens(tokenizer: Any, config: Any) -> Tokens:
    """Those of a tokenizer of transformers; what it lacks the config may say."""
    end = _first(tokenizer.sep_token_id, tokenizer.eos_token_id, getattr(config, "eos_token_id", None))
    pad = _first(tokenizer.pad_token_id, getattr(config, "pad_token_id", None), end, 0)
    return Tokens(
        encode=lambda text: tokenizer(text.decode("utf-8", "replace"), add_special_tokens=False, verbose=False)[
            "input_ids"
        ],
        text_of=lambda number: tokenizer.decode([number]),
        size=len(tokenizer),
        pad=0 if pad is None else pad,
        end=end,
        begin=_first(tokenizer.cls_token_id),
        mask=_first(tokenizer.mask_token_id),
        name=f"its tokenizer ({type(tokenizer).__name__}, {len(tokenizer):,} tokens)",
    )


def parts_of(data: str, seq_len: int) -> tuple[bytes, bytes]:
    """Training and validation text of a source."""
    task = load_language(data, 1, seq_len)
    return task.training.tobytes(), task.validation.tobytes()


def encoded(tokens: Tokens, parts: tuple[bytes, bytes], data: str, seq_len: int) -> Text:
    """Both parts as numbers; too few of them are a `ConfigError`."""
    found = []
    for part in parts:
        if tokens.name != "bytes":
            part = part[:MOST_TEXT]
        numbers = torch.tensor(list(tokens.encode(part)), dtype=torch.int64)
        if len(numbers) < seq_len + 1:
            raise ConfigError(
                f"data '{data}' has a part of {len(numbers)} tokens, too few for sequences of {seq_len}; "
                "give more text or a smaller --seq-len"
            )
        found.append(numbers)
    return Text(*found)


def _kind(text: str) -> int:
    text = text.strip("Ġ▁# ")
    if text[:1].isdigit():
        return KINDS.index("digits")
    if not text[:1].isalpha():
        return KINDS.index("other")
    return KINDS.index("capitals") if text[:1].isupper() else KINDS.index("lower-case letters")


def _first(*numbers: Any) -> int | None:
    return next((int(n) for n in numbers if isinstance(n, int) and not isinstance(n, bool)), None)
