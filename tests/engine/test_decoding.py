"""Beam search, held against the best of all sentences and against a search written with lists."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine import translation_scores
from stresstest.engine.decoding import Decoding, translate
from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.specs.profiles import make_spec
from stresstest.tasks.translation import BEGIN, END, PADDING

REPLICAS, SENTENCES, LENGTH, VOCABULARY = 2, 5, 4, 5
SOURCE = torch.arange(SENTENCES * LENGTH).view(1, SENTENCES, LENGTH).expand(REPLICAS, -1, -1)
DECODINGS = [Decoding(4), Decoding(4, 0.0), Decoding(4, 1.2), Decoding(4, 0.6, "gnmt"), Decoding(2, 3.0)]


class Speaker:
    """A population whose next token depends on its replica, the source and every token before."""

    def __init__(self, scale: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(0)
        sizes = (LENGTH + 1, REPLICAS, SENTENCES, 6), (VOCABULARY, 6), (6, VOCABULARY)
        self.first, self.tokens, self.out = (torch.randn(size, generator=generator) for size in sizes)
        self.scale = scale
        self.known: dict[tuple[int, int, tuple[int, ...]], NDArray[np.float64]] = {}

    def logits(self, inputs: Tensor) -> Tensor:
        sentence, target = inputs[..., 0] // LENGTH, inputs[..., LENGTH:]
        state = self.first[0][torch.arange(REPLICAS)[:, None], sentence]
        found = []
        for step in range(LENGTH):
            state = torch.tanh(self.scale * (state + self.tokens[target[..., step]]) + self.first[step + 1, 0, 0])
            found.append(state @ self.out)
        return torch.stack(found, 2).flatten(1, 2)

    def log_probabilities(self, replica: int, sentence: int, said: tuple[int, ...]) -> NDArray[np.float64]:
        """Of the token after these, [V]."""
        if (replica, sentence, said) in self.known:
            return self.known[replica, sentence, said]
        target = torch.full((REPLICAS, SENTENCES, LENGTH), PADDING)
        target[replica, sentence, : len(said) + 1] = torch.tensor([BEGIN, *said])
        logits = self.logits(torch.cat([SOURCE, target], -1)).view(REPLICAS, SENTENCES, LENGTH, VOCABULARY)
        found = np.asarray(logits[replica, sentence, len(said)].double().log_softmax(-1))
        self.known[replica, sentence, said] = found
        return found


def is_over(said: tuple[int, ...]) -> bool:
    return len(said) == LENGTH or said[-1:] == (END,)


def score(speaker: Speaker, replica: int, sentence: int, said: tuple[int, ...], decoding: Decoding) -> float:
    """The log-probability of a whole sentence by the formulas of the papers."""
    total = sum(speaker.log_probabilities(replica, sentence, said[:n])[said[n]] for n in range(len(said)))
    length = (5 + len(said)) / 6 if decoding.length == "gnmt" else len(said)
    return float(total / length**decoding.penalty)


def every_sentence(said: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    if is_over(said):
        yield said
        return
    for token in range(VOCABULARY):
        yield from every_sentence((*said, token))


def by_lists(speaker: Speaker, replica: int, sentence: int, decoding: Decoding) -> tuple[int, ...]:
    """A beam search as fairseq describes it, of one sentence."""
    going: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    while len(finished) < decoding.beam and going:
        found = [
            (total + log_p, (*said, token))
            for total, said in going
            for token, log_p in enumerate(speaker.log_probabilities(replica, sentence, said))
        ]
        found.sort(reverse=True)
        ended = [said for _, said in found[: decoding.beam] if is_over(said)]
        finished += [(score(speaker, replica, sentence, said, decoding), said) for said in ended]
        going = [(total, said) for total, said in found if not is_over(said)][: decoding.beam]
    return max(finished)[1]


def said(speaker: Any, decoding: Decoding) -> list[list[tuple[int, ...]]]:
    """What each replica says, without what stands behind the end."""
    rows = translate(speaker, SOURCE, decoding).tolist()
    ends = [[row.index(END) + 1 if END in row else LENGTH for row in replica] for replica in rows]
    assert all(
        set(row[end:]) <= {PADDING} for rs, es in zip(rows, ends, strict=True) for row, end in zip(rs, es, strict=True)
    )
    return [[tuple(row[:end]) for row, end in zip(*one, strict=True)] for one in zip(rows, ends, strict=True)]


@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_a_wide_beam_finds_the_best_of_all_sentences(decoding: Decoding) -> None:
    speaker, everything = Speaker(), list(every_sentence())
    wide = Decoding(VOCABULARY ** (LENGTH - 1), decoding.penalty, decoding.length)
    found = said(speaker, wide)
    for replica, sentence in ((0, 0), (0, 3), (1, 3)):
        best = max(everything, key=lambda one, r=replica, s=sentence: score(speaker, r, s, one, wide))
        assert found[replica][sentence] == best


@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_a_narrow_beam_finds_what_a_search_with_lists_finds(decoding: Decoding) -> None:
    speaker = Speaker()
    expected = [[by_lists(speaker, r, s, decoding) for s in range(SENTENCES)] for r in range(REPLICAS)]
    assert said(speaker, decoding) == expected


def test_a_beam_of_one_is_greedy_and_a_wider_one_is_not() -> None:
    speaker = Speaker()
    greedy = said(speaker, Decoding())
    for r in range(REPLICAS):
        for s in range(SENTENCES):
            sentence: tuple[int, ...] = ()
            while not is_over(sentence):
                sentence = (*sentence, int(speaker.log_probabilities(r, s, sentence).argmax()))
            assert greedy[r][s] == sentence
            assert by_lists(speaker, r, s, Decoding(1)) == sentence
    assert said(speaker, Decoding(4)) != greedy


def test_a_replica_that_is_not_finite_says_something_and_the_others_what_they_would() -> None:
    speaker = Speaker()
    expected = said(speaker, Decoding(3))
    speaker.first[0][1] = math.nan
    assert said(speaker, Decoding(3))[0] == expected[0]


def test_the_settings_of_a_beam_search_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    beam = {"beam": 3, "length_penalty": 1.2, "penalized_length": "gnmt"}
    shape = {"model": "encoder-decoder", "depth": 1, "width": 8, "heads": 2, "batch_size": 2}
    bench = make_bench(make_spec(LrRangeSpec, "quick", shape | beam), "pre-ln", 1, "adam", "cpu")
    asked: list[Decoding] = []

    def heard(population: Any, source_RBS: Tensor, decoding: Decoding) -> Tensor:
        asked.append(decoding)
        return source_RBS

    monkeypatch.setattr(translation_scores, "translate", heard)
    bench.scores(bench.populate([0, 1], [0.1, 0.1]), [0, 1], np.zeros(2))
    assert set(asked) == {Decoding(3, 1.2, "gnmt")}


@pytest.mark.parametrize("given", [{"beam": 5}, {"length_penalty": 0.6}, {"penalized_length": "gnmt"}])
def test_a_beam_search_of_what_is_not_translated_is_one_line(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(given))} is of translations, and the task is language; leave"):
        make_spec(LrRangeSpec, "quick", given)
