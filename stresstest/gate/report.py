"""A verdict as a document, and everything that is written of it; all from the one verdict object."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from stresstest.errors import ConfigError, ExitCode
from stresstest.gate.github import SUMMARY_BYTES, github_annotations, render_markdown
from stresstest.gate.junit import render_junit
from stresstest.gate.pictures import line_tone, verdict_pictures
from stresstest.gate.records import CheckVerdict, GateLine, LimitLine
from stresstest.gate.statistics import MOST_SEEDS
from stresstest.gate.tables import verdict_tables
from stresstest.gate.verdict_words import (
    alone,
    cells_words,
    conclusion,
    difference_words,
    evidence_words,
    interval_words,
    line_names,
    seed_words,
    sure_words,
    title,
    values_words,
)
from stresstest.reports.document import (
    BRIEF,
    PAGE,
    Block,
    Column,
    Details,
    Document,
    Fact,
    Heading,
    Paragraph,
    Table,
    Tone,
    Value,
    Verdict,
)
from stresstest.reports.output import JSON, Made, Output, console, parse_output, text_of, write_outputs
from stresstest.reports.terminal import print_document

_FEW_LINES = 9  # of a terminal, where those that pass are named too
_MOST_NEXT = 2  # commands


def parse_verdict_output(text: str) -> Output:
    """(format, path) of an `--output`; an unknown format is a `ConfigError`."""
    return parse_output(text, {**JSON, "junit": (".xml",)})


def show_verdict(verdict: CheckVerdict, folder: Path, outputs: Sequence[Output], as_json: bool) -> None:
    """Store the verdict and its page, write the outputs and what GitHub reads, and print it: as text, or JSON alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{verdict.scenario}.verdict.json").write_text(verdict.to_json())
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written ({error.strerror}); give another path") from None
    page = folder / f"{verdict.scenario}.verdict.html"
    write_outputs([("html", page), *outputs], made_of(verdict))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as file:
            file.write(render_markdown(verdict, SUMMARY_BYTES))
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a") as file:
            file.write(f"verdict={verdict.verdict}\n")
    if as_json:
        sys.stdout.write(verdict.to_json())
    else:
        print_document(verdict_document(verdict).with_facts([Fact("report", str(page), file=True)]), console())
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
    """The verdict of each line and of the whole, and what they rest on."""
    again = (Fact("again", verdict.reproduce),) if verdict.mode != "compare" else ()
    names = line_names([*verdict.lines, *verdict.limits])
    return Document(
        name=f"stresstest {verdict.scenario}: {verdict.verdict}",
        title=title(verdict),
        subtitle=cells_words(verdict),
        blocks=tuple(_blocks(verdict, names)),
        footer=again,
        verdicts=tuple(_verdicts(verdict, names)),
        sure=sure_words(verdict),
        next=tuple(_next(verdict)),
    )


def _verdicts(verdict: CheckVerdict, names: Mapping[int, str]) -> Iterator[Verdict]:
    """What failed, line by line; what passed too, unless that is much; and what follows."""
    told = [
        *(Verdict("", failure, "bad") for failure in verdict.failures),
        *(Verdict(names[id(line)], _line_words(line, verdict), line_tone(line)) for line in verdict.lines),
        *(
            Verdict(names[id(limit)], _limit_words(limit), "good" if limit.passed else "bad")
            for limit in verdict.limits
        ),
    ]
    few = told if len(told) <= _FEW_LINES else [each for each in told if each.tone != "good"]
    yield from few
    if passed := len(told) - len(few):
        yield Verdict("", f"{passed}{' more' * bool(few)} line{'s' * (passed > 1)} passed, named in the report", "good")
    if verdict.mode != "compare":
        tones: dict[int, Tone] = {ExitCode.OK: "good", ExitCode.NO_VERDICT: "mixed"}
        yield Verdict("", conclusion(verdict), tones.get(verdict.exit_code, "bad"))


