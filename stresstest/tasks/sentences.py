"""Pairs of German and English sentences from one small grammar, made instead of downloaded.

Real words, and what makes the order differ: case and gender in articles and adjectives, the finite verb in second
place of a main clause and at the end of a subordinate one, infinitives, participles and separable prefixes at the end,
"nicht" behind the object, time before place, and number words that name units before tens. A sentence is a list of
tokens, cased as in the middle of a text; the German one is the source. Integers are the only arithmetic, so that pairs
are the same on every machine; they are unlimited, and a longer list begins with a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

from stresstest.tasks.generator import random_integers

Pair = tuple[list[str], list[str]]
Item = TypeVar("Item")


class _Noun(NamedTuple):
    """`gender` is m, f or n; the German plural has a dative of its own."""

    german: str
    gender: str
    plural: str
    english: str
    many: str


class _Verb(NamedTuple):
    """Third persons and the participle; a separable `prefix` goes to the end of a main clause."""

    single: str
    plural: str
    participle: str
    infinitive: str
    english: str
    base: str
    done: str
    prefix: str = ""


def _nouns(table: str) -> list[_Noun]:
    return [_Noun(*line.split()) for line in table.strip().splitlines()]


def _verbs(table: str) -> list[_Verb]:
    return [_Verb(*line.split()) for line in table.strip().splitlines()]


_LIVING = _nouns("""
Hund m Hunde dog dogs
Freund m Freunde friend friends
Lehrer m Lehrer teacher teachers
Arzt m Ärzte doctor doctors
Vogel m Vögel bird birds
König m Könige king kings
Sohn m Söhne son sons
Katze f Katzen cat cats
Frau f Frauen woman women
Tochter f Töchter daughter daughters
Königin f Königinnen queen queens
Kuh f Kühe cow cows
Nachbarin f Nachbarinnen neighbour neighbours
Kind n Kinder child children
Pferd n Pferde horse horses
Mädchen n Mädchen girl girls
Schaf n Schafe sheep sheep
""")
_THINGS = _nouns("""
Brief m Briefe letter letters
Apfel m Äpfel apple apples
Tisch m Tische table tables
Stuhl m Stühle chair chairs
Schlüssel m Schlüssel key keys
Baum m Bäume tree trees
Blume f Blumen flower flowers
Zeitung f Zeitungen newspaper newspapers
Lampe f Lampen lamp lamps
Tür f Türen door doors
Uhr f Uhren clock clocks
Buch n Bücher book books
Bild n Bilder picture pictures
Fenster n Fenster window windows
Fahrrad n Fahrräder bicycle bicycles
Brot n Brote loaf loaves
""")
_PLACES = _nouns("""
Garten m Gärten garden gardens
Wald m Wälder forest forests
Park m Parks park parks
Stadt f Städte city cities
Schule f Schulen school schools
Küche f Küchen kitchen kitchens
Haus n Häuser house houses
Dorf n Dörfer village villages
Zimmer n Zimmer room rooms
""")
_ADJECTIVES = [
    tuple(pair.split())
    for pair in (
        "alt old,jung young,klein small,groß big,neu new,rot red,grün green,schön beautiful,müd tired,"
        "krank sick,reich rich,arm poor,schnell fast,ruhig calm,klug clever,freundlich friendly"
    ).split(",")
]
_NAMES = "Anna Peter Maria Thomas Eva Paul Clara Felix".split()
_TRANSITIVE = _verbs("""
sieht sehen gesehen sehen sees see seen
findet finden gefunden finden finds find found
kauft kaufen gekauft kaufen buys buy bought
sucht suchen gesucht suchen seeks seek sought
malt malen gemalt malen paints paint painted
bringt bringen gebracht bringen brings bring brought
kennt kennen gekannt kennen knows know known
holt holen geholt holen fetches fetch fetched
hört hören gehört hören hears hear heard
schaut schauen angeschaut anschauen watches watch watched an
nimmt nehmen mitgenommen mitnehmen takes take taken mit
macht machen aufgemacht aufmachen opens open opened auf
""")
_GIVING = _verbs("""
gibt geben gegeben geben gives give given
zeigt zeigen gezeigt zeigen shows show shown
schenkt schenken geschenkt schenken presents present presented
schickt schicken geschickt schicken sends send sent
""")
_MODALS = [words.split() for words in ("kann können can", "muss müssen must", "soll sollen should", "darf dürfen may")]
_TIMES = ["heute today", "jetzt now", "oft often", "morgen tomorrow", "immer always", "manchmal sometimes"]
_CONJUNCTIONS = [("weil", "because"), ("wenn", "if"), ("obwohl", "although"), ("während", "while")]
_SAYING = [("glaubt", "believes"), ("sagt", "says"), ("weiß", "knows"), ("hofft", "hopes")]
_PREPOSITIONS = [("in", "in"), ("vor", "before"), ("hinter", "behind"), ("neben", "beside")]

_ONES = "ein zwei drei vier fünf sechs sieben acht neun".split()
_ENGLISH_ONES = "one two three four five six seven eight nine".split()
_TEENS = "zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn".split()
_ENGLISH_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
_ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

# By case and gender (p: plural); of adjectives, after a definite article and after none or "ein".
_DEFINITE = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
_INDEFINITE = {"nom": "ein eine ein", "acc": "einen eine ein", "dat": "einem einer einem"}
_AFTER_DEFINITE = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
_AFTER_OTHER = {"nom": "er e es e", "acc": "en e es e", "dat": "en en en en"}


class _Phrase(NamedTuple):
    """A noun phrase: in German by case, in English, and whether it is plural."""

    german: dict[str, list[str]]
    english: list[str]
    plural: bool


def generate_pairs(seed: int = 0) -> Iterator[Pair]:
    """Yield pairs of (German, English) tokens for ever."""
    grammar = _Grammar(random_integers(seed).__next__)
    while True:
        yield grammar.sentence()


def first_pairs(count: int, seed: int = 0) -> list[Pair]:
    """The first so many pairs of a seed."""
    return list(islice(generate_pairs(seed), count))


def number_words(number: int) -> Pair:
    """The words for 2 to 999; in German the units come before the tens, and what is written as one is split."""
    german, english = [], []
    hundreds, rest = divmod(number, 100)
    if hundreds:
        german.append(f"{_ONES[hundreds - 1]}hundert")
        english += [_ENGLISH_ONES[hundreds - 1], "hundred"]
    tens, ones = divmod(rest, 10)
    if rest and tens == 0:
        german.append("eins" if ones == 1 else _ONES[ones - 1])
        english.append(_ENGLISH_ONES[ones - 1])
    elif tens == 1:
        german.append(_TEENS[ones])
        english.append(_ENGLISH_TEENS[ones])
    elif tens:
        german += [_ONES[ones - 1], "und"] if ones else []
        german.append(_TENS[tens - 2])
        english.append(_ENGLISH_TENS[tens - 2])
        english += [_ENGLISH_ONES[ones - 1]] if ones else []
    return german, english


@dataclass
class _Clause:
    """A clause whose order is still open. German: `subject`, `middle`, then the verbs; English: subject to place."""

    subject: _Phrase
    middle: list[str]
    finite: str
    last: list[str]  # what stands at the end of a main clause, before which a subordinate one has no finite verb
    prefix: str
    english: list[str]

    def main(self, first: str = "") -> list[str]:
        """Verb second: after `first`, where there is one, the subject follows the verb."""
        subject = self.subject.german["nom"]
        front = [first, self.finite, *subject] if first else [*subject, self.finite]
        return [*front, *self.middle, *self.last, *([self.prefix] if self.prefix else [])]

    def subordinate(self) -> list[str]:
        """Verb final; a separable verb is whole again."""
        return [*self.subject.german["nom"], *self.middle, *self.last, self.prefix + self.finite]


class _Grammar:
    def __init__(self, draw: Callable[[], int]) -> None:
        self._draw = draw

    def sentence(self) -> Pair:
        """A whole sentence, ending in a full stop."""
        kind = self._draw() % 100
        clause = self._clause()
        if kind < 35:
            german, english = clause.main(), clause.english
        elif kind < 60:
            time, when = self._pick(_TIMES).split()
            german, english = clause.main(time), [when, *clause.english]
        elif kind < 80:
            other, (conjunction, word) = self._clause(), self._pick(_CONJUNCTIONS)
            german = [*clause.main(), ",", conjunction, *other.subordinate()]
            english = [*clause.english, word, *other.english]
        else:
            name, (says, word) = self._pick(_NAMES), self._pick(_SAYING)
            german, english = [name, says, ",", "dass", *clause.subordinate()], [name, word, "that", *clause.english]
        return [*german, "."], [*english, "."]

    def _clause(self) -> _Clause:
        subject = self._phrase(_LIVING, names=True)
        giving = self._chance(20)
        verb = self._pick(_GIVING if giving else _TRANSITIVE)
        thing = self._phrase(_THINGS if giving or self._chance(50) else _LIVING)
        german, english = list(thing.german["acc"]), list(thing.english)
        if giving:
            person = self._phrase(_LIVING, names=True)
            german, english = person.german["dat"] + german, [*english, "to", *person.english]
        no = self._chance(15)
        if no:
            german.append("nicht")
        if self._chance(25):
            place, (preposition, word) = self._phrase(_PLACES), self._pick(_PREPOSITIONS)
            german += [preposition, *place.german["dat"]]
            english += [word, *place.english]
        return self._with_verb(subject, verb, german, english, no)

    def _with_verb(self, subject: _Phrase, verb: _Verb, german: list[str], english: list[str], no: bool) -> _Clause:
        form, who = self._draw() % 100, subject.english
        if form < 50:
            finite = verb.plural if subject.plural else verb.single
            auxiliary = ["do" if subject.plural else "does", "not"] if no else []
            said = verb.base if no or subject.plural else verb.english
            return _Clause(subject, german, finite, [], verb.prefix, [*who, *auxiliary, said, *english])
        if form < 75:
            has = "have" if subject.plural else "has"
            said_done = [has, *(["not"] if no else []), verb.done]
            finite = "haben" if subject.plural else "hat"
            return _Clause(subject, german, finite, [verb.participle], "", [*who, *said_done, *english])
        single, plural, modal = self._pick(_MODALS)
        said_modal = [modal, *(["not"] if no else []), verb.base]
        finite = plural if subject.plural else single
        return _Clause(subject, german, finite, [verb.infinitive], "", [*who, *said_modal, *english])

    def _phrase(self, nouns: list[_Noun], names: bool = False) -> _Phrase:
        if names and self._chance(25):
            name = self._pick(_NAMES)
            return _Phrase({case: [name] for case in _DEFINITE}, [name], False)
        noun = self._pick(nouns)
        adjective = self._pick(_ADJECTIVES) if self._chance(40) else None
        kind = self._draw() % 100
        if kind < 45:
            german = {case: self._german(noun, case, _DEFINITE, _AFTER_DEFINITE, adjective) for case in _DEFINITE}
            return _Phrase(german, ["the", *self._english(adjective), noun.english], False)
        if kind < 65:
            german = {case: self._german(noun, case, _INDEFINITE, _AFTER_OTHER, adjective) for case in _DEFINITE}
            words = [*self._english(adjective), noun.english]
            return _Phrase(german, ["an" if words[0][0] in "aeio" else "a", *words], False)
        many = noun._replace(german=noun.plural, gender="p")
        if kind < 80:
            german = {case: self._german(many, case, _DEFINITE, _AFTER_DEFINITE, adjective) for case in _DEFINITE}
            return _Phrase(german, ["the", *self._english(adjective), noun.many], True)
        number = 2 + self._draw() % (8 if self._chance(60) else 998)
        count, counted = number_words(number + (number % 100 == 1))  # before a noun German would bend the one
        german = {case: [*count, *self._german(many, case, {}, _AFTER_OTHER, adjective)] for case in _DEFINITE}
        return _Phrase(german, [*counted, *self._english(adjective), noun.many], True)

    @staticmethod
    def _german(
        noun: _Noun,
        case: str,
        articles: dict[str, str],
        endings: dict[str, str],
        adjective: tuple[str, ...] | None,
    ) -> list[str]:
        place = "mfnp".index(noun.gender)
        article = [articles[case].split()[place]] if articles else []
        described = [adjective[0] + endings[case].split()[place]] if adjective else []
        dative = noun.gender == "p" and case == "dat" and noun.german[-1] not in "ns"
        return [*article, *described, noun.german + "n" * dative]

    @staticmethod
    def _english(adjective: tuple[str, ...] | None) -> list[str]:
        return [adjective[1]] if adjective else []

    def _pick(self, items: list[Item]) -> Item:
        return items[self._draw() * len(items) >> 16]

    def _chance(self, percent: int) -> bool:
        return self._draw() % 100 < percent
