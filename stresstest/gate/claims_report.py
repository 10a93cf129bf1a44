"""Claims and what became of them, as a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stresstest.gate.claims import Judged
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

_LEGEND = (
    "seen: the claim holds over the whole interval of the median (paired seeds); not seen: it holds nowhere in it; "
    "undecided: it holds in part of it, or there are fewer than three seeds. figure: this run; published: the paper, "
    "at its own size."
)
_COLUMNS = (
    Column("claim", "left", share=42),
    Column("verdict", "left", at_least=max(map(len, TONES))),
    Column("figure", "left", share=30),
    Column("published", "left", share=28),
)


@dataclass(frozen=True)
class Chapter:
    """One scenario: what it is about, its claims, and the seconds of training that they took."""

    name: str
    paper: str
    judged: Sequence[Judged]
    seconds: float


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
    """Over how many seeds the median's interval is."""
    if not seeds:
        return ""
    few, many = min(seeds), max(seeds)
    count = f"{few}" if few == many else f"{few} to {many}"
    return f"seen and not seen are said of the whole interval of the median over {count} paired seeds"


def _blocks(chapters: Sequence[Chapter]) -> Iterator[Block]:
    yield from claims_charts([(chapter.name, chapter.judged) for chapter in chapters])
    for chapter in chapters:
        yield Heading(f"{chapter.paper}: {chapter.name}", f"{chapter.seconds / 60:.1f} min of one core")
        yield Table(_COLUMNS, tuple(_row(one) for one in chapter.judged))
    yield Paragraph(_LEGEND, "dim", formats=AT_LENGTH)


def _reasons(chapters: Sequence[Chapter]) -> Iterator[str]:
    """Why what was not seen was not, where that was found."""
    for one in (one for chapter in chapters for one in chapter.judged):
        if one.verdict != "seen" and one.claim.because:
            yield f"{one.verdict}: {one.claim.says}: {one.claim.because}"


def _row(one: Judged) -> tuple[Value, ...]:
    published = one.claim.published or "-"
    return (
        Value(one.claim.says),
        Value(one.verdict, tone=TONES[one.verdict]),
        Value(one.figure),
        Value(published),
    )
