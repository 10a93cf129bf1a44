"""A diagnosis as a report: of one run, or of many."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath

from stresstest.diagnosis.charts import page_charts, points_of, series_name, step_axis, wants_log
from stresstest.diagnosis.records import Diagnosis, SegmentDiagnosis, Severity, Spike, UnreadLog
from stresstest.diagnosis.words import (
    broke_in,
    loss,
    read_words,
    run_name,
    run_words,
    spike_line,
    step,
    tone_of,
    worst_segment,
)
from stresstest.reports.document import (
    BRIEF,
    TERMINAL,
    WRITTEN,
    Axis,
    Block,
    Chart,
    Column,
    Document,
    Fact,
    Heading,
    Item,
    Items,
    Mark,
    Paragraph,
    Series,
    Table,
    Value,
    Verdict,
)
from stresstest.reports.numbers import number

_FEW_SPIKES, _FEW_FINDINGS, _FEW_SEGMENTS = 4, 4, 8  # in a terminal, but for -v
_SHORT_NAME, _BESIDE_NAME = 18, 52  # characters of a run's name, at least, and of what stands beside it
_DETAILED = 20  # runs that a page of many shows whole
_HEIGHT = 5  # lines of the chart in a terminal
_TELLS_THE_LR = frozenset(("before-lr", "lr-still-rising", "warmup-never-ends"))
_COMMAND = ": stresstest "
_SEVERITY: Sequence[Severity] = ("broken", "warning", "info")


def document_of(run: Diagnosis, verbose: bool = False) -> Document:
    """What was read, each stretch, its curve, the findings; the verdict and what to try are nearest to the prompt."""
    findings = tuple(_findings(run, verbose))
    told = tuple(Paragraph(text, "bullet", formats=BRIEF) for text in findings)
    steps = [text.partition(_COMMAND) for text in run.try_next]
    return Document(
        name=f"stresstest: {run_name(run)}",
        title=run_name(run),
        subtitle=read_words(run),
        blocks=(Paragraph(read_words(run), "dim", formats=BRIEF), *_blocks(run, verbose), *told),
        findings=findings,
        verdicts=(_verdict(run), *(Verdict("", said) for said, command, _ in steps if not command)),
        next=tuple(Fact("next", f"{_COMMAND[2:]}{line}", _low(said)) for said, command, line in steps if command),
    )


def page_of(run: Diagnosis) -> Document:
    """The same for a page or a note, with its outcome in the title."""
    outcome = "cannot be judged" if run.verdict == "undecided" else str(run.outcome)
    return replace(document_of(run, verbose=True), title=f"{run_name(run)}: {outcome}")


def _verdict(run: Diagnosis) -> Verdict:
    text, detail = run_words(run)
    colon = ";" if ": " in text or detail.startswith("in segment") else ":"
    return Verdict("", f"{text}{colon} {detail}", tone_of(None if run.verdict == "undecided" else run.outcome))


def _low(said: str) -> str:
    """As it stands behind a colon."""
    return said[:1].lower() + said[1:]


def _blocks(run: Diagnosis, verbose: bool) -> Iterator[Block]:
    """The outcome of each segment, the curve, the spikes."""
    if len(run.segments) > 1:
        yield from _segment_tables(run, verbose)
    worst = worst_segment(run)
    if worst is not None:
        yield _loss_chart([worst])
        yield from page_charts(run.segments)
    yield from _spikes([spike for segment in run.segments for spike in segment.spikes], verbose)


def _segment_tables(run: Diagnosis, verbose: bool) -> Iterator[Block]:
    """All of them where there is room."""
    where = ["broke"] * any(segment.broke_between for segment in run.segments)
    columns = tuple(map(Column, ("segment", "began as", "steps", "rows", "outcome", *where, "first", "lowest", "last")))
    rows = [
        (
            Value(str(segment.index)),
            Value(segment.start),
            Value(f"{step(segment.first_step)} to {step(segment.last_step)}"),
            Value(f"{segment.rows:,}"),
            Value(segment.outcome or "undecided", tone=tone_of(segment.outcome)),
            *(Value("-".join(broke_in(segment))) for _ in where),
            *(Value(loss(value)) for value in (segment.first_loss, segment.best_loss, segment.last_loss)),
        )
        for segment in run.segments
    ]
    if len(rows) <= _FEW_SEGMENTS or verbose:
        yield Table(columns, tuple(rows))
        return
    yield Table(columns, tuple(rows), formats=WRITTEN)
    worst = worst_segment(run)
    first = max(0, min(len(rows) - _FEW_SEGMENTS, (worst.index if worst else 0) - _FEW_SEGMENTS // 2))
    yield Table(columns, tuple(rows[first : first + _FEW_SEGMENTS]), formats=TERMINAL)
    yield Paragraph(f"and {len(rows) - _FEW_SEGMENTS} more segments (-v lists them)", "dim", formats=TERMINAL)


def _loss_chart(segments: Sequence[SegmentDiagnosis]) -> Chart:
    """The loss over steps in a terminal, with its marks."""
    series = [
        Series(series_name("loss", segment, len(segments)), points, _marks(segment))
        for segment in segments
        if (points := points_of(segment, "loss"))
    ]
    log = wants_log([y for each in series for _, y in each.points if math.isfinite(y)])
    return Chart("", step_axis(series), Axis("loss", log=log), tuple(series), height=_HEIGHT, formats=TERMINAL)


def _marks(segment: SegmentDiagnosis) -> tuple[Mark, ...]:
    marks = [Mark("spike", "^", spike.first_step, "mixed") for spike in _highest(segment.spikes)]
    if segment.start == "resume":
        marks.append(Mark("resume", "|", segment.first_step))
    if segment.broke_between is not None:
        marks.append(Mark("breaks", "x", segment.broke_between[1], "bad"))
    return tuple(marks)


def _spikes(spikes: Sequence[Spike], verbose: bool) -> Iterator[Items]:
    """One by one; where they are many, the highest in a terminal and all elsewhere."""
    if not spikes:
        return
    every = Items(tuple(map(_spike, spikes)))
    if len(spikes) <= _FEW_SPIKES or verbose:
        yield every
        return
    few = [_spike(spike) for spike in _highest(spikes)]
    few.append(Item(f"and {len(spikes) - len(few)} lower spikes (-v prints them)", "dull"))
    yield Items(tuple(few), formats=TERMINAL)
    yield Items(every.items, formats=WRITTEN)


def _spike(spike: Spike) -> Item:
    return Item(spike_line(spike), "mixed", f"before it: {' '.join(spike.before)}" if spike.before else "")


def _highest(spikes: Sequence[Spike]) -> list[Spike]:
    """The few that rise most, in the order of their steps."""

    def rise(spike: Spike) -> float:
        return math.inf if spike.peak_loss is None else spike.peak_loss - (spike.level_before or 0.0)

    return sorted(sorted(spikes, key=rise, reverse=True)[:_FEW_SPIKES], key=lambda spike: spike.first_step)


def _findings(run: Diagnosis, verbose: bool) -> Iterator[str]:
    """The gravest first."""
    found: list[tuple[Severity, str]] = []
    for (severity, text), segments in _segments_by_text(run).items():
        found.append((severity, f"{_named(segments)}: {text}" if len(run.segments) > 1 else text))
    found += [(finding.severity, finding.text) for finding in run.findings]
    found = sorted(dict.fromkeys(found), key=lambda each: _SEVERITY.index(each[0]))
    shown = found if verbose else _first_few(found, run)
    yield from (text for _, text in shown)
    if left := len(found) - len(shown):
        yield "1 more finding (-v prints it)" if left == 1 else f"{left} more findings (-v prints them)"


def _segments_by_text(run: Diagnosis) -> dict[tuple[Severity, str], list[int]]:
    """What is said of segments, and of which."""
    said: dict[tuple[Severity, str], list[int]] = {}
    for segment in run.segments:
        for finding in segment.findings:
            said.setdefault((finding.severity, finding.text), []).append(segment.index)
    return said


def _named(segments: Sequence[int]) -> str:
    if len(segments) == 1:
        return f"Segment {segments[0]}"
    if len(segments) == segments[-1] - segments[0] + 1:
        return f"Segments {segments[0]} to {segments[-1]}"
    return f"Segments {', '.join(map(str, segments[:-1]))} and {segments[-1]}"


def _first_few(found: list[tuple[Severity, str]], run: Diagnosis) -> list[tuple[Severity, str]]:
    """Of several segments only what deserves a look; of one no LR that another line tells."""
    if len(run.segments) > 1:
        return [each for each in found if each[0] != "info"][:_FEW_FINDINGS]
    kinds = {finding.kind: finding.text for segment in run.segments for finding in segment.findings}
    told = kinds.get("lr-schedule") if _TELLS_THE_LR & kinds.keys() else None
    return [each for each in found if each[1] != told][:_FEW_FINDINGS]


def many_page(runs: Sequence[Diagnosis], unread: Sequence[UnreadLog], title: str) -> Document:
    """A table with a line a run, the broken ones first, what was not read, and the first few that are not stable."""
    ordered = in_order(runs)
    blocks: list[Block] = [run_table(ordered)] if runs else []
    if unread:
        blocks.append(Heading("Not read"))
        blocks.append(Items(tuple(Item(each.path, "bad", each.why) for each in unread)))
    for run in [run for run in ordered if run.verdict != "stable" or run.outcome != "stable"][:_DETAILED]:
        blocks += _section(page_of(run))
    return Document("stresstest: runs", title, blocks=tuple(blocks))


def _section(document: Document) -> Iterator[Block]:
    yield Heading(document.title)
    yield Paragraph(document.subtitle, "dim")
    yield from (Paragraph(verdict.text, "bullet") for verdict in document.verdicts)
    yield from (Paragraph(f"{fact.why}: {fact.text}", "bullet") for fact in document.next)
    yield from (Paragraph(text, "bullet") for text in document.findings)
    yield from (block for block in document.blocks if block.shown_in("html"))


def in_order(runs: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The broken first, then what cannot be judged, then the others; of each in the order of the logs."""
    ranks = {"broken": 0, "undecided": 1, "stable": 2}
    return sorted(runs, key=lambda run: (ranks[run.verdict], run.outcome == "stable"))