def _next(verdict: CheckVerdict) -> Iterator[Fact]:
    """What makes a verdict where there is none, and what shows a loss in full."""
    words = shlex.split(verdict.reproduce)
    if verdict.mode == "baseline" and verdict.verdict in ("no-baseline", "incomparable"):
        line = shlex.join(["stresstest", "baseline", "update", words[2], "--reason", "TEXT"])
        yield Fact("next", line, "a baseline of this commit and machine, to commit")
    if verdict.mode == "base" and verdict.seeds and verdict.verdict in ("inconclusive", "insufficient-seeds"):
        kept = words[: words.index("--seeds")] + words[words.index("--seeds") + 2 :] if "--seeds" in words else words
        most = max([verdict.seeds, *verdict.looks])
        if most < MOST_SEEDS:
            yield Fact(
                "next", shlex.join([*kept, "--seeds", str(min(2 * most, MOST_SEEDS))]), "more seeds, which may decide"
            )
    worse: list[GateLine | LimitLine] = [line for line in verdict.lines if line.verdict == "regressed"]
    worse += [limit for limit in verdict.limits if not limit.passed]
    for name, command in islice(alone(worse).items(), _MOST_NEXT):
        where = "" if verdict.mode == "compare" else ", on this commit"
        yield Fact("next", command, f"{name or 'the run'} in full{where}")


def _blocks(verdict: CheckVerdict, names: Mapping[int, str]) -> Iterator[Block]:
    if cells := cells_words(verdict):
        yield Paragraph(cells, "dim", formats=BRIEF)
    for warning in verdict.warnings:
        yield Paragraph(f"warning: {warning}")
    if verdict.lines:
        yield Heading("Against the base", formats=PAGE)
        yield _lines_table(verdict, names)
        yield from verdict_pictures(verdict)
        yield _by_seed(verdict, names)
    if verdict.limits:
        yield Heading("Limits", formats=PAGE)
        yield _limits_table(verdict, names)


def _line_words(line: GateLine, verdict: CheckVerdict) -> str:
    """What became of it; a reason that a warning gives already is not said again."""
    level = " (warn)" if line.level == "warn" else ""
    warned = f"{line.place.experiment}: {line.reason}" in verdict.warnings
    reason = f" ({line.reason})" if line.reason and not warned else ""
    if line.n:
        reason = f": {values_words(line)}, {difference_words(line)} ({evidence_words(line)}){reason}"
    return f"{line.verdict.upper()}{level}{reason}"


def _limit_words(limit: LimitLine) -> str:
    level = " (warn)" if limit.level == "warn" and not limit.passed else ""
    reason = f" ({limit.reason})" if limit.reason else ""
    value = f"{limit.threshold.partition(' ')[0]} = {limit.value}, " if limit.value else ""
    return f"{'' if limit.passed else f'FAILED{level}: '}{value}limit {limit.threshold}{reason}"


def _lines_table(verdict: CheckVerdict, names: Mapping[int, str]) -> Table:
    rows = tuple(
        (
            Value(names[id(line)]),
            Value(f"{line.verdict}{' (warn)' * (line.level == 'warn')}", tone=line_tone(line)),
            Value(values_words(line) if line.n else "-"),
            Value(difference_words(line), interval_words(line)) if line.n else Value("-"),
            Value(evidence_words(line)),
            Value("" if f"{line.place.experiment}: {line.reason}" in verdict.warnings else line.reason),
        )
        for line in verdict.lines
    )
    columns = (
        Column("line", "left"),
        Column("verdict", "left"),
        Column("base -> head"),
        Column("difference"),
        *(Column(header, "left") for header in ("evidence", "why")),
    )
    return _without_empty_end(columns, rows)


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
    columns = tuple(Column(header, "left") for header in ("limit", "threshold", "value", "verdict", "why"))
    return _without_empty_end(columns, rows)


def _without_empty_end(columns: tuple[Column, ...], rows: tuple[tuple[Value, ...], ...]) -> Table:
    """Without the last column, where no row has anything to say there."""
    if not any(row[-1].text for row in rows):
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    return Table(columns, rows, formats=PAGE)
