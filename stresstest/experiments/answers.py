"""The answer of an experiment: a verdict of each thing that was compared, how sure it is, what to try next."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.reports.document import Fact, Verdict
from stresstest.results.records import MetricSummary, Result, interval_rank
from stresstest.specs.parsing import exact_text

FEWEST_SEEDS = 3  # for a first idea of the scatter
ENOUGH_SEEDS = 5  # the range over them covers the median more than nine times in ten
_MOST_NEXT = 2  # commands to try: more are not read
_FAILED = ("oom", "crashed", "timeout")  # findings of cells without a result


@dataclass(frozen=True)
class Answer:
    """What a reader in a hurry needs of a result."""

    verdicts: tuple[Verdict, ...] = ()
    sure: str = ""
    next: tuple[Fact, ...] = ()


def answer_of_findings(result: Result) -> Answer:
    """The first finding about each thing, for an experiment that gives no answer of its own."""
    first = {finding.subject: finding.text for finding in reversed(result.findings) if finding.kind not in _FAILED}
    told = [finding.text for finding in result.findings if first.get(finding.subject) == finding.text]
    return Answer(tuple(Verdict("", text) for text in told))


def warnings_of(result: Result) -> tuple[str, ...]:
    """What every reader has to know: cells that have no result."""
    return tuple(finding.text for finding in result.findings if finding.kind in _FAILED)


def first_few(steps: Iterable[Fact | None]) -> tuple[Fact, ...]:
    """The most useful of what could be tried, which come first; each command once."""
    return tuple({step.text: step for step in steps if step is not None}.values())[:_MOST_NEXT]


def try_again(result: Result, why: str, command: str = "", lacks: Iterable[str] = (), **settings: Any) -> Fact | None:
    """The line of a result with other settings, or of another command, which lacks some; `None` where it is no line."""
    text = result.reproduce
    try:
        if text.startswith("stresstest."):
            return Fact("next", _other_call(text, command, set(lacks), settings), why)
        return Fact("next", _other_line(text, result.command, command, set(lacks), settings), why)
    except (SyntaxError, ValueError):
        return None  # a call whose arguments Python cannot read again


def more_seeds(result: Result, number: int = ENOUGH_SEEDS) -> Fact | None:
    """The same with more seeds, those that are trained among them; `None` where there are as many."""
    seeds: list[int] = list(result.spec["seeds"])
    if len(seeds) >= number:
        return None
    asked: Any = number
    if seeds != list(range(len(seeds))):
        asked = (*seeds, *range(max(seeds) + 1, max(seeds) + 1 + number - len(seeds)))
    why = f"{number} seeds: intervals that hold the median {_coverage(number)} of the time"
    return try_again(result, why, seeds=asked)


def seeds_sure(result: Result, metric: MetricSummary | None = None) -> str:
    """How sure the intervals are, or what would tell."""
    count = len(result.spec["seeds"]) if metric is None else metric.n
    if count == 1:
        return "one seed, which does not show the scatter"
    return f"{count} seeds; the brackets hold the median {_coverage(count)} of the time"


def _coverage(count: int) -> str:
    return f"{interval_rank(count)[1]:.0%}"


def _other_line(line: str, old: str, command: str, lacks: set[str], settings: Mapping[str, Any]) -> str:
    """A command line with some options set, replaced or left out."""
    words = shlex.split(line)
    at = words.index(old) + 1
    options = _options(words[at:])
    kept = {name: value for name, value in options.items() if _setting(name) not in lacks}
    kept |= {f"--{name.replace('_', '-')}": _text(value) for name, value in settings.items()}
    ends = [part for name, value in kept.items() for part in (name, *([] if value is None else [value]))]
    return shlex.join([*words[: at - 1], command or old, *ends])


def _options(words: Sequence[str]) -> dict[str, str | None]:
    """Options with their values; `None` of a switch."""
    found: dict[str, str | None] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word
            found[name] = None
        elif name:
            found[name] = word
    return found


def _setting(option: str) -> str:
    return option.removeprefix("--no-").removeprefix("--").replace("-", "_")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) + "," * (len(value) == 1)
    return exact_text(value) if isinstance(value, float) else str(value)


def _other_call(call: str, command: str, lacks: set[str], settings: Mapping[str, Any]) -> str:
    """A call of Python with some keywords set, replaced or left out."""
    tree = ast.parse(call, mode="eval").body
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Attribute):
        raise ValueError("not a call of a function of the package")
    if command:
        tree.func.attr = command.replace("-", "_")
    gone = lacks | settings.keys()
    tree.keywords = [keyword for keyword in tree.keywords if keyword.arg not in gone]
    tree.keywords += [ast.keyword(name, ast.Constant(value)) for name, value in settings.items()]
    return ast.unparse(tree)
