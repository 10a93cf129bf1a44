"""What a depth sweep found: to which depth a variant trains, how it fails, what depth does to its LR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.findings.words import HOW_IT_BROKE, failures, number
from stresstest.results import Bracket, Cell, Finding, MetricSummary, SummaryRow, TrendRow

_LARGE = 1e3  # a signal or gradient that changes by this factor over the blocks has exploded or vanished
_ALIKE = 0.999  # cosine between inputs from which they cannot be told apart
_FLAT = 3.0  # a gradient within this factor is called flat
_UNCERTAIN = 0.0  # an exponent whose interval holds this is not told from no change


def depth_sweep_findings(
    rows: Sequence[SummaryRow], trends: Sequence[TrendRow], cells: Sequence[Cell], spec: Mapping[str, Any]
) -> list[Finding]:
    """All findings of a depth sweep, variant by variant."""
    findings: list[Finding] = []
    for trend in trends:
        mine = [row for row in rows if row.variant == trend.variant]
        done = [cell for cell in cells if cell.variant == trend.variant and cell.status == "done"]
        findings += _trainable(trend, done, spec)
        findings += _boundary(trend, mine, done)
        if spec["init_only"]:
            findings += _signal(trend, mine[-1], spec)
    findings += failures(cells)
    return findings


def why_failed(cell: Cell, spec: Mapping[str, Any]) -> tuple[str, str]:
    """(exploded, vanished or no progress; the evidence) of a cell whose fixed recipe did not train.

    Signal propagation at initialisation explains it where it is far from healthy.
    """
    growth, back = _middle(cell.metrics.get("stream_growth")), _middle(cell.metrics.get("grad_ratio"))
    alike = _middle(cell.metrics.get("similarity"))
    outcome = str(cell.recipe["outcome"])
    if growth is None:
        return "exploded", "the stream grows beyond all numbers on its way through the blocks"
    if growth > _LARGE:
        return "exploded", f"the stream grows {number(growth)} times from the first block to the last"
    if growth < 1.0 / _LARGE:
        return "vanished", f"of the stream, {number(growth)} is left after the last block"
    if alike is not None and alike > _ALIKE:
        what = "images" if spec["task"] == "images" else "tokens"
        return "vanished", f"after the last block all {what} look alike (cosine {alike:.4f})"
    if back is not None and back < 1.0 / _LARGE:
        return "vanished", f"the first block's gradient is {number(back)} of the last block's"
    if back is not None and back > _LARGE:
        return "exploded", f"the gradient grows {number(back)} times on its way back to the first block"
    if outcome in ("exploded", "nonfinite"):
        return "exploded", f"it {HOW_IT_BROKE[outcome]}"
    for step, signal in cell.signals.items():
        back = signal["metrics"].get("grad_ratio", {}).get("high")
        if back is not None and back < 1.0 / _LARGE:
            return "vanished", f"before step {step} the first block's gradient is {number(back)} of the last block's"
    return "no progress", f"it {HOW_IT_BROKE[outcome]}"


def growth_words(metrics: Mapping[str, MetricSummary], quantity: str) -> str:
    """How a quantity goes with depth, with its interval: as printed everywhere."""
    power, rate = metrics.get(f"{quantity}_exponent"), metrics.get(f"{quantity}_rate")
    if power is not None and power.median.low is not None and power.median.high is not None:
        middle = (power.median.low + power.median.high) / 2
        return f"depth^{_rounded(middle)} ({_rounded(power.low)}..{_rounded(power.high)})"
    if rate is not None and rate.median.low is not None and rate.low is not None and rate.high is not None:
        return f"{rate.median.low:.4g}^depth ({rate.low:.4g}..{rate.high:.4g})"
    return "-"


def _trainable(trend: TrendRow, done: Sequence[Cell], spec: Mapping[str, Any]) -> Iterator[Finding]:
    metric = trend.metrics.get("max_trainable_depth")
    if metric is None:
        return
    recipe = f"with {trend.optimizer} at {number(spec['peak_lr'])}"
    deepest = max(cell.depth for cell in done if cell.recipe)
    failing = [bracket.high for bracket in metric.per_seed.values() if bracket.high is not None]
    if not failing:
        text = f"{trend.variant} trains {recipe} at every depth up to {deepest} ({_of(metric.n, metric.n)})."
        yield Finding(kind="trainable-depth", subject=trend.variant, text=text)
        return
    parts = []
    for depth in sorted({int(depth) for depth in failing}):
        broken = [cell for cell in done if cell.depth == depth and not _trained(cell)]
        word, evidence = _cause(broken, spec)
        parts.append(f"at depth {depth} ({_of(len(broken), _asked(done, depth))}; {word}): {evidence}")
    trained = [bracket.low for bracket in metric.per_seed.values() if bracket.low is not None]
    to = f"trains {recipe} to depth {min(trained):.0f}; it" if len(trained) == metric.n else recipe
    text = f"{trend.variant} {to} fails {'; '.join(parts)}."
    yield Finding(kind="trainable-depth", subject=trend.variant, text=text)
    again = sorted({cell.depth for cell in done if _trained(cell) and cell.depth > max(failing)})
    if again:
        text = (
            f"{trend.variant} trains again at depth {', '.join(map(str, again))}, above one that failed; "
            "max_trainable_depth is the last depth below the first failure."
        )
        yield Finding(kind="not-monotone", subject=trend.variant, text=text)


def _cause(broken: Sequence[Cell], spec: Mapping[str, Any]) -> tuple[str, str]:
    """How most of these cells failed, with one seed's evidence."""
    causes = [why_failed(cell, spec) for cell in broken]
    words = [word for word, _ in causes]
    word = max(words, key=words.count)
    return word, next(evidence for w, evidence in causes if w == word)


