"""The history of a gate as a document: each metric over commits, and a table of what was found at each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stresstest.gate.history import FAILED, Entry, History, Place
from stresstest.gate.pictures import row_names
from stresstest.gate.records import PASSES, GatedRow
from stresstest.reports.document import (
    PAGE,
    TERMINAL,
    Axis,
    Block,
    Chart,
    Column,
    Document,
    Heading,
    Series,
    Table,
    Tone,
    Value,
)
from stresstest.reports.numbers import interval, middle
from stresstest.results.metrics import METRICS
from stresstest.results.records import MetricSummary

_NAMES = 8  # commits that are named along an axis
_SHORT = 7  # digits of a commit
_GOOD = (*PASSES, "passed", "baseline")


def history_document(history: History) -> Document:
    """Every metric's values, the oldest commit first."""
    count = len(history.entries)
    return Document(
        name=f"stresstest {history.scenario}: history",
        title=f"{history.scenario}: {count} check{'s' * (count > 1)} over commits",
        subtitle=f"left out: {', '.join(history.left_out)}" if history.left_out else "",
        blocks=tuple(_blocks(history)),
    )


def _blocks(history: History) -> Iterator[Block]:
    for metric in dict.fromkeys(metric for entry in history.entries for _, metric in entry.values):
        places = list(dict.fromkeys(at for entry in history.entries for at in entry.values if at[1] == metric))
        yield Heading(metric, formats=(*TERMINAL, "md"))
        names = row_names({at: GatedRow.model_validate_json(at[0]) for at in places})
        yield _chart(metric, names, history.entries)
        yield _table(names, history.entries)


def _chart(metric: str, names: Mapping[Place, str], entries: Sequence[Entry]) -> Chart:
    lines = [_line(place, name, entries) for place, name in names.items()]
    failed = [
        (float(x), value, f"{entry.commit}: {names[place]} {entry.verdicts[place]}")
        for place in names
        for x, entry in enumerate(entries)
        if entry.verdicts.get(place) in FAILED and (value := _middle(entry.values.get(place))) is not None
    ]
    bad: Tone = "bad"
    marks = Series(
        "failed",
        tuple((x, y) for x, y, _ in failed),
        kind="dots",
        tones=(bad,) * len(failed),
        notes=tuple(note for *_, note in failed),
    )
    every = -(-len(entries) // _NAMES)
    return Chart(
        f"{metric} over commits",
        Axis("commit", names=tuple(entry.commit[:_SHORT] * (i % every == 0) for i, entry in enumerate(entries))),
        Axis(metric, log=METRICS[metric].scale == "log2"),
        (*lines[:1], *[marks] * bool(failed), *lines[1:]),  # second, as its colour is that of what is bad
        dots=True,
        caption="The median over seeds, in the band of its interval, of each check; a cross failed.",
        name=f"{metric.replace('_', '-')}-history",
        formats=PAGE,
    )


def _line(place: Place, name: str, entries: Sequence[Entry]) -> Series:
    found = [
        (float(x), value, entry, entry.values[place])
        for x, entry in enumerate(entries)
        if (value := _middle(entry.values.get(place))) is not None
    ]
    return Series(
        name,
        tuple((x, value) for x, value, *_ in found),
        spans=tuple((_or(each.low, value), _or(each.high, value)) for _, value, _, each in found),
        notes=tuple(f"{entry.commit} {entry.verdicts.get(place, entry.verdict)}" for *_, entry, _ in found),
    )


def _table(names: Mapping[Place, str], entries: Sequence[Entry]) -> Table:
    """The newest first: what one looks for."""
    columns = (
        Column("commit", "left"),
        Column("verdict", "left"),
        *(Column(name) for name in names.values()),
        Column("when", "left", wide=True),
        Column("subject", "left", wide=True),
    )
    rows = [
        (
            Value(entry.commit or "-"),
            Value(entry.verdict, tone=_tone(entry.verdict)),
            *(_value(entry, place) for place in names),
            Value(entry.when),
            Value(entry.subject),
        )
        for entry in reversed(entries)
    ]
    return Table(columns, tuple(rows), stacked=True)


def _value(entry: Entry, place: Place) -> Value:
    metric = entry.values.get(place)
    word = entry.verdicts.get(place, "")
    if metric is None:
        return Value("-", note=word, tone=_tone(word))
    return Value(middle(metric), interval(metric) if metric.n > 1 else "", tone=_tone(word) if word in FAILED else "")


def _tone(word: str) -> Tone:
    return "" if not word else "bad" if word in FAILED else "good" if word in _GOOD else "mixed"


def _middle(metric: MetricSummary | None) -> float | None:
    if metric is None:
        return None
    return metric.median.low if metric.median.low is not None else metric.median.high


def _or(end: float | None, value: float) -> float:
    return value if end is None else end
