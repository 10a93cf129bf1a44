"""Translation: from tokens of one language to those of another, which share one vocabulary.

Tokens stand between spaces, so that text that was cut into subwords beforehand (BPE's "@@ ") is read as it is.
IWSLT's own files, whose lines have tags, are cut into words here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stresstest.errors import ConfigError
from stresstest.lazy import numpy as np
from stresstest.registry import Registry
from stresstest.tasks.sentences import Pair, first_pairs
from stresstest.tasks.task import TRAINING, VALIDATION, Batch, Source, draw_places

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
PADDING, BEGIN, END, UNKNOWN = range(len(SPECIAL))
NOT_ASKED = -1  # the target behind the end of a sentence
SYNTHETIC_PAIRS = (20_000, 2_000)  # for training, for validation
MOST_TOKENS = 10_000  # of files, as many as Xiong et al. 2020 have in their joint BPE
_EVERY = 23  # which pair of files is kept for validation, as in fairseq's IWSLT'14 script
_MARKS = ("<url>", "<seg ", "<doc ")  # with which lines of IWSLT's own files begin
_TAGGED = re.compile(r"<(?P<tag>\w+)[^>]*>\s*(?P<text>.*?)\s*</(?P=tag)>")
Parts = tuple[list[Pair], list[Pair]]


@cache  # another batch size asks for it again
def _load_synthetic(argument: str) -> Parts:
    if argument:
        raise ConfigError(f"data 'synthetic:{argument}': synthetic has no argument; write synthetic")
    training, validation = (first_pairs(count, seed) for seed, count in enumerate(SYNTHETIC_PAIRS))
    known = {tuple(german) for german, _ in training}
    return training, [pair for pair in validation if tuple(pair[0]) not in known]


def _load_pairs(argument: str) -> Parts:
    source, comma, target = argument.partition(",")
    if not comma:
        raise ConfigError(
            f"data 'pairs:{argument}' names one file; give pairs:SOURCE,TARGET, with one sentence per line"
        )
    read = [_read_side(Path(name.strip()).expanduser()) for name in (source, target)]
    sides = [sentences for sentences, _ in read]
    if len(sides[0]) != len(sides[1]):
        raise ConfigError(
            f"data 'pairs:{argument}': {source} has {len(sides[0])} lines and {target} {len(sides[1])}; "
            "each line of one must translate the same line of the other"
        )
    pairs = list(zip(*sides, strict=True))
    if any(tagged for _, tagged in read):
        pairs = [pair for pair in pairs if all(pair)]  # there are some that nobody translated
    for number, pair in enumerate(pairs, 1):
        for name, tokens in zip((source, target), pair, strict=True):
            if not tokens:
                raise ConfigError(f"data file '{name}' line {number} is empty; leave the pair out of both files")
    return [p for i, p in enumerate(pairs) if i % _EVERY], pairs[::_EVERY]


def _read_side(path: Path) -> tuple[list[list[str]], bool]:
    """The sentences of a file as tokens, and whether its lines had tags."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"data file '{path}' cannot be read ({error.strerror}); give pairs:SOURCE,TARGET") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"data file '{path}' is not UTF-8 text (byte {error.start}); convert it") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    if not any(line.startswith(_MARKS) for line in lines):
        return [line.split() for line in lines], False
    from sacrebleu import BLEU

    words = BLEU(tokenize="13a").tokenizer
    return [words(line).lower().split() for line in _untagged(lines)], True


def _untagged(lines: Sequence[str]) -> Iterator[str]:
    """The sentences of IWSLT's train.tags.* and of its *.xml, in lines of text, <title>, <description> and <seg>."""
    segments = any(line.startswith("<seg ") for line in lines)
    for line in map(str.strip, lines):
        tagged = _TAGGED.fullmatch(line)
        if tagged and tagged["tag"] in (("seg",) if segments else ("title", "description")):
            yield tagged["text"]
        elif not line.startswith("<") and not segments:
            yield line


PAIR_SOURCES: Registry[Source[Parts]] = Registry(
    "pair source",
    [
        Source(
            "synthetic",
            "German to English, 22,000 sentences of a grammar: cases, verb order, number words (the default).",
            "this project",
            _load_synthetic,
        ),
        Source(
            "pairs",
            "Two text files, a sentence per line, tokens between spaces: pairs:train.de,train.en; or IWSLT's own.",
            "",
            _load_pairs,
        ),
    ],
)


