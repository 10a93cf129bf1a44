"""Masked language modelling on bytes, as BERT's: some positions are hidden, and to be told from both sides.

Devlin et al. 2019, Sec. 3.1: 15 % of the positions are asked for; of these 80 % are replaced by a mask, 10 % by a
random byte, and 10 % stay. Which ones is drawn anew in every step, in integers, the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from stresstest.lazy import numpy as np
from stresstest.tasks.language import VOCABULARY, LanguageTask, load_language
from stresstest.tasks.task import TRAINING, Batch, draw_places

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MASK = VOCABULARY  # the token that hides a byte
ASKED_SHARE, MASKED_SHARE, RANDOM_SHARE = 0.15, 0.8, 0.1
NOT_ASKED = -1  # the target of the other positions
_KEY_BITS = 31


@dataclass(frozen=True)
class MaskedTask(LanguageTask):
    """The bytes of a language task, of which a fixed number in each sequence is asked for."""

    @property
    def num_classes(self) -> int:
        """The bytes, and the mask, which is never the answer."""
        return VOCABULARY + 1

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess."""
        return math.log(self.num_classes)

    @property
    def num_asked(self) -> int:
        """Positions of a sequence that are asked for, at least one."""
        return max(1, round(ASKED_SHARE * self.seq_len))

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each byte in the training part, and of the mask, [257]."""
        return np.append(self._unigram, 0.0)

    @cached_property
    def log_prior(self) -> NDArray[np.float64]:
        """Log-probability of each byte under the unigram distribution, and of the mask, [257]."""
        return np.append(self._log_unigram, math.log(0.5 / len(self.training)))

    def places(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> NDArray[np.int64]:
        """Where each sequence of a batch starts, below a key of what is hidden in it, [R, B]."""
        starts = super().places(seeds, step, stream)
        return starts | (draw_places(seeds, step, stream, self.batch_size, 1 << _KEY_BITS) << 32)

    def read(self, arrays: tuple[Tensor, ...], places_RB: Tensor) -> Batch:
        """Bytes, some of them hidden or changed, and those that are asked for; both [R, B, T], int64."""
        import torch

        span = torch.arange(self.seq_len, device=places_RB.device)
        tokens = arrays[0][(places_RB & 0xFFFFFFFF)[..., None] + span].long()
        drawn = _mixed((places_RB >> 32)[..., None] * self.seq_len + span)
        asked = torch.zeros_like(tokens, dtype=torch.bool)
        asked.scatter_(-1, drawn.argsort(-1)[..., : self.num_asked], True)
        what = _mixed(drawn)
        share = (what & 0xFFFFFF).double() / (1 << 24)
        random = (what >> 24) & 0xFF
        changed = torch.where(
            share < MASKED_SHARE, MASK, torch.where(share < MASKED_SHARE + RANDOM_SHARE, random, tokens)
        )
        return Batch(torch.where(asked, changed, tokens), torch.where(asked, tokens, NOT_ASKED))


def _mixed(x: Tensor) -> Tensor:
    """splitmix64's mixing function (Steele et al. 2014) on int64, which wraps around; not negative."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(x ^ _shifted(x, 31), 1)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: of a negative number too."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@lru_cache(maxsize=4)
def load_masked(data: str, batch_size: int, seq_len: int) -> MaskedTask:
    """The task on the bytes of `data`; a `ConfigError` if they do not suffice."""
    task = load_language(data, batch_size, seq_len)
    return MaskedTask(task.data, batch_size, seq_len, task.kept)