def _boundary(trend: TrendRow, rows: Sequence[SummaryRow], done: Sequence[Cell]) -> Iterator[Finding]:
    held = [row for row in rows if "max_stable_lr" in row.metrics]
    if not held:
        return
    none = [row for row in held if row.metrics["max_stable_lr"].median.low is None]
    metric = trend.metrics.get("max_stable_lr_exponent")
    if metric is not None and metric.median.low is not None and metric.median.high is not None:
        ends = [row for row in held if row not in none]
        low, high = metric.low, metric.high
        sure = low is not None and high is not None and not low <= _UNCERTAIN <= high
        how = "changes" if not sure else "falls" if metric.median.high < 0 else "rises"
        text = (
            f"{trend.variant}: max_stable_lr {how} as {growth_words(trend.metrics, 'max_stable_lr')}, "
            f"from {_lr(ends[0])} at depth {ends[0].depth} to {_lr(ends[-1])} at depth {ends[-1].depth} "
            f"({_seeds(metric.n)})"
        )
        text += "." if sure else "; the interval allows no change."
        yield Finding(kind="lr-exponent", subject=trend.variant, text=text)
    if none:
        depths = ", ".join(str(row.depth) for row in none)
        text = (
            f"{trend.variant} trains at no held LR at depth {depths}: too deep for this wiring, or too few steps; "
            "the exponent leaves that out."
        )
        yield Finding(kind="never-trained", subject=trend.variant, text=text)
    odd = sorted({f"depth {c.depth} seed {c.seed}" for c in done if not c.ramp.get("hold_monotone", True)})
    if odd:
        text = (
            f"{trend.variant}: stability is not monotone in the LR at {', '.join(odd)}; "
            "max_stable_lr is the last LR below the first break."
        )
        yield Finding(kind="not-monotone", subject=trend.variant, text=text)


def _signal(trend: TrendRow, row: SummaryRow, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Signal propagation at the largest depth, in words."""
    share, back = _median(row, "branch_share"), _median(row, "grad_ratio")
    if share == 0.0:
        text = f"{row.variant} is the identity at initialisation, at depth {row.depth} as at any other."
        yield Finding(kind="signal", subject=row.variant, text=text)
        return
    words = [_gradient_words(back)]
    last = growth_words(trend.metrics, "grad")
    if last != "-":
        words.append(f"the last block's goes as {last}")
    growth = _median(row, "stream_growth")
    if growth is None:
        words.append("the stream grows beyond all numbers")
    elif growth >= _FLAT:
        words.append(f"the stream grows {number(growth)} times from the first block to the last")
    elif growth <= 1.0 / _FLAT:
        words.append(f"of the stream, {number(growth)} is left after the last block")
    alike = _median(row, "similarity")
    if alike is not None and alike > _ALIKE:
        words.append(f"all {'images' if spec['task'] == 'images' else 'tokens'} look alike (cosine {alike:.4f})")
    yield Finding(kind="signal", subject=row.variant, text=f"{row.variant} at depth {row.depth}: {'; '.join(words)}.")


def _gradient_words(back: float | None) -> str:
    if back is None:
        return "the gradient of the first or the last block is zero or beyond all numbers"
    if back > _FLAT:
        return f"the gradient grows towards the input, {number(back)} times from the last block to the first"
    if back < 1.0 / _FLAT:
        return f"the gradient grows towards the output, {number(1.0 / back)} times from the first block to the last"
    return f"the gradient is flat (first over last block: {number(back)})"


def _trained(cell: Cell) -> bool:
    return cell.recipe.get("outcome") in ("stable", "spiked")


def _asked(done: Sequence[Cell], depth: int) -> int:
    return sum(cell.depth == depth for cell in done)


def _of(count: int, total: int) -> str:
    return f"{count} of {total} seed{'s' * (total > 1)}"


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def _lr(row: SummaryRow) -> str:
    low = row.metrics["max_stable_lr"].median.low
    return "none" if low is None else number(low)


def _median(row: SummaryRow, metric: str) -> float | None:
    summary = row.metrics.get(metric)
    return None if summary is None else _middle(summary.median)


def _middle(bracket: Bracket | None) -> float | None:
    """A measured value; `None` where it was not measured, or lies beyond all numbers."""
    if bracket is None or bracket.low is None or bracket.high is None:
        return None
    return bracket.low


def _rounded(value: float | None) -> str:
    return "?" if value is None else f"{value + 0.0:.2g}" if abs(value) >= 0.005 else "0"
