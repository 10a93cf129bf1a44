"""An endless encyclopedia in an invented language: text to learn from, made instead of downloaded.

The same arguments give the same bytes on every platform, because integers are the only arithmetic.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

Draw = Callable[[], int]
Item = TypeVar("Item")


def generate_text(num_bytes: int, seed: int = 0) -> bytes:
    """Return the first `num_bytes` bytes of the endless text that belongs to `seed`.

    A shorter text is a prefix of a longer one. All seeds share one lexicon and one grammar.
    """
    if num_bytes < 0:
        raise ValueError(f"num_bytes must not be negative, got {num_bytes}")
    draw = random_integers(seed).__next__
    pages: list[str] = []
    length = 0
    while length < num_bytes:
        pages.append(_Page(draw, _lexicon()).text())
        length += len(pages[-1])
    return "".join(pages).encode("ascii")[:num_bytes]


def random_integers(seed: int) -> Iterator[int]:
    """Yield uniform 16-bit integers for ever: the SplitMix64 stream, low quarter of a word first.

    Seeds count modulo 2**64. Many counters lie side by side in one big integer, 128 bits apart so
    that no product reaches its neighbour, because one wide operation costs far less than many.
    """
    counters = (seed % 2**64) * _ONES + _STEPS
    while True:
        word = counters & _LOW_HALVES
        word = ((word ^ word >> 30) & _LOW_HALVES) * 0xBF58476D1CE4E5B9 & _LOW_HALVES
        word = ((word ^ word >> 27) & _LOW_HALVES) * 0x94D049BB133111EB & _LOW_HALVES
        word = (word ^ word >> 31) & _LOW_HALVES
        yield from _QUARTERS.unpack(word.to_bytes(16 * _LANES, "little"))
        counters = (counters & _LOW_HALVES) + _LANES * _GAMMA % 2**64 * _ONES


_LANES = 256
_GAMMA = 0x9E3779B97F4A7C15
_ONES = sum(1 << 128 * lane for lane in range(_LANES))
_STEPS = sum((lane + 1) * _GAMMA % 2**64 << 128 * lane for lane in range(_LANES))
_LOW_HALVES = (2**64 - 1) * _ONES
_QUARTERS = struct.Struct("<" + "4H8x" * _LANES)

_LEXICON_SEED = 0x5EED0F1E81C0
_SLOTS = 8192
_ONSETS = "t n k s r l m v d p b h br st tr kl g f gr pl sh".split()
_NUCLEI = "a e i o u ai ou".split()
_CODAS = ["", "", "", *"n r l s m t nd rk sk".split()]

_ARTICLES = (("ta", "ta", "un", "sho"), ("tei", "tei", "mui", "shoi"))  # singular, plural
_RELATIVES = ("ku", "kui")
_PREPOSITIONS = "ob vei dur nas pel ento sil agu".split()
_JOINERS = "mas dok perul anke".split()
_KEYS = "nomel datu plas gruna vidor kasel somu tirel".split()
_MONTHS = "Unel Doral Treval Kovel Pental Sestel Haptel Okel Noval Dekal Ondel Duval".split()
_SECTIONS = "Oriel,Vita e labor,Gruna,Mundel,Statu e kasel,Legasel,Notei,Redal".split(",")
_FAVOURITE_SLOTS = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7)


class _Word(NamedTuple):
    """A noun or verb: its singular and plural, and the adjectives or prepositions it goes with."""

    forms: tuple[str, str]
    company: tuple[str, ...]


class _Lexicon(NamedTuple):
    """The open word classes; a table repeats each word as often as Zipf's law wants it drawn."""

    distinct_nouns: Sequence[_Word]
    nouns: Sequence[_Word]
    verbs: Sequence[_Word]
    adverbs: Sequence[str]
    names: Sequence[str]


@cache
def _lexicon() -> _Lexicon:
    """Coin the words, always from the same seed, so that every text is in the same language."""
    draw = random_integers(_LEXICON_SEED).__next__
    taken = {*_PREPOSITIONS, *_JOINERS, *_RELATIVES, *_ARTICLES[0], *_ARTICLES[1]}
    adjectives = _zipf_table([stem + "ik" for stem in _coin(draw, 360, taken)])
    governed = ["", "", *(f" {word}" for word in _PREPOSITIONS)]
    nouns = [_Word((s, s + "s"), _three(draw, adjectives)) for s in _coin(draw, 840, taken)]
    verbs = [_Word((s + "et", s + "unt"), _three(draw, governed)) for s in _coin(draw, 380, taken)]
    adverbs = [stem + "we" for stem in _coin(draw, 120, taken)]
    names = [stem.capitalize() for stem in _coin(draw, 280, taken)]
    tables = (_zipf_table(nouns), _zipf_table(verbs), _zipf_table(adverbs), _zipf_table(names))
    return _Lexicon(nouns, *tables)


def _three(draw: Draw, words: Sequence[str]) -> tuple[str, ...]:
    """Return three of the words, for another word to keep company with."""
    return tuple([_pick(draw, words) for _ in range(3)])


def _coin(draw: Draw, count: int, taken: set[str]) -> list[str]:
    """Return `count` new pronounceable stems, the frequent ones shorter, and mark them taken."""
    stems: list[str] = []
    while len(stems) < count:
        syllables = 1 + (len(stems) > 30) + (draw() % 6 == 0)
        opening = [_pick(draw, _ONSETS) + _pick(draw, _NUCLEI) for _ in range(syllables)]
        stem = "".join(opening) + _pick(draw, _CODAS)
        if stem not in taken:
            taken.add(stem)
            stems.append(stem)
    return stems


