"""A verdict for GitHub: a comment or step summary within its limits, and annotations."""

from __future__ import annotations

from stresstest.gate.records import PASSES, CheckVerdict
from stresstest.gate.verdict_words import (
    alone,
    conclusion,
    difference_words,
    evidence_words,
    how_words,
    limit_words,
    line_names,
    seed_words,
    title,
    told_words,
    values_words,
)

SUMMARY_BYTES = 1_000_000  # GitHub drops a step summary above 1 MiB
COMMENT_CHARACTERS = 65_000  # and a comment above 65,536
ANNOTATIONS = 10  # and shows no more of a step


def render_markdown(verdict: CheckVerdict, most: int = COMMENT_CHARACTERS) -> str:
    """A comment for a pull request; of what would not fit, the seeds go first, then the lines that pass."""
    for detail in ("seeds", "lines", "failing"):
        text = _markdown(verdict, detail)
        if len(text.encode()) <= most:
            return text
    end = f"\n\n(cut: too long to show here)\n\n{conclusion(verdict)}\n"
    whole_lines = text.encode()[: most - len(end.encode())].decode(errors="ignore").rpartition("\n")[0]
    return whole_lines + end


def _markdown(verdict: CheckVerdict, detail: str) -> str:
    names = line_names([*verdict.lines, *verdict.limits])
    lines = [f"<!-- stresstest:{verdict.scenario} -->", f"### stresstest: {verdict.verdict}", "", title(verdict), ""]
    if how := how_words(verdict):
        lines += [how, ""]
    lines += [f"- warning: {warning}" for warning in verdict.warnings]
    lines += [f"- failed: {_cell(failure)}" for failure in verdict.failures]
    shown = [line for line in verdict.lines if detail != "failing" or line.verdict not in PASSES]
    if shown:
        lines += ["", "| line | base -> head | difference | evidence | verdict |", "| --- | --- | --- | --- | --- |"]
        for line in shown:
            cells = [
                f"`{names[id(line)]}`",
                values_words(line),
                difference_words(line),
                evidence_words(line),
            ]
            lines.append(f"| {' | '.join(map(_cell, cells))} | **{line.verdict}** {_cell(line.reason)} |")
    limits = [limit for limit in verdict.limits if detail != "failing" or not limit.passed]
    if limits:
        lines += ["", "| limit | value | |", "| --- | --- | --- |"]
        lines += [
            f"| `{_cell(names[id(limit)])}` {_cell(limit.threshold)} | {_cell(limit.value)} | "
            f"{'passed' if limit.passed else '**failed**'} {_cell(limit.reason)} |"
            for limit in limits
        ]
    if detail == "seeds" and shown:
        by_seed = (f"- `{names[id(line)]}` {'; '.join(seed_words(line))}" for line in shown)
        lines += ["", "<details><summary>by seed</summary>", "", *by_seed, "", "</details>"]
    again = [f"- {name} alone: `{command}`" for name, command in alone([*verdict.lines, *verdict.limits]).items()]
    return "\n".join([*lines, "", conclusion(verdict), "", f"- again: `{verdict.reproduce}`", *again, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def github_annotations(verdict: CheckVerdict) -> list[str]:
    """GitHub's workflow commands: one for each line that does not pass, the errors first, at most ten."""
    found = []
    names = line_names([*verdict.lines, *verdict.limits])
    for failure in verdict.failures:
        found.append(("error", "stresstest: errored", failure))
    for line in verdict.lines:
        if line.verdict not in PASSES:
            bad = line.level == "error" and line.verdict in ("regressed", "errored")
            undecided = line.level == "error" and not verdict.lenient and not bad
            text = f"{names[id(line)]}: {', '.join(told_words(line))} {line.reason}"
            found.append(("error" if bad or undecided else "warning", f"stresstest: {line.verdict}", text))
    for limit in verdict.limits:
        if not limit.passed:
            text = f"{names[id(limit)]}: {limit.threshold}, {limit_words(limit)}"
            found.append(("error" if limit.level == "error" else "warning", "stresstest: limit crossed", text))
    found += [("warning", "stresstest", warning) for warning in verdict.warnings]
    found.sort(key=lambda each: each[0] != "error")
    if len(found) > ANNOTATIONS:
        left = len(found) - ANNOTATIONS + 1
        found = [*found[: ANNOTATIONS - 1], ("warning", "stresstest", f"{left} more in the step summary")]
    return [f"::{kind} title={_escaped(name, ',:')}::{_escaped(text.strip())}" for kind, name, text in found]


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
