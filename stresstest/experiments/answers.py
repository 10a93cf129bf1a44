"""The answer of an experiment: a verdict of each thing that was compared, how sure it is, what to try next."""

from __future__ import annotations

import ast
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stresstest.experiments.call_line import is_call
from stresstest.reports.document import Document, Fact, Verdict
from stresstest.results.records import MetricSummary, Result, interval_rank
from stresstest.specs.parsing import exact_text

FEWEST_SEEDS = 3  # for a first idea of the scatter
ENOUGH_SEEDS = 5  # the range over them covers the median more than nine times in ten
_MOST_NEXT = 2  # commands to try: more are not read
_WIDER = 4.0  # times: how far a grid of LRs goes beyond an end
_SAME_LR = 1e-6
_STEPS = {"octave": "2x", "half-octave": "1.4x", "quarter-octave": "1.2x"}
_FAILED = ("oom", "crashed", "timeout")  # findings of cells without a result


@dataclass(frozen=True)
class Answer:
    """What a reader in a hurry needs of a result."""

    verdicts: tuple[Verdict, ...] = ()
    sure: str = ""
    next: tuple[Fact, ...] = ()


def answered(document: Document, result: Result) -> Document:
    """A document with an answer: where its experiment gives none, the first finding about each thing."""
    told = [finding for finding in result.findings if finding.kind not in _FAILED]
    if document.verdicts or not told:
        return document
    first = {finding.subject: finding.text for finding in reversed(told)}
    return replace(
        document,
        verdicts=tuple(Verdict("", each.text) for each in told if first[each.subject] == each.text),
        sure=seeds_sure(result),
        warnings=warnings_of(result),
        next=first_few([seeds_to_start(result), seeds_to_be_sure(result)]),
    )


def warnings_of(result: Result) -> tuple[str, ...]:
    """What every reader has to know: cells that have no result."""
    return tuple(finding.text for finding in result.findings if finding.kind in _FAILED)


def first_few(steps: Iterable[Fact | None]) -> tuple[Fact, ...]:
    """The most useful of what could be tried, which come first; each command once."""
    return tuple({step.text: step for step in steps if step is not None}.values())[:_MOST_NEXT]


def try_again(
    result: Result, why: str, settings: Mapping[str, Any], command: str = "", lacks: Iterable[str] = ()
) -> Fact | None:
    """The line of a result with other settings, or of another command, which lacks some.

    `None` where that line cannot be read again.
    """
    text = result.reproduce
    try:
        if is_call(text):
            return Fact("next", _other_call(text, command, set(lacks), settings), why)
        return Fact("next", _other_line(text, result.command, command, set(lacks), settings), why)
    except (SyntaxError, ValueError):
        return None  # a call whose arguments Python cannot read again


def seeds_to_start(result: Result) -> Fact | None:
    """The same with as many seeds as a first idea of the scatter takes; `None` where there are."""
    return more_seeds(result, FEWEST_SEEDS)


def seeds_to_be_sure(result: Result) -> Fact | None:
    """The same with as many seeds as a narrow interval takes; `None` where there are, or it is too early."""
    return more_seeds(result, ENOUGH_SEEDS) if len(result.spec["seeds"]) >= FEWEST_SEEDS else None


def more_seeds(result: Result, number: int, why: str = "") -> Fact | None:
    """The same with more seeds, those that are trained among them; `None` where there are as many."""
    seeds: list[int] = list(result.spec["seeds"])
    if len(seeds) >= number:
        return None
    asked: Any = number
    if seeds != list(range(len(seeds))):
        asked = (*seeds, *range(max(seeds) + 1, max(seeds) + 1 + number - len(seeds)))
    why = why or f"{number} seeds: intervals that hold the median {_coverage(number)} of the time"
    return try_again(result, why, {"seeds": asked})


def wider_grid(result: Result, best: Iterable[float]) -> Fact | None:
    """The grid of peak LRs beyond the ends at which a best one lies, spaced as before; `None` where none does."""
    spec = result.spec
    low, high, number = spec["start_lr"], spec["end_lr"], spec["num_lrs"]
    at = [end for end in (low, high) if any(math.isclose(lr, end, rel_tol=_SAME_LR) for lr in best)]
    if number == 1 or not at:
        return None
    more = max(1, round(math.log(_WIDER) / math.log(high / low) * (number - 1)))
    settings: dict[str, Any] = {"start_lr": rounded(low / _WIDER)} if low in at else {}
    settings |= {"end_lr": rounded(high * _WIDER)} if high in at else {}
    settings["num_lrs"] = number + more * len(at)
    why = f"a wider grid: a best LR is its {' and its '.join({low: 'lowest', high: 'highest'}[end] for end in at)}"
    return try_again(result, why, settings)


def rounded(value: float) -> float:
    """To three digits, as a line has it."""
    return float(f"{value:.3g}")


def last_good(metric: MetricSummary, words: Callable[[float], str]) -> tuple[str, float]:
    """(the interval of the seeds' last good values in brackets, the ratio of its ends); of one seed nothing, and 1."""
    lows = sorted(bracket.low or 0.0 for bracket in metric.per_seed.values())
    if len(lows) == 1:
        return "", 1.0
    rank, _ = interval_rank(len(lows))
    low, high = lows[rank - 1], lows[-rank]
    if low == high:
        every = "both" if len(lows) == 2 else f"all {len(lows)}"
        return f" ({every} seeds)" if rank == 1 else f" ({words(low)}..{words(high)} over seeds)", 1.0
    return f" ({words(low) if low else 'none'}..{words(high)} over seeds)", high / low if low else math.inf


def seeds_sure(result: Result, metric: MetricSummary | None = None) -> str:
    """How sure the intervals are, or what would tell."""
    count = len(result.spec["seeds"]) if metric is None else metric.n
    if count == 1:
        return "one seed, which does not show the scatter"
    what = "their range holds" if interval_rank(count)[0] == 1 else "intervals hold"
    return f"{count} seeds; {what} the median {_coverage(count)} of the time"


def lrs_apart(result: Result) -> str:
    """How finely constant LRs were tried."""
    return f"LRs {_STEPS[result.spec['hold_resolution']]} apart"


def _coverage(count: int) -> str:
    return f"{interval_rank(count)[1]:.0%}"


def _other_line(line: str, old: str, command: str, lacks: set[str], settings: Mapping[str, Any]) -> str:
    """A command line with some options set, replaced or left out."""
    words = shlex.split(line)
    at = words.index(old) + 1
    options = _options(words[at:])
    kept = {name: value for name, value in options.items() if _setting(name) not in lacks}
    for name, value in settings.items():
        kept[f"--{name.replace('_', '-')}"] = None if value is True else _text(value)
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
    """A call of Python with some keywords set, replaced or left out; what it imports and what it says stay."""
    *imports, asked = ast.parse(call).body
    tree = asked.value if isinstance(asked, ast.Expr) else None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Attribute):
        raise ValueError("not a call of a function of the package")
    said = call.encode()[asked.end_col_offset :].decode()
    if command:
        tree.func.attr = command.replace("-", "_")
    gone = lacks | settings.keys()
    tree.keywords = [keyword for keyword in tree.keywords if keyword.arg not in gone]
    tree.keywords += [ast.keyword(name, ast.Constant(value)) for name, value in settings.items()]
    return "; ".join(map(ast.unparse, [*imports, asked])) + said