def _zipf_table(words: Sequence[Item]) -> list[Item]:
    """Return `_SLOTS` slots, shared out in proportion to 1 / (rank + 2)."""
    bounds = list(accumulate(1_000_000 // (rank + 2) for rank in range(len(words))))
    return [words[bisect_right(bounds, slot * bounds[-1] // _SLOTS)] for slot in range(_SLOTS)]


def _pick(draw: Draw, items: Sequence[Item]) -> Item:
    """Return one of the items, each as likely as another."""
    return items[draw() * len(items) >> 16]


class _Page:
    """One page: a topic, and text that keeps returning to its title, nouns, people and years."""

    def __init__(self, draw: Draw, lexicon: _Lexicon) -> None:
        self.draw = draw
        self.lexicon = lexicon
        topics = [_pick(draw, lexicon.distinct_nouns) for _ in range(8)]
        names = [_pick(draw, lexicon.names) for _ in range(7)]
        self.favourites = [topics[slot] for slot in _FAVOURITE_SLOTS]
        self.people = [f"{names[i]} {names[i + 1]}" for i in (1, 3, 5)]
        self.title = f"{names[0]} {topics[0].forms[0]}"
        first_year = 1100 + draw() % 860
        self.years = range(first_year, first_year + 16)

    def text(self) -> str:
        """Return the whole page, ending in a blank line."""
        box = self.infobox() if self.chance(60) else ""
        opening = f"{self.title} {self.predicate(0, 0)}. {self.paragraph()}"
        sections = [self.section() for _ in range(2 + self.draw() % 4)]
        return f"== {self.title} ==\n{box}{opening}{''.join(sections)}\n"

    def infobox(self) -> str:
        """Return lines of `| key = value` between double braces."""
        amounts = [f"{self.draw() % 90 + 10},{self.draw() % 10}00" for _ in range(2)]
        values = (*amounts, self.date(), self.date(), self.link(), self.link(), *self.people)
        lines = [f"| {key} = {_pick(self.draw, values)}\n" for key in _KEYS if self.chance(60)]
        return f"{{{{boks\n| titel = {self.title}\n{''.join(lines)}}}}}\n"

    def section(self) -> str:
        """Return a heading with paragraphs or, now and then, a bullet list below it."""
        heading = f"=== {_pick(self.draw, _SECTIONS)} ===\n"
        if self.chance(75):
            return heading + "".join([self.paragraph() for _ in range(1 + self.draw() % 3)])
        items = [f"* {self.link()}: {self.nouns(0, 0)} ({year})\n" for year in self.years[::4]]
        return heading + "".join(items)

    def paragraph(self) -> str:
        """Return a line of sentences."""
        return " ".join([self.sentence() for _ in range(2 + self.draw() % 5)]) + "\n"

    def sentence(self) -> str:
        """Return a capitalised sentence, at times two clauses, a date in front or a reference."""
        text = self.clause(2)
        if self.chance(20):
            text = f"{text}, {_pick(self.draw, _JOINERS)} {self.clause(1)}"
        if self.chance(12):
            text = f"ob {self.date()}, {text}"
        return f"{text[0].upper()}{text[1:]}.{self.reference() if self.chance(12) else ''}"

    def reference(self) -> str:
        """Return a footnote: an author, a linked noun, a year and a page number."""
        author, year = _pick(self.draw, self.people), _pick(self.draw, self.years)
        return f"<ref>{author}, {self.link()}, {year}, p. {self.draw() % 300 + 1}</ref>"

    def clause(self, depth: int) -> str:
        """Return a subject and a predicate that agree in number; two joined subjects are plural."""
        if self.chance(15):
            person = _pick(self.draw, self.people) if self.chance(60) else self.title
            return f"{person} {self.predicate(0, depth)}"
        plural = self.draw() & 1
        subject = self.nouns(plural, depth)
        if self.chance(12):
            plural, subject = 1, f"{subject} e {self.nouns(self.draw() & 1, 0)}"
        return f"{subject} {self.predicate(plural, depth)}"

    def predicate(self, plural: int, depth: int) -> str:
        """Return a verb and its object, at times with an adverb or a further phrase."""
        verb = _pick(self.draw, self.lexicon.verbs)
        adverb = f"{_pick(self.draw, self.lexicon.adverbs)} " if self.chance(20) else ""
        words = f"{adverb}{verb.forms[plural]}{_pick(self.draw, verb.company)} "
        if self.chance(25):
            words += f"{self.nouns(0, depth)} {_pick(self.draw, _PREPOSITIONS)} "
        return words + self.nouns(self.draw() & 1, depth).rstrip(",")

    def nouns(self, plural: int, depth: int) -> str:
        """Return a noun phrase, with a relative clause between commas only where depth is left."""
        noun = self.noun()
        word = noun.forms[plural]
        if self.chance(8):
            word = f"[[{word}]]"
        if self.chance(40):
            word = f"{_pick(self.draw, noun.company)} {word}"
        phrase = f"{_pick(self.draw, _ARTICLES[plural])} {word}"
        if depth and self.chance(18):
            return f"{phrase}, {_RELATIVES[plural]} {self.predicate(plural, depth - 1)},"
        return phrase

    def noun(self) -> _Word:
        """Return one of the page's favourite nouns or, more often, any noun."""
        return _pick(self.draw, self.favourites if self.chance(40) else self.lexicon.nouns)

    def link(self) -> str:
        """Return a link to another page."""
        return f"[[{self.noun().forms[0]}]]"

    def date(self) -> str:
        """Return a day, a month and a year."""
        return f"{self.draw() % 28 + 1} {_pick(self.draw, _MONTHS)} {_pick(self.draw, self.years)}"

    def chance(self, percent: int) -> bool:
        """Return true in `percent` of a hundred cases."""
        return self.draw() % 100 < percent
