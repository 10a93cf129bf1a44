"""A verdict in words: which line, which values, what follows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from stresstest.errors import ExitCode
from stresstest.gate.judge import NOWHERE
from stresstest.gate.records import PASSES, CheckVerdict, GatedRow, GateLine, LimitLine
from stresstest.reports.numbers import interval, middle
from stresstest.results.records import finite, interval_rank

_NAMED = 5  # lines in the last line of a report
_EXIT_WORDS = {
    ExitCode.OK: "passed",
    ExitCode.GATE_CROSSED: "a gate was crossed",
    ExitCode.NO_VERDICT: "no verdict; to pass with a warning, use --lenient",
    ExitCode.MODEL_FAILED: "the model's own code failed",
}


def line_names(lines: Iterable[GateLine | LimitLine]) -> dict[int, str]:
    """The name of each line's place, by its id; with the optimizer where the lines of an experiment differ in it."""
    every, optimizers = list(lines), dict[str, set[str]]()
    for line in every:
        optimizers.setdefault(line.place.experiment, set()).add(line.place.optimizer)
    several = {name for name, found in optimizers.items() if len(found - {""}) > 1}
    return {id(line): place_name(line.place, line.metric, line.place.experiment in several) for line in every}


def place_name(place: GatedRow, metric: str, with_optimizer: bool = False) -> str:
    """experiment.metric{variant, depth, ...}, as a threshold names it."""
    optimizer = place.optimizer if with_optimizer else ""
    at = {"variant": place.variant, "depth": place.depth, "optimizer": optimizer, **place.point}
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


def interval_words(line: GateLine) -> str:
    """The interval of the median difference; of octaves as a ratio, head over base."""
    if line.n < 2:
        return ""
    low, high = median_interval(line)
    if ">=" not in line.threshold:
        low, high = (None if high is None else -high), (None if low is None else -low)
    if line.unit == "oct":
        known = [None if end is None or abs(end) >= NOWHERE else 2.0**end for end in (low, high)]
        shown = ["?" if end is None else f"{end:.3g}" for end in known]
        return "" if known == [None, None] else f"times {shown[0]}..{shown[1]}"
    return "..".join("?" if end is None else f"{end:+.3g}" for end in (low, high))


def median_interval(line: GateLine) -> tuple[float | None, float | None]:
    """(low, high) of the median difference over the seeds: order statistics; `None` where it is unbounded."""
    rank, _ = interval_rank(len(line.differences))
    lows = sorted(-math.inf if low is None else low for low, _ in line.differences.values())
    highs = sorted(math.inf if high is None else high for _, high in line.differences.values())
    return finite(lows[rank - 1]), finite(highs[-rank])


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
    if verdict.mode == "base" and "ref" in verdict.base:
        base = f"{base}, where it left {verdict.base.get('ref')}"
    return f"{verdict.scenario}: {at} against {'the baseline of ' * (verdict.mode == 'baseline')}{base}"


def sure_words(verdict: CheckVerdict) -> str:
    """How sure the verdict is: seeds, lines, error rate, looks."""
    parts = []
    if verdict.lines:
        lines = f"{len(verdict.lines)} line{'s' * (len(verdict.lines) > 1)}"
        parts.append(f"{verdict.seeds} paired seeds, {lines}, error rate {verdict.alpha:g} over all lines (Holm)")
    if len(verdict.looks) > 1:
        parts.append(f"looks at {' and '.join(map(str, verdict.looks))} seeds")
    return "; ".join(parts)


def cells_words(verdict: CheckVerdict) -> str:
    """How many cells each side has, and what was cached of them."""
    parts = []
    for side, facts in (("head", verdict.head), ("base", verdict.base)):
        if "trained" in facts:
            cached = facts["cells"] - facts["trained"]
            parts.append(f"{side}: {facts['cells']} cells" + (f", {cached} of them cached" if cached > 0 else ""))
    if verdict.base.get("changed") == "comments":
        parts.append("only comments differ")
    return "; ".join(parts)


def how_words(verdict: CheckVerdict) -> str:
    """Both."""
    return "; ".join(filter(None, (sure_words(verdict), cells_words(verdict))))


def conclusion(verdict: CheckVerdict) -> str:
    """The last line: exit code and why."""
    code = verdict.exit_code
    lines: list[GateLine | LimitLine] = [*verdict.lines, *verdict.limits]
    every = line_names(lines)
    crossed = [every[id(line)] for line in lines if counts_against(line, verdict)]
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


def alone(lines: Iterable[GateLine | LimitLine]) -> dict[str, str]:
    """By experiment, the command that runs one side of its lines again and shows them in full."""
    return {line.place.experiment: line.reproduce for line in lines if line.reproduce}


def seed_words(line: GateLine) -> tuple[str, str]:
    """(the intervals of both sides; the difference of each seed)."""
    sides = " -> ".join("none" if each is None else interval(each) for each in (line.base, line.head))
    pairs = ", ".join(f"{seed}: {_range_words(low, high)}" for seed, (low, high) in line.differences.items())
    return sides, f"{line.unit}: {pairs}"


def _range_words(low: float | None, high: float | None) -> str:
    ends = ["?" if end is None else f"{end:+.3g}" for end in (low, high)]
    return ends[0] if low == high else " to ".join(ends)
