"""A verdict in the terminal, as Markdown, for GitHub; everything from the one verdict object."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stresstest.errors import ConfigError, ExitCode
from stresstest.gate.judge import NOWHERE
from stresstest.gate.junit import render_junit
from stresstest.gate.records import PASSES, CheckVerdict, GateLine, LimitLine, Place
from stresstest.registry import did_you_mean
from stresstest.reports.numbers import interval, middle
from stresstest.reports.output import console
from stresstest.reports.words import paragraph

FORMATS = {"json": (".json",), "junit": (".xml",), "md": (".md", ".markdown")}
SUMMARY_BYTES = 1_000_000  # GitHub drops a step summary above 1 MiB
COMMENT_CHARACTERS = 65_000  # and a comment above 65,536
_NAMED = 5  # lines in the last line of a report
ANNOTATIONS = 10  # and shows no more of a step
_MARKS = {"regressed": ("x", "red"), "errored": ("x", "red")} | dict.fromkeys(PASSES, ("+", "green"))
_EXIT_WORDS = {
    ExitCode.OK: "passed",
    ExitCode.GATE_CROSSED: "a gate was crossed",
    ExitCode.NO_VERDICT: "no verdict; to pass with a warning, use --lenient",
    ExitCode.MODEL_FAILED: "the model's own code failed",
}


def parse_verdict_output(text: str) -> tuple[str, Path]:
    """(format, path) of an `--output`; an unknown format is a `ConfigError`."""
    kind, colon, rest = text.partition(":")
    if not (colon and kind in FORMATS and rest):
        suffix = Path(text).suffix.lower()
        kind, rest = next((name for name, suffixes in FORMATS.items() if suffix in suffixes), ""), text
    if not kind:
        raise ConfigError(f"unknown format of output '{text}'{did_you_mean(Path(text).suffix[1:], FORMATS)}")
    if not Path(rest).parent.is_dir() or Path(rest).is_dir():
        raise ConfigError(f"output {rest} cannot be written: {Path(rest).parent} is not a folder, or {rest} is one")
    return kind, Path(rest)


def show_verdict(verdict: CheckVerdict, folder: Path, outputs: Sequence[tuple[str, Path]], as_json: bool) -> None:
    """Store the verdict, write the outputs and what GitHub reads, and print it: as text, or as JSON alone."""
    texts = {"json": verdict.to_json(), "junit": render_junit(verdict), "md": render_markdown(verdict)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, path in [("json", folder / f"{verdict.scenario}.verdict.json"), *outputs]:
            path.write_text(texts[kind])
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written ({error.strerror}); give another path") from None
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as file:
            file.write(render_markdown(verdict, SUMMARY_BYTES))
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a") as file:
            file.write(f"verdict={verdict.verdict}\n")
    if as_json:
        sys.stdout.write(verdict.to_json())
    else:
        print_verdict(verdict, console())
    if os.environ.get("GITHUB_ACTIONS") == "true":
        sys.stderr.write("".join(f"{line}\n" for line in github_annotations(verdict)))


def place_name(place: Place, metric: str) -> str:
    """experiment.metric{variant, depth, ...}, as a threshold names it."""
    at = {"variant": place.variant, "depth": place.depth, **place.point}
    selector = ",".join(f"{key}={value}" for key, value in at.items() if value not in (None, ""))
    prefix = f"{place.experiment}." if place.experiment else ""
    return f"{prefix}{metric}" + (f"{{{selector}}}" if selector else "")


def difference_words(line: GateLine) -> str:
    """The median difference, with a sign that says which way the value went."""
    low, high = line.median
    if high is not None and high <= -NOWHERE:
        return "no longer trains"
    if low is not None and low >= NOWHERE:
        return "trains only now"
    if low is None and high is None:
        return "?"
    shown = (low if low is not None else high) or 0.0
    side = "" if low == high else "at least " if high is None else "at most " if low is None else ""
    falls = ">=" in line.threshold
    unit = {"%": "%", "": ""}.get(line.unit, f" {line.unit}")
    if low is not None and high is not None and low != high:
        return f"{low if falls else -high:+.3g} to {high if falls else -low:+.3g}{unit}"
    side = side if falls else {"at least ": "at most ", "at most ": "at least "}.get(side, side)
    return f"{side}{shown if falls else -shown:+.3g}{unit}"


def values_words(line: GateLine) -> str:
    """Base and head: medians."""
    before = "none" if line.base is None else middle(line.base)
    after = "none" if line.head is None else middle(line.head)
    return f"{before} -> {after}"


def evidence_words(line: GateLine) -> str:
    """p, n and the limit."""
    p = "" if line.p is None else f"p={line.p:.2g} "
    return f"{p}n={line.n}, limit {line.threshold.partition('base')[2].strip()}"


def told_words(line: GateLine) -> tuple[str, str, str]:
    """Values, difference, evidence."""
    return values_words(line), difference_words(line), evidence_words(line)


def limit_words(limit: LimitLine) -> str:
    """What a limit was held against."""
    return f"the value is {limit.value or 'missing'} {limit.reason}".strip()


def title(verdict: CheckVerdict) -> str:
    """What was compared with what."""
    at = verdict.head.get("commit") or "the working tree"
    if verdict.mode == "limits":
        return f"{verdict.scenario}: limits on {at}"
    base = verdict.base.get("commit") or "none"
    if verdict.mode == "base":
        base = f"{base}, where it left {verdict.base.get('ref')}"
    return f"{verdict.scenario}: {at} against {'the baseline of ' * (verdict.mode == 'baseline')}{base}"


def how_words(verdict: CheckVerdict) -> str:
    """Seeds, lines, error rate, what was cached."""
    parts = []
    if verdict.lines:
        lines = f"{len(verdict.lines)} line{'s' * (len(verdict.lines) > 1)}"
        parts.append(f"{verdict.seeds} paired seeds, {lines}, error rate {verdict.alpha:g} over all lines (Holm)")
    if len(verdict.looks) > 1:
        parts.append(f"looks at {' and '.join(map(str, verdict.looks))} seeds")
    for side, facts in (("head", verdict.head), ("base", verdict.base)):
        if "trained" in facts:
            cached = facts["cells"] - facts["trained"]
            parts.append(f"{side}: {facts['cells']} cells" + (f", {cached} of them cached" if cached > 0 else ""))
    if verdict.base.get("changed") == "comments":
        parts.append("only comments differ")
    return "; ".join(parts)


def conclusion(verdict: CheckVerdict) -> str:
    """The last line: exit code and why."""
    code = verdict.exit_code
    lines: list[GateLine | LimitLine] = [*verdict.lines, *verdict.limits]
    crossed = [place_name(line.place, line.metric) for line in lines if counts_against(line, verdict)]
    why = _EXIT_WORDS.get(code, "")
    names = list(dict.fromkeys(crossed))
    left = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    more = f": {', '.join(names[:_NAMED])}{left}" if names and code != ExitCode.OK else ""
    lenient = " (no verdict, --lenient)" if code == ExitCode.OK and verdict.verdict not in (*PASSES, "passed") else ""
    return f"{verdict.verdict}, exit {int(code)}: {why}{more}{lenient}"


def counts_against(line: GateLine | LimitLine, verdict: CheckVerdict) -> bool:
    """Whether a line is why the check does not pass."""
    if line.level != "error":
        return False
    return not line.passed if isinstance(line, LimitLine) else line.verdict == verdict.verdict


def alone(verdict: CheckVerdict) -> dict[str, str]:
    """By experiment, the command that runs one side of its lines again and shows them in full."""
    lines: list[GateLine | LimitLine] = [*verdict.lines, *verdict.limits]
    return {line.place.experiment: line.reproduce for line in lines if line.reproduce}


def print_verdict(verdict: CheckVerdict, out: Console) -> None:
    """The verdict first, then what it rests on."""
    out.print()
    out.print(Text(title(verdict), style="bold"), soft_wrap=True)
    if how := how_words(verdict):
        paragraph(out, how, style="dim")
    for warning in verdict.warnings:
        paragraph(out, f"warning: {warning}")
    for failure in verdict.failures:
        out.print(Text(f"  x {failure}", style="red"), soft_wrap=True)
    for line in verdict.lines:
        mark, style = _MARKS.get(line.verdict, ("?", "yellow"))
        level = " (warn)" if line.level == "warn" else ""
        head = f"  {mark} {place_name(line.place, line.metric)}  {line.verdict.upper()}{level}"
        out.print(Text(head, style=style), soft_wrap=True)
        reason = f" ({line.reason})" if line.reason else ""
        if line.n:
            reason = f"{values_words(line)}  {difference_words(line)}  ({evidence_words(line)}){reason}"
        paragraph(out, reason.strip(), bullet="      ")
    for limit in verdict.limits:
        mark, style = ("+", "green") if limit.passed else ("x", "red")
        value = f"  {limit.threshold.partition(' ')[0]} = {limit.value}" if limit.value else ""
        level = " (warn)" if limit.level == "warn" and not limit.passed else ""
        reason = f"  ({limit.reason})" if limit.reason else ""
        said = f"{limit.threshold}{value}{reason}{'' if limit.passed else '  FAILED'}{level}"
        out.print(Text(f"  {mark} {place_name(limit.place, limit.metric)}  {said}", style=style), soft_wrap=True)
    out.print()
    if verdict.mode != "compare":
        out.print(Text(conclusion(verdict), style="bold"), soft_wrap=True)
        out.print(Text(f"again: {verdict.reproduce}", style="dim"), soft_wrap=True)
    for name, command in alone(verdict).items():
        out.print(Text(f"{name} alone: {command}", style="dim"), soft_wrap=True)


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
                f"`{place_name(line.place, line.metric)}`",
                values_words(line),
                difference_words(line),
                evidence_words(line),
            ]
            lines.append(f"| {' | '.join(map(_cell, cells))} | **{line.verdict}** {_cell(line.reason)} |")
    limits = [limit for limit in verdict.limits if detail != "failing" or not limit.passed]
    if limits:
        lines += ["", "| limit | value | |", "| --- | --- | --- |"]
        lines += [
            f"| `{_cell(place_name(limit.place, limit.metric))}` {_cell(limit.threshold)} | {_cell(limit.value)} | "
            f"{'passed' if limit.passed else '**failed**'} {_cell(limit.reason)} |"
            for limit in limits
        ]
    if detail == "seeds" and shown:
        lines += ["", "<details><summary>by seed</summary>", "", *_by_seed(shown), "", "</details>"]
    again = [f"- {name} alone: `{command}`" for name, command in alone(verdict).items()]
    return "\n".join([*lines, "", conclusion(verdict), "", f"- again: `{verdict.reproduce}`", *again, ""])


def _by_seed(shown: Sequence[GateLine]) -> list[str]:
    lines = []
    for line in shown:
        pairs = ", ".join(
            f"{seed}: {'?' if low is None else f'{low:+.3g}'}"
            + ("" if low == high else f" to {'?' if high is None else f'{high:+.3g}'}")
            for seed, (low, high) in line.differences.items()
        )
        sides = " -> ".join("none" if each is None else interval(each) for each in (line.base, line.head))
        lines.append(f"- `{place_name(line.place, line.metric)}` {sides}; {line.unit}: {pairs}")
    return lines


def _range_words(low: float | None, high: float | None) -> str:
    ends = ["?" if end is None else f"{end:+.3g}" for end in (low, high)]
    return ends[0] if low == high else " to ".join(ends)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def github_annotations(verdict: CheckVerdict) -> list[str]:
    """GitHub's workflow commands: one for each line that does not pass, the errors first, at most ten."""
    found = []
    for failure in verdict.failures:
        found.append(("error", "stresstest: errored", failure))
    for line in verdict.lines:
        if line.verdict not in PASSES:
            bad = line.level == "error" and line.verdict in ("regressed", "errored")
            undecided = line.level == "error" and not verdict.lenient and not bad
            text = f"{place_name(line.place, line.metric)}: {', '.join(told_words(line))} {line.reason}"
            found.append(("error" if bad or undecided else "warning", f"stresstest: {line.verdict}", text))
    for limit in verdict.limits:
        if not limit.passed:
            text = f"{place_name(limit.place, limit.metric)}: {limit.threshold}, {limit_words(limit)}"
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