@dataclass(frozen=True)
class TranslationTask:
    """Pairs of token numbers, padded to `seq_len`, and the losses they are judged against.

    source [N, S]: a sentence and its end; target [N, T + 1]: a begin, a sentence, its end. S = T = `seq_len`.
    """

    vocabulary: tuple[str, ...]
    sources: tuple[NDArray[np.int32], NDArray[np.int32]]  # for training, for validation
    targets: tuple[NDArray[np.int32], NDArray[np.int32]]
    batch_size: int
    seq_len: int
    left_out: int  # pairs with a sentence too long

    @property
    def num_inputs(self) -> int:
        """Tokens of a source and a target."""
        return 2 * self.seq_len

    @property
    def num_classes(self) -> int:
        """The next token is one of these."""
        return len(self.vocabulary)

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess."""
        return math.log(self.num_classes)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Share of each token among the targets of the training part, [V]."""
        return np.asarray(np.bincount(self._asked, minlength=self.num_classes) / len(self._asked))

    @cached_property
    def log_prior(self) -> NDArray[np.float64]:
        """Log-share of each token among the targets of the training part, [V]; an unseen one gets a half count."""
        counts = np.bincount(self._asked, minlength=self.num_classes)
        return np.asarray(np.log(np.maximum(counts, 0.5) / counts.sum()))

    @cached_property
    def baseline_loss(self) -> float:
        """Unigram entropy of the targets, the ends among them: the best constant predictor's loss."""
        return float(-self.log_prior[self._asked].mean())

    @cached_property
    def description(self) -> dict[str, int | str | float]:
        """What a result stores of the data."""
        digest = hashlib.blake2b("\n".join(self.vocabulary).encode(), digest_size=16)
        for array in (*self.sources, *self.targets):
            digest.update(array.tobytes())
        return {
            "pairs": sum(map(len, self.sources)),
            "left_out": self.left_out,
            "tokens": self.num_classes,
            "bytes": sum(array.nbytes for array in (*self.sources, *self.targets)),
            "hash": digest.hexdigest(),
            "baseline_loss": self.baseline_loss,
            "chance_loss": self.chance_loss,
        }

    def arrays(self, stream: int) -> tuple[NDArray[np.generic], ...]:
        """Source and target of a stream's part."""
        part = int(stream == VALIDATION)
        return self.sources[part], self.targets[part]

    def places(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> NDArray[np.int64]:
        """Which pairs make each replica's batch, [R, B], with replacement."""
        return draw_places(seeds, step, stream, self.batch_size, len(self.arrays(stream)[0]))

    def read(self, arrays: tuple[Tensor, ...], places_RB: Tensor) -> Batch:
        """Source and target side by side, [R, B, S + T], and the target a token on, [R, B, T]; int64."""
        import torch

        source, target = arrays[0][places_RB].long(), arrays[1][places_RB].long()
        asked = target[..., 1:]
        return Batch(torch.cat([source, target[..., :-1]], -1), torch.where(asked == PADDING, NOT_ASKED, asked))

    def words(self, tokens: Sequence[int]) -> str:
        """The text of a target up to its end; subwords are joined."""
        known = [self.vocabulary[token] for token in tokens]
        end = known.index(SPECIAL[END]) if SPECIAL[END] in known else len(known)
        return " ".join(word for word in known[:end] if word != SPECIAL[PADDING]).replace("@@ ", "")

    @cached_property
    def _asked(self) -> NDArray[np.int32]:
        asked = self.targets[0][:, 1:]
        return np.asarray(asked[asked != PADDING])


@lru_cache(maxsize=4)
def load_translation(data: str, batch_size: int, seq_len: int) -> TranslationTask:
    """The task on the pairs of `data` (NAME[:argument]); a `ConfigError` if they do not suffice."""
    if importlib.util.find_spec("sacrebleu") is None:
        from stresstest.installation import install_hint

        raise ConfigError(f"task translation needs sacrebleu, for BLEU; {install_hint('data')}")
    name, _, argument = data.partition(":")
    parts = PAIR_SOURCES[name].load(argument)
    fit = [[pair for pair in part if max(map(len, pair)) < seq_len] for part in parts]
    left_out = sum(map(len, parts)) - sum(map(len, fit))
    if not all(fit):
        raise ConfigError(
            f"data '{data}' has {sum(map(len, fit))} pairs of at most {seq_len - 1} tokens a sentence "
            f"({left_out} are longer), too few for training and validation; use more pairs, or a larger --seq-len"
        )
    counts = Counter(token for pair in fit[0] for side in pair for token in side)
    frequent = sorted(counts, key=lambda token: (-counts[token], token))[: MOST_TOKENS - len(SPECIAL)]
    vocabulary = (*SPECIAL, *frequent)
    number = {token: place for place, token in enumerate(vocabulary)}
    return TranslationTask(
        vocabulary,
        _both([_rows(number, [source for source, _ in part], seq_len, False) for part in fit]),
        _both([_rows(number, [target for _, target in part], seq_len + 1, True) for part in fit]),
        batch_size,
        seq_len,
        left_out,
    )


def _both(parts: list[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    training, validation = parts
    return training, validation


def _rows(number: dict[str, int], sentences: list[list[str]], length: int, begin: bool) -> NDArray[np.int32]:
    rows = np.full((len(sentences), length), PADDING, np.int32)
    for row, sentence in zip(rows, sentences, strict=True):
        tokens = [*([BEGIN] if begin else []), *(number.get(token, UNKNOWN) for token in sentence), END]
        row[: len(tokens)] = tokens
    return rows
