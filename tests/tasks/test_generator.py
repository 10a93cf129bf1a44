"""Tests of the embedded text: exact bytes, statistics, mark-up and grammar."""

from __future__ import annotations

import hashlib
import lzma
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import islice, pairwise
from math import log

import pytest

from stresstest.tasks.generator import generate_text, random_integers

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def text() -> bytes:
    """One mebibyte, the size that the statistics are stated for."""
    return generate_text(MEBIBYTE)


@pytest.fixture(scope="module")
def pages(text: bytes) -> list[str]:
    """The pages that truncation left whole."""
    return text.decode("ascii").split("\n\n")[:-1]


def entropy(symbols: Iterable[Hashable]) -> float:
    """Return the entropy of the empirical distribution in nats."""
    counts = Counter(symbols)
    total = sum(counts.values())
    return -sum(count / total * log(count / total) for count in counts.values())


def splitmix64(seed: int, count: int) -> list[int]:
    """Return the first outputs of the textbook generator, one at a time."""
    outputs = []
    for step in range(1, count + 1):
        word = (seed + step * 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        outputs.append(word ^ word >> 31)
    return outputs


def word_types(seed: int) -> set[str]:
    """Return the distinct lower-case words of a text, less the one that truncation may have cut."""
    return set(re.findall(r"\b[a-z]+\b", generate_text(MEBIBYTE // 2, seed).decode("ascii"))[:-1])


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 999, 65_537])
def test_the_text_has_exactly_the_length_asked_for(num_bytes: int) -> None:
    assert len(generate_text(num_bytes)) == num_bytes


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        generate_text(-1)


@pytest.mark.parametrize("num_bytes", [0, 1, 1000, 65_536, MEBIBYTE - 1])
def test_a_shorter_text_is_a_prefix_of_a_longer_one(text: bytes, num_bytes: int) -> None:
    assert generate_text(num_bytes) == text[:num_bytes]


def test_seeds_give_different_texts() -> None:
    seeds = [*range(20), 2**64 - 1]
    assert len({generate_text(500, seed) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "570b8a5cad1c680972021781b0a84254682160c58d70e18f4540e7219cf85f5c"),
        (1, "19a393d7208fbf0b5536b997f5b58251c9777a0714b194696957d1808516be55"),
    ],
)
def test_the_bytes_are_the_same_on_every_python_and_platform(seed: int, digest: str) -> None:
    assert hashlib.sha256(generate_text(65_536, seed)).hexdigest() == digest


def test_the_random_integers_start_with_the_published_splitmix64_output() -> None:
    quarters = islice(random_integers(1234567), 4)
    assert sum(part << 16 * i for i, part in enumerate(quarters)) == 6457827717110365317


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_the_random_integers_are_splitmix64_words_cut_in_four(seed: int) -> None:
    expected = [word >> shift & 0xFFFF for word in splitmix64(seed, 1000) for shift in (0, 16, 32, 48)]
    assert list(islice(random_integers(seed), 4000)) == expected


def test_the_text_is_printable_ascii_and_newlines(text: bytes) -> None:
    assert set(text) <= {ord("\n"), *range(32, 127)}


def test_the_unigram_entropy_leaves_room_to_learn(text: bytes) -> None:
    assert 3.0 < entropy(text) < 3.4


def test_two_bytes_of_context_tell_much_about_the_next_byte(text: bytes) -> None:
    pairs = entropy(pairwise(text))
    triples = entropy(zip(text, text[1:], text[2:], strict=False))
    assert 1.0 < triples - pairs < 2.0


def test_the_text_compresses_neither_like_noise_nor_like_repetition(text: bytes) -> None:
    assert 1.6 < 8 * len(lzma.compress(text)) / len(text) < 2.6


@pytest.mark.parametrize(("opening", "closing"), [("[[", "]]"), ("<ref>", "</ref>"), ("{{", "}}")])
def test_whole_pages_close_all_their_mark_up(pages: list[str], opening: str, closing: str) -> None:
    assert sum(page.count(opening) for page in pages) > 100
    assert all(page.count(opening) == page.count(closing) for page in pages)


@pytest.mark.parametrize(("opening", "closing"), [("[[", "]]"), ("<ref>", "</ref>"), ("{{", "}}")])
def test_truncation_leaves_at_most_one_mark_open(text: bytes, opening: str, closing: str) -> None:
    cuts = [text[:num_bytes].decode("ascii") for num_bytes in range(5000)]
    assert {cut.count(opening) - cut.count(closing) for cut in cuts} == {0, 1}


@pytest.mark.parametrize(
    "line",
    [
        r"== [A-Z]\w+ \w+ ==",
        r"=== [A-Z][\w ]+ ===",
        r"\| \w+ = .+",
        r"\* \[\[\w+\]\]: .+ \(\d{4}\)",
    ],
)
def test_every_kind_of_line_occurs(pages: list[str], line: str) -> None:
    assert sum(bool(re.search(f"^{line}$", page, re.MULTILINE)) for page in pages) > len(pages) // 4


def test_every_page_starts_with_its_title(pages: list[str]) -> None:
    assert all(page.startswith("== ") for page in pages)


def test_a_page_keeps_to_the_noun_in_its_title(pages: list[str]) -> None:
    nouns = [page.split(" ==", 1)[0].split()[-1] for page in pages]
    own = sum(len(re.findall(rf"\b{noun}s?\b", page)) for noun, page in zip(nouns, pages, strict=True))
    other = sum(len(re.findall(rf"\b{noun}s?\b", page)) for noun, page in zip(nouns, pages[1:], strict=False))
    assert own > 10 * other


@pytest.mark.parametrize(
    ("subject", "right", "wrong"),
    [(r"(?:Ta|Un|Sho) \w+", "et", "unt"), (r"(?:Tei|Mui|Shoi) \w+", "unt", "et")],
)
@pytest.mark.parametrize("between", ["", r", kui? [^,.]+,"])
def test_verbs_agree_with_their_subject_also_across_a_relative_clause(
    text: bytes, subject: str, right: str, wrong: str, between: str
) -> None:
    verbs = re.findall(rf"{subject}{between} (\w+)", text.decode("ascii"))
    assert sum(verb.endswith(right) for verb in verbs) > 200
    assert not any(verb.endswith(wrong) for verb in verbs)


def test_all_seeds_share_one_lexicon() -> None:
    first, second = word_types(0), word_types(1)
    assert len(first) > 1500
    assert len(first & second) > 0.8 * min(len(first), len(second))