def common_folder(runs: Sequence[Diagnosis]) -> str:
    """The folder that all are in, with its slash; nothing where there is none."""
    parents = [str(PurePath(run.path).parent) for run in runs]
    try:
        common = os.path.commonpath(parents)
    except ValueError:  # absolute ones beside others
        return ""
    return f"{common.rstrip(os.sep)}{os.sep}" if common not in ("", ".") else ""


def run_table(runs: Sequence[Diagnosis], folder: str = "", width: int = 120) -> Table:
    """A line a run, whose names go without the folder that all are in, and lose their head where room is short."""
    room = max(_SHORT_NAME, width - _BESIDE_NAME)
    columns = (
        Column("run"),
        Column("outcome", "left"),
        Column("step", "left"),
        Column("loss"),
        Column("rows", wide=True),
        Column("form", "left", wide=True),
    )
    return Table(columns, tuple(_row(run, folder, room) for run in runs))


def _row(run: Diagnosis, folder: str, room: int) -> tuple[Value, ...]:
    worst = worst_segment(run)
    name = run_name(run).removeprefix(folder)
    outcome = "undecided" if run.verdict == "undecided" else str(run.outcome)
    ends = f"{_brief(worst.first_loss)} -> {_brief(worst.last_loss)}" if worst else "-"
    return (
        Value(name, short=name if len(name) <= room else f"...{name[3 - room :]}"),
        Value(outcome, tone=tone_of(None if run.verdict == "undecided" else run.outcome)),
        Value(_where(worst)),
        Value(ends),
        Value(f"{run.rows:,}"),
        Value(run.format),
    )


def _where(segment: SegmentDiagnosis | None) -> str:
    """Where it broke; otherwise where its first spike is."""
    if segment is None:
        return ""
    if segment.broke_between is not None:
        return "-".join(broke_in(segment))
    return step(segment.spikes[0].first_step) if segment.spikes else ""


def _brief(value: float | None) -> str:
    return "NaN" if value is None else number(value)
