"""`stresstest diagnose`: logs in, verdicts out."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stresstest.diagnosis.call import read_logs
from stresstest.diagnosis.diagnose import Choices
from stresstest.diagnosis.document import common_folder, document_of, in_order, many_page, page_of, run_table
from stresstest.diagnosis.junit import render_junit
from stresstest.diagnosis.records import Diagnoses, Diagnosis
from stresstest.diagnosis.tables import diagnosis_tables
from stresstest.diagnosis.words import is_still_up, run_line, run_name
from stresstest.reports.document import Block, Document, Fact, Paragraph
from stresstest.reports.output import JSON, Made, Output, console, parse_output, write_outputs
from stresstest.reports.terminal import print_document

_IN_FULL = 2  # so many runs are printed whole, more as a table
_STABLE_LINES = 30  # of the table in which stable runs are listed, but for -v
FORMATS = {**JSON, "junit": (".xml",)}


@dataclass(frozen=True)
class Shown:
    """How it is shown: files beside the terminal, JSON instead of it, less or more of it."""

    outputs: tuple[Output, ...] = ()
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False


def outputs_of(texts: Sequence[str]) -> tuple[Output, ...]:
    """The formats and paths of `--output`; a wrong one is a `ConfigError`."""
    return tuple(parse_output(text, FORMATS) for text in texts)


def diagnose_logs(names: Sequence[str], choices: Choices, shown: Shown = Shown()) -> int:
    """Show the diagnosis of every run; the exit code is that of the worst, and 2 where a log was not read."""
    found = read_logs(names, choices)
    for unread in found.unread:
        print(f"stresstest: {unread.path}: {unread.why}", file=sys.stderr)
    texts = {"json": found.to_json, "junit": lambda: render_junit(found)}
    write_outputs(shown.outputs, Made(lambda: _document(found), lambda: diagnosis_tables(found), texts))
    if shown.as_json:
        sys.stdout.write(found.to_json())
    else:
        _print(found, shown)
    return found.exit_code


def _document(found: Diagnoses) -> Document:
    if len(found.runs) == 1 and not found.unread:
        return page_of(found.runs[0])
    return many_page(found.runs, found.unread, _sum(found))


def _print(found: Diagnoses, shown: Shown) -> None:
    out = console()
    runs = found.runs
    if shown.quiet:
        for run in in_order(runs) if len(runs) <= _IN_FULL else []:
            out.print(run_line(run), markup=False, soft_wrap=True)
    else:
        whole = runs if shown.verbose or len(runs) <= _IN_FULL else ()
        for run in whole:
            print_document(document_of(run, shown.verbose), out)
        if len(runs) > _IN_FULL:
            _print_table(found, shown.verbose)
        for line in _passed_over_lines(found, shown.verbose):
            out.print(line, style="dim", markup=False, soft_wrap=True)
        if runs:
            out.print()
    for line in _last_lines(found):
        out.print(line, markup=False, soft_wrap=True)


def _print_table(found: Diagnoses, verbose: bool) -> None:
    ordered = in_order(found.runs)
    told = [run for run in ordered if run.outcome != "stable" or run.verdict != "stable"]
    room = len(ordered) if verbose else max(len(told), _STABLE_LINES)
    out = console()
    folder = common_folder(ordered)
    title = f"{len(ordered):,} runs" + (f" in {folder}" if folder else "")
    blocks: list[Block] = [run_table(ordered[:room], folder, out.width)]
    if len(ordered) > room:
        blocks.append(Paragraph(f"and {len(ordered) - room:,} more, stable (-v lists them)", "dim"))
    footer: tuple[Fact, ...] = ()
    if told and not verbose:
        line = f"stresstest diagnose {shlex.quote(told[0].path)}"
        footer = (Fact("next", line, "what happened to the first of them"),)
    print_document(Document("", title, blocks=tuple(blocks), footer=footer), out)


def _passed_over_lines(found: Diagnoses, verbose: bool) -> Iterator[str]:
    if not found.passed_over:
        return
    if verbose:
        yield from (f"passed over {each.path}: {each.why}" for each in found.passed_over)
    else:
        count = len(found.passed_over)
        files = "1 file that holds no loss was" if count == 1 else f"{count:,} files that hold no loss were"
        yield f"{files} passed over (-v names them)"


def _last_lines(found: Diagnoses) -> Iterator[str]:
    """The verdict, and the exit code with its reason."""
    if len(found.runs) == 1 and not found.unread:
        (run,) = found.runs
        reasons = {
            "stable": "the run is stable" if run.outcome == "stable" else f"the run did not break ({_outcome(run)})",
            "broken": f"the run is broken ({run.outcome})",
            "undecided": "the run cannot be judged",
        }
        yield f"exit {found.exit_code}: {reasons[run.verdict]}"
    elif found.runs:
        yield _sum(found)
        yield f"exit {found.exit_code}: {_reason(found)}"


def _sum(found: Diagnoses) -> str:
    """How many runs of each outcome."""
    outcomes = Counter("undecided" if run.verdict == "undecided" else str(run.outcome) for run in in_order(found.runs))
    parts = [f"{count:,} {outcome}" for outcome, count in outcomes.items()]
    parts += [f"{len(found.unread):,} not read"] if found.unread else []
    return f"{_count(len(found.runs), 'run')}: {', '.join(parts)}"


def _reason(found: Diagnoses) -> str:
    broken = [run for run in found.runs if run.verdict == "broken"]
    undecided = [run for run in found.runs if run.verdict == "undecided"]
    parts = [f"{_count(len(found.unread), 'log')} could not be read"] if found.unread else []
    if broken:
        parts.append(f"{_count(len(broken), 'run')} broke" + (f" ({run_name(broken[0])})" if len(broken) == 1 else ""))
    if undecided and not broken:
        parts.append(f"{_count(len(undecided), 'run')} cannot be judged")
    calm = all(run.outcome == "stable" for run in found.runs)
    return ", ".join(parts) or ("every run is stable" if calm else "no run broke")


def _outcome(run: Diagnosis) -> str:
    up = any(map(is_still_up, run.segments))
    return f"{run.outcome}, not back at the end" if up else str(run.outcome)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"
