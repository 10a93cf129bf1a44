"""A verdict as JUnit XML: one test case for each line."""

from __future__ import annotations

from stresstest.gate.records import PASSES, UNDECIDED, CheckVerdict, GateLine, LimitLine
from stresstest.gate.verdict_words import limit_words, line_names, told_words
from stresstest.reports.junit import Case, render_suite


def render_junit(verdict: CheckVerdict) -> str:
    """A crossed gate is a failure, a cell without a result an error, what is undecided is skipped.

    What is at level warn never fails; with --lenient nothing changes, as skipped cases fail no job.
    """
    failed = [Case(failure, "error", failure) for failure in verdict.failures]
    lines: list[GateLine | LimitLine] = [*verdict.lines, *verdict.limits]
    names = line_names(lines)
    return render_suite(f"stresstest.{verdict.scenario}", [*failed, *(_case(line, names[id(line)]) for line in lines)])


def _case(line: GateLine | LimitLine, place: str) -> Case:
    name = f"{place} {line.threshold}"
    properties = {}
    if isinstance(line, LimitLine):
        said, good = f"{line.threshold}: {limit_words(line)}", line.passed
        bad, undecided = not good, False
    else:
        said = f"{line.verdict}: {', '.join(told_words(line))} {line.reason}".strip()
        bad, undecided = line.verdict == "regressed", line.verdict in UNDECIDED
        good = line.verdict in PASSES
        for seed, (low, high) in line.differences.items():
            value = "" if low is None else f"{low:g}" if low == high else f"{low:g}.."
            properties[f"seed {seed} ({line.unit})"] = value or f"..{high}"
    if bad and line.level == "error":
        return Case(name, "failure", said, line.reproduce, properties)
    if not good and not bad and not undecided:
        return Case(name, "error", said, properties=properties)
    return Case(name, "" if good else "skipped", "" if good else said, properties=properties)
