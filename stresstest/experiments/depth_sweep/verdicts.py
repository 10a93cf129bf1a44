"""The answer of a depth sweep: up to which depth each variant trains, and what depth does to its largest stable LR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stresstest.experiments.answers import (
    Answer,
    first_few,
    last_good,
    lrs_apart,
    seeds_sure,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
)
from stresstest.experiments.depth_sweep.findings import cause, growth_words, is_identity, signal_words
from stresstest.reports.document import Fact, Tone, Verdict
from stresstest.reports.numbers import lr, number
from stresstest.results.records import TRAINED, Bracket, Result, SummaryRow, TrendRow
from stresstest.specs.parsing import exact_text

_DEEPER = 4  # times: the next depth to look at
_CLOSE = 1.5  # times between the last depth that trains and the first that does not: near enough
_HEALTHY, _BROKEN = 3.0, 1e3  # times that the gradient changes over the blocks, at most and at least
_WORST: Sequence[Tone] = ("bad", "mixed", "good")
_SETTINGS_OF_DEPTHS = (
    *("depths", "measure", "init_only", "peak_lr", "warmup_steps", "train_steps", "target_loss", "bisect"),
    *("probe_steps", "jacobian_input", "variant"),
)


def answer(result: Result) -> Answer:
    """A verdict a variant, in the order of the spec."""
    verdicts = tuple(_verdict(trend, result) for trend in result.trends)
    return Answer(verdicts, _sure(result), first_few(_next(result))) if verdicts else Answer()


def _verdict(trend: TrendRow, result: Result) -> Verdict:
    rows = [row for row in result.summary if row.variant == trend.variant]
    if result.spec["init_only"]:
        return _signal(trend, rows[-1], result)
    parts = [part for part in (_depths(trend, result), _lrs(trend, rows)) if part is not None]
    text = "; ".join(words for words, _ in parts) or "has no result"
    return Verdict(trend.variant, text, min((tone for _, tone in parts), key=_WORST.index, default=""))


def _depths(trend: TrendRow, result: Result) -> tuple[str, Tone] | None:
    """To which depth the fixed recipe trains, and why it fails at the next."""
    metric = trend.metrics.get("max_trainable_depth")
    if metric is None:
        return None
    low, high = metric.median.low, metric.median.high
    if high is None:
        whole = low is not None and low >= max(result.spec["depths"])
        return f"trains to depth {low or 0:.0f}, the deepest{'' if whole else ' with a result'}", "good"
    failed = [cell for cell in result.cells if cell.variant == trend.variant and cell.depth == high and cell.recipe]
    broken = [cell for cell in failed if cell.recipe["outcome"] not in TRAINED]
    fails = f"{high:.0f} fails: {cause(broken, result.spec)[1]}" if broken else f"{high:.0f} fails"
    if low is None:
        return f"depth {fails}", "bad"
    brackets, _ = last_good(metric, "{:.0f}".format)
    return f"trains to depth {low:.0f}{brackets}; {fails}", "mixed"


def _lrs(trend: TrendRow, rows: Sequence[SummaryRow]) -> tuple[str, Tone] | None:
    """The largest stable LR at both ends of the depths, and how it goes between them."""
    held = {row.depth: row.metrics["max_stable_lr"].median for row in rows if "max_stable_lr" in row.metrics}
    known = {depth: bracket for depth, bracket in held.items() if bracket.low is not None}
    if not held:
        return None
    never = [str(depth) for depth in held if depth not in known]
    if not known:
        return f"trains at no LR that was held, at depth {', '.join(never)}", "bad"
    first, last = min(known), max(known)
    text = f"use LR {_up_to(known[first])} at depth {first}"
    if last > first:
        text += f", {_up_to(known[last])} at {last}"
    power = trend.metrics.get("max_stable_lr_exponent")
    falls = power is not None and power.high is not None and power.high < 0.0
    if (law := growth_words(trend.metrics, "max_stable_lr")) != "-":
        rises = power is not None and power.low is not None and power.low > 0.0
        text += f": {'falls as' if falls else 'rises as' if rises else 'no trend,'} {law}"
    if never:
        return f"{text}; trains at no LR at depth {', '.join(never)}", "bad"
    return text, "mixed" if falls else "good"


def _up_to(bracket: Bracket) -> str:
    return f"{lr(bracket.low)}{' or more' * (bracket.high is None)}"


def _signal(trend: TrendRow, row: SummaryRow, result: Result) -> Verdict:
    """How gradient and stream come through the deepest stack."""
    if is_identity(row):
        return Verdict(row.variant, "is the identity at initialisation, at every depth", "good")
    metric = row.metrics.get("grad_ratio")
    ratio = None if metric is None or metric.median.high is None else metric.median.low
    change = max(ratio, 1.0 / ratio) if ratio else float("inf")
    tone: Tone = "good" if change <= _HEALTHY else "bad" if change >= _BROKEN else "mixed"
    return Verdict(row.variant, f"depth {row.depth}: {signal_words(trend, row, result.spec)}", tone)


def _sure(result: Result) -> str:
    metrics = [metric for row in result.summary for metric in row.metrics.values()]
    sure = seeds_sure(result, max(metrics, key=lambda each: each.n, default=None))
    if any(cell.recipe for cell in result.cells):
        sure += f"; fixed recipe: {result.spec['optimizer']} at {exact_text(result.spec['peak_lr'])}"
    held = any("max_stable_lr" in row.metrics for row in result.summary)
    return f"{sure}; {lrs_apart(result)}" if held else sure


def _next(result: Result) -> Iterator[Fact | None]:
    spec, depths = result.spec, result.spec["depths"]
    yield seeds_to_start(result)
    if spec["init_only"]:
        yield try_again(result, "train it, to see whether the boundary follows", {}, lacks=("init_only",))
    limits = [
        row.metrics["max_trainable_depth"].median for row in result.trends if "max_trainable_depth" in row.metrics
    ]
    if any(limit.low and limit.high and limit.high > _CLOSE * limit.low for limit in limits) and not spec["bisect"]:
        yield try_again(result, "bisect for the last depth that trains", {"bisect": True})
    held = [row for row in result.summary if "max_stable_lr" in row.metrics]
    if never := [row for row in held if row.metrics["max_stable_lr"].median.low is None]:
        settings = {"variant": never[0].variant, "depth": never[0].depth}
        why = f"why {never[0].variant} does not train at depth {never[0].depth}"
        yield try_again(result, why, settings, "lr-range", _SETTINGS_OF_DEPTHS)
    elif (held or limits) and all(limit.high is None for limit in limits):
        deeper = (*depths, _DEEPER * depths[-1])
        yield try_again(result, f"deeper: all train at depth {number(depths[-1])}", {"depths": deeper})
    yield seeds_to_be_sure(result)
