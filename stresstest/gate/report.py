"""A verdict as a document, and everything that is written of it; all from the one verdict object."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stresstest.errors import ConfigError
from stresstest.gate.github import SUMMARY_BYTES, github_annotations, render_markdown
from stresstest.gate.junit import render_junit
from stresstest.gate.pictures import line_tone, verdict_pictures
from stresstest.gate.records import CheckVerdict, GateLine, LimitLine
from stresstest.gate.tables import verdict_tables
from stresstest.gate.verdict_words import (
    alone,
    conclusion,
    difference_words,
    evidence_words,
    how_words,
    interval_words,
    line_names,
    seed_words,
    title,
    values_words,
)
from stresstest.reports.document import (
    PAGE,
    TERMINAL,
    Block,
    Column,
    Details,
    Document,
    Fact,
    Heading,
    Item,
    Items,
    Paragraph,
    Table,
    Value,
)
from stresstest.reports.output import JSON, Made, Output, console, parse_output, text_of, write_outputs
from stresstest.reports.terminal import print_document


def parse_verdict_output(text: str) -> Output:
    """(format, path) of an `--output`; an unknown format is a `ConfigError`."""
    return parse_output(text, {**JSON, "junit": (".xml",)})


def show_verdict(verdict: CheckVerdict, folder: Path, outputs: Sequence[Output], as_json: bool) -> None:
    """Store the verdict, write the outputs and what GitHub reads, and print it: as text, or as JSON alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{verdict.scenario}.verdict.json").write_text(verdict.to_json())
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written ({error.strerror}); give another path") from None
    write_outputs(outputs, made_of(verdict))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as file:
            file.write(render_markdown(verdict, SUMMARY_BYTES))
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a") as file:
            file.write(f"verdict={verdict.verdict}\n")
    if as_json:
        sys.stdout.write(verdict.to_json())
    else:
        print_document(verdict_document(verdict), console())
    if os.environ.get("GITHUB_ACTIONS") == "true":
        sys.stderr.write("".join(f"{line}\n" for line in github_annotations(verdict)))


def made_of(verdict: CheckVerdict) -> Made:
    """What the outputs of a verdict are made of; its Markdown is the one that GitHub shows."""
    texts = {
        "json": verdict.to_json,
        "junit": lambda: render_junit(verdict),
        "md": lambda: render_markdown(verdict),
    }
    return Made(lambda: verdict_document(verdict), lambda: verdict_tables(verdict), texts)


def verdict_text(verdict: CheckVerdict, kind: str) -> str:
    """A verdict in one format: one of its own, or one of every document's."""
    return text_of(made_of(verdict), kind)


def verdict_document(verdict: CheckVerdict) -> Document:
    """The verdict, and what it rests on."""
    again = [Fact("again", verdict.reproduce)] if verdict.mode != "compare" else []
    return Document(
        name=f"stresstest {verdict.scenario}: {verdict.verdict}",
        title=title(verdict),
        subtitle=how_words(verdict),
        blocks=tuple(_blocks(verdict)),
        footer=(*again, *(Fact(f"{name} alone", command) for name, command in alone(verdict).items())),
    )


def _blocks(verdict: CheckVerdict) -> Iterator[Block]:
    ends = verdict.mode != "compare"
    if ends:
        yield Paragraph(conclusion(verdict), "strong", formats=PAGE)
    for warning in verdict.warnings:
        yield Paragraph(f"warning: {warning}")
    if verdict.failures:
        yield Items(tuple(Item(failure, "bad") for failure in verdict.failures))
    names = line_names([*verdict.lines, *verdict.limits])
    items = (
        *(_line_item(line, names[id(line)]) for line in verdict.lines),
        *(_limit_item(limit, names[id(limit)]) for limit in verdict.limits),
    )
    if items:
        yield Items(items, formats=TERMINAL)
    if verdict.lines:
        yield Heading("Against the base", formats=PAGE)
        yield _lines_table(verdict, names)
        yield from verdict_pictures(verdict)
        yield _by_seed(verdict, names)
    if verdict.limits:
        yield Heading("Limits", formats=PAGE)
        yield _limits_table(verdict, names)
    if ends:
        yield Paragraph(conclusion(verdict), "strong", formats=TERMINAL)


def _line_item(line: GateLine, name: str) -> Item:
    level = " (warn)" if line.level == "warn" else ""
    reason = f" ({line.reason})" if line.reason else ""
    if line.n:
        reason = f"{values_words(line)}  {difference_words(line)}  ({evidence_words(line)}){reason}"
    return Item(f"{name}  {line.verdict.upper()}{level}", line_tone(line), reason.strip())


def _limit_item(limit: LimitLine, name: str) -> Item:
    value = f"  {limit.threshold.partition(' ')[0]} = {limit.value}" if limit.value else ""
    level = " (warn)" if limit.level == "warn" and not limit.passed else ""
    reason = f"  ({limit.reason})" if limit.reason else ""
    failed = "" if limit.passed else "  FAILED"
    text = f"{name}  {limit.threshold}{value}{reason}{failed}{level}"
    return Item(text, "good" if limit.passed else "bad")


def _lines_table(verdict: CheckVerdict, names: Mapping[int, str]) -> Table:
    rows = tuple(
        (
            Value(names[id(line)]),
            Value(f"{line.verdict}{' (warn)' * (line.level == 'warn')}", tone=line_tone(line)),
            Value(values_words(line) if line.n else "-"),
            Value(difference_words(line), interval_words(line)) if line.n else Value("-"),
            Value(evidence_words(line)),
            Value(line.reason),
        )
        for line in verdict.lines
    )
    columns = (
        Column("line", "left"),
        Column("verdict", "left"),
        Column("base -> head"),
        Column("difference"),
        *(Column(header, "left") for header in ("evidence", "")),
    )
    return Table(columns, rows, formats=PAGE)


def _by_seed(verdict: CheckVerdict, names: Mapping[int, str]) -> Details:
    rows = tuple((Value(names[id(line)]), *map(Value, seed_words(line))) for line in verdict.lines if line.n)
    columns = tuple(Column(header, "left") for header in ("line", "base -> head", "difference"))
    return Details("by seed", (Table(columns, rows),))


def _limits_table(verdict: CheckVerdict, names: Mapping[int, str]) -> Table:
    rows = tuple(
        (
            Value(names[id(limit)]),
            Value(limit.threshold),
            Value(limit.value),
            Value("passed" if limit.passed else "failed", tone="good" if limit.passed else "bad"),
            Value(limit.reason),
        )
        for limit in verdict.limits
    )
    columns = tuple(Column(header, "left") for header in ("limit", "threshold", "value", "", ""))
    return Table(columns, rows, formats=PAGE)
