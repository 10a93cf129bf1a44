"""Claims and what became of them, as a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.gate.claims import Evidence, Judged
from stresstest.gate.claims_charts import TONES, claims_charts
from stresstest.reports.document import (
    AT_LENGTH,
    Block,
    Column,
    Document,
    Fact,
    Heading,
    Paragraph,
    Table,
    Tone,
    Value,
    Verdict,
)
from stresstest.reports.in_python import InPython
from stresstest.results.records import Result

_LEGEND = (
    "seen: it holds in more than half of all seeds; not seen: in more than half it does not; undecided: these seeds "
    "cannot tell. Exact sign test over paired seeds, with an error of 5 % for any wrong verdict among all claims of a "
    "paper (Holm), over all looks. figure: the median of this run, its 95 % interval, and in how many seeds the claim "
    "holds; published: the paper, at its own size."
)
_COLUMNS = (
    Column("claim", "left", share=42),
    Column("verdict", "left", at_least=max(map(len, TONES))),
    Column("figure", "left", share=30),
    Column("published", "left", share=28),
)


@dataclass(frozen=True)
class Chapter:
    """One scenario: what it is about, its claims, the seconds of training that they took, and what was trained.

    size: of the models and runs, in words. command: what runs it again. first_seed: of those that confirm. device: on
    what it was trained.
    """

    name: str
    paper: str
    judged: Sequence[Judged]
    seconds: float
    size: str = ""
    command: str = ""
    first_seed: int | None = None
    device: str = ""


class Claims(InPython, dict[str, list[Judged]]):
    """What became of claims, by the papers' names."""

    def __init__(self, chapters: Sequence[Chapter]) -> None:
        super().__init__({chapter.name: list(chapter.judged) for chapter in chapters})
        self._chapters = chapters

    def _document(self) -> Document:
        return claims_document(self._chapters)


def claims_document(chapters: Sequence[Chapter], again: str = "") -> Document:
    """A table a scenario, all of one layout, why what was not seen was not, and a verdict a scenario."""
    verdicts = tuple(map(_verdict, chapters))
    if len(chapters) > 1:
        verdicts += (Verdict("", _counted([one for chapter in chapters for one in chapter.judged])),)
    return Document(
        name="stresstest: claims",
        title="Claims",
        blocks=tuple(_blocks(chapters)),
        findings=tuple(_reasons(chapters)),
        footer=(Fact("again", again),) if again else (),
        verdicts=verdicts,
        sure=_sure([one.seeds for chapter in chapters for one in chapter.judged if one.seeds]),
    )


def size_words(results: Mapping[str, Result]) -> str:
    """What was trained: models, depths, widths, batches and steps of all experiments."""
    specs = [result.spec for result in results.values()]
    words = [", ".join(dict.fromkeys(str(spec["model"]) for spec in specs))]
    for word, names in (
        ("depth", ("depths", "depth")),
        ("width", ("widths", "width")),
        ("batch", ("batch_sizes", "batch_size")),
        ("steps", ("train_steps", "num_steps")),
    ):
        found = {value for spec in specs for value in _first_of(spec, names)}
        if found:
            words.append(f"{word} {', '.join(f'{value:,}' for value in sorted(found))}")
    return "; ".join(words)


def _first_of(spec: Mapping[str, Any], names: Sequence[str]) -> Sequence[int]:
    """The values of the first of these settings that is there."""
    for name in names:
        if (value := spec.get(name)) not in (None, (), []):
            return value if isinstance(value, tuple | list) else [value]
    return []


def reason_words(one: Judged) -> str:
    """Why a claim was not seen: its cause, and whether that was tested; nothing where it was seen or none is known."""
    because = one.claim.because
    if one.verdict == "seen" or because is None:
        return ""
    if one.cause is None:
        return f"{because.says} (not tested)"
    return f"{because.says} ({one.cause.verdict}: {one.cause.figure})"


def open_words(one: Evidence) -> str:
    """What would decide what is open."""
    if not one.seeds:
        return "no seed has a value"
    if one.needed is None:
        return f"{one.holding} of {one.seeds} seeds hold: too near to half for any number of seeds in reach"
    return f"{one.holding} of {one.seeds} seeds hold: about {one.needed} would decide, if more fall like these"


def _verdict(chapter: Chapter) -> Verdict:
    """How many of a scenario's claims were seen, and which were not."""
    found = [one.verdict for one in chapter.judged]
    seen, undecided = found.count("seen"), found.count("undecided")
    parts = [f"{seen} of {len(found)} claims seen" + f", {undecided} undecided" * bool(undecided)]
    if missed := [one.claim.says for one in chapter.judged if one.verdict == "not seen"]:
        parts.append(f"not seen: {'; '.join(missed)}")
    tone: Tone = "good" if seen == len(found) else "bad" if len(missed) == len(found) else "mixed"
    return Verdict(chapter.name, "; ".join(parts), tone)


def _counted(judged: Sequence[Judged]) -> str:
    every = [one.verdict for one in judged]
    counts = ", ".join(f"{every.count(word)} {word}" for word in TONES if word in every)
    return f"{len(every)} claims: {counts}"


def _sure(seeds: Sequence[int]) -> str:
    """Over how many seeds, and with which error."""
    if not seeds:
        return ""
    few, many = min(seeds), max(seeds)
    count = f"{few}" if few == many else f"{few} to {many}"
    return f"exact sign test over {count} paired seeds, 5 % for any wrong verdict among a paper's claims"


def _blocks(chapters: Sequence[Chapter]) -> Iterator[Block]:
    for chapter in chapters:
        yield Heading(f"{chapter.paper}: {chapter.name}", f"{chapter.seconds / 60:.1f} min of one core")
        yield Table(_COLUMNS, tuple(row for one in chapter.judged for row in _rows(one)))
        yield from claims_charts(chapter.name, chapter.judged)
        about = ". ".join(filter(None, (chapter.size, f"Again: {chapter.command}" if chapter.command else "")))
        if about:
            yield Paragraph(about, "dim", formats=AT_LENGTH)
    yield Paragraph(_LEGEND, "dim", formats=AT_LENGTH)


def _reasons(chapters: Sequence[Chapter]) -> Iterator[str]:
    """Why what was not seen was not, and what would decide what is open."""
    for one in (one for chapter in chapters for one in chapter.judged):
        if why := reason_words(one):
            yield f"{one.verdict}: {one.claim.says}: {why}"
        for left in one.open:
            what = ", ".join(filter(None, (one.claim.says, left.statement.at)))
            yield f"open: {what}: {open_words(left)}"


def _rows(one: Judged) -> Iterator[tuple[Value, ...]]:
    """A row a claim; along a path one more for each place."""
    published, path = one.claim.published or "-", one.places if len(one.places) > 1 else ()
    figure = Value("" if path else one.places[0].figure)
    yield Value(one.claim.says), Value(one.words, tone=TONES[one.verdict]), figure, Value(published)
    for place in path:
        yield (
            Value(f"  {place.statement.at}"),
            Value(place.verdict, tone=TONES[place.verdict]),
            Value(place.figure),
            Value(""),
        )
