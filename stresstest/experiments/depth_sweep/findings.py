"""What a depth sweep found: to which depth a variant trains, how it fails, what depth does to its LR."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.experiments.break_findings import look_closer, why
from stresstest.experiments.untrained_findings import too_little_to_learn
from stresstest.models.variants import VARIANTS
from stresstest.reports.numbers import HOW_IT_BROKE, NO_DATA, bracket, failures, number
from stresstest.results.records import TRAINED, Bracket, Cell, Finding, MetricSummary, SummaryRow, TrendRow
from stresstest.specs.kinds import is_user_model
from stresstest.specs.parsing import exact_text

_LARGE = 1e3  # a signal or gradient that changes by this factor over the blocks has exploded or vanished
_ALIKE = 0.999  # cosine between inputs from which they cannot be told apart
_FLAT = 3.0  # a gradient within this factor is called flat


def depth_sweep_findings(
    rows: Sequence[SummaryRow],
    trends: Sequence[TrendRow],
    cells: Sequence[Cell],
    spec: Mapping[str, Any],
    data: Mapping[str, Any] = NO_DATA,
) -> list[Finding]:
    """All findings of a depth sweep, variant by variant; `data` says in which unit its losses are."""
    findings: list[Finding] = []
    for trend in trends:
        mine = [row for row in rows if row.variant == trend.variant]
        done = [cell for cell in cells if cell.variant == trend.variant and cell.status == "done"]
        findings += _trainable(trend, done, spec)
        findings += _trains_again(trend, done)
        findings += _exponent(trend, mine)
        findings += _never_trained(trend, mine, spec)
        findings += too_little_to_learn(trend.variant, done, spec, data, "depths and seeds")
        findings += _not_monotone(trend, done)
        findings += explained(trend, done, cells)
        if spec["init_only"]:
            findings += _signal(trend, mine[-1], spec)
    findings += look_closer(findings, cells)
    findings += failures(cells)
    return findings


def explained(trend: TrendRow, done: Sequence[Cell], cells: Sequence[Cell]) -> Iterator[Finding]:
    """Why a variant broke: where its recipe first fails to train, or without a recipe at the deepest."""
    said = [cell for cell in done if cell.why]
    if any(cell.recipe for cell in done):
        said = [cell for cell in said if not _trained(cell)]
        depth = min((cell.depth for cell in said), default=0)
    else:
        depth = max((cell.depth for cell in said), default=0)
    mine = [cell for cell in said if cell.depth == depth]
    if mine:
        yield from why(f"{trend.variant} ({depth} blocks)", mine, cells)


def why_failed(cell: Cell, spec: Mapping[str, Any]) -> tuple[str, str]:
    """(outcome, the evidence) of a cell whose fixed recipe did not train.

    Signal propagation explains it where it is far from healthy, at initialisation or later. A
    stream that grows is healthy where a final norm follows.
    """
    growth, back = _middle(cell.metrics.get("stream_growth")), _middle(cell.metrics.get("grad_ratio"))
    alike = _middle(cell.metrics.get("similarity"))
    outcome = str(cell.recipe["outcome"])
    if growth is None and not is_user_model(spec.get("model", "")):  # of whose stream nothing is known
        return outcome, "the stream overflows on its way through the blocks"
    if growth is not None and growth > _LARGE and not VARIANTS[cell.variant.partition(":")[0]].final_norm:
        return outcome, f"the stream grows {number(growth)} times from the first block to the last"
    if growth is not None and growth < 1.0 / _LARGE:
        return outcome, f"the stream vanishes to {number(growth)} of its size after the last block"
    if alike is not None and alike > _ALIKE:
        what = "images" if spec["task"] == "images" else "tokens"
        return outcome, f"all {what} look alike after the last block (cosine {alike:.4f})"
    if back is not None and back < 1.0 / _LARGE:
        return outcome, f"the gradient vanishes: the first block's is {number(back)} of the last block's"
    if back is not None and back > _LARGE:
        return outcome, f"the gradient grows {number(back)} times on its way back to the first block"
    if outcome in ("exploded", "nonfinite"):
        return outcome, f"it {HOW_IT_BROKE[outcome]}"
    for step, signal in cell.signals.items():
        ratio = signal["metrics"].get("grad_ratio")
        back = None if ratio is None else ratio["high"]
        if back is not None and back < 1.0 / _LARGE:
            evidence = f"before step {step} the first block's is {number(back)} of the last block's"
            return outcome, f"the gradient vanishes: {evidence}"
    return outcome, f"it {HOW_IT_BROKE[outcome]}"


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
    recipe = f"with {trend.optimizer} at {exact_text(spec['peak_lr'])}"
    trained = [side.low for side in metric.per_seed.values() if side.low is not None]
    failing = sorted({int(side.high) for side in metric.per_seed.values() if side.high is not None})
    if not failing:
        text = f"{trend.variant} trains {recipe} at every depth up to {min(trained):.0f} ({_of(metric.n, metric.n)})."
        yield Finding(kind="trainable-depth", subject=trend.variant, text=text)
        return
    parts = []
    for depth in failing:
        at = [cell for cell in done if cell.depth == depth]
        broken = [cell for cell in at if not _trained(cell)]
        word, evidence = cause(broken, spec)
        parts.append(f"at depth {depth} ({_of(len(broken), len(at))}; {word}): {evidence}")
    to = f"trains {recipe} to depth {min(trained):.0f}; it" if len(trained) == metric.n else recipe
    text = f"{trend.variant} {to} fails {'; '.join(parts)}."
    yield Finding(kind="trainable-depth", subject=trend.variant, text=text)


def cause(broken: Sequence[Cell], spec: Mapping[str, Any]) -> tuple[str, str]:
    """How most of these cells failed, with one seed's evidence."""
    causes = [why_failed(cell, spec) for cell in broken]
    word = statistics.mode([word for word, _ in causes])
    return word, next(evidence for w, evidence in causes if w == word)


def _trains_again(trend: TrendRow, done: Sequence[Cell]) -> Iterator[Finding]:
    metric = trend.metrics.get("max_trainable_depth")
    firsts = {} if metric is None else {int(seed): side.high for seed, side in metric.per_seed.items()}
    again = [
        f"depth {cell.depth} seed {cell.seed}"
        for cell in sorted(done, key=lambda cell: (cell.depth, cell.seed))
        if _trained(cell) and (first := firsts.get(cell.seed)) is not None and cell.depth > first
    ]
    if again:
        text = (
            f"{trend.variant} trains again at {', '.join(again)}, deeper than a failure; "
            "max_trainable_depth is the last depth below the first failure."
        )
        yield Finding(kind="not-monotone", subject=trend.variant, text=text)


def _exponent(trend: TrendRow, rows: Sequence[SummaryRow]) -> Iterator[Finding]:
    metric = trend.metrics.get("max_stable_lr_exponent")
    ends = [row for row in rows if "max_stable_lr" in row.metrics and _stable(row).low is not None]
    if metric is None or metric.low is None or metric.high is None or not ends:
        return
    how = "falls" if metric.high < 0.0 else "rises" if metric.low > 0.0 else "goes"
    text = (
        f"{trend.variant}: max_stable_lr {how} as {growth_words(trend.metrics, 'max_stable_lr')}, "
        f"from {bracket(_stable(ends[0]))} at depth {ends[0].depth} to {bracket(_stable(ends[-1]))} at depth "
        f"{ends[-1].depth} ({'one seed' if metric.n == 1 else f'{metric.n} seeds'})"
    )
    text += "; indistinguishable from no change." if how == "goes" else "."
    left_out = [str(row.depth) for row in ends if _stable(row).high is None]
    if left_out:
        text += f" At depth {', '.join(left_out)} it is above the range and left out."
    yield Finding(kind="lr-exponent", subject=trend.variant, text=text)


def _never_trained(trend: TrendRow, rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    none = [str(row.depth) for row in rows if "max_stable_lr" in row.metrics and _stable(row).low is None]
    if none:
        advice = (
            f"run stresstest lr-range --depth {none[0]} to see how it fails"
            if is_user_model(spec["model"])
            else "too deep for this variant, or too few steps"
        )
        text = (
            f"{trend.variant} did not train at any held LR at depth {', '.join(none)} (most seeds): {advice}; "
            "exponents leave these depths out."
        )
        yield Finding(kind="never-trained", subject=trend.variant, text=text)


def _not_monotone(trend: TrendRow, done: Sequence[Cell]) -> Iterator[Finding]:
    odd = [f"depth {c.depth} seed {c.seed}" for c in done if not c.ramp.get("hold_monotone", True)]
    if odd:
        text = (
            f"{trend.variant}: stability is not monotone in the LR at {', '.join(sorted(odd))}; "
            "max_stable_lr is the last LR below the first break."
        )
        yield Finding(kind="not-monotone", subject=trend.variant, text=text)


def _signal(trend: TrendRow, row: SummaryRow, spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Signal propagation at the largest depth, in words."""
    if is_identity(row):
        text = f"{row.variant} is the identity at initialisation, at every depth."
        yield Finding(kind="signal", subject=row.variant, text=text)
        return
    text = f"{row.variant} at depth {row.depth}: {signal_words(trend, row, spec)}."
    yield Finding(kind="signal", subject=row.variant, text=text)


def is_identity(row: SummaryRow) -> bool:
    """Whether the blocks add nothing at initialisation."""
    return _median(row, "branch_share") == 0.0


def signal_words(trend: TrendRow, row: SummaryRow, spec: Mapping[str, Any]) -> str:
    """How gradient and stream come through the blocks at one depth."""
    words = [_gradient_words(_median(row, "grad_ratio"))]
    last = growth_words(trend.metrics, "grad")
    if last != "-":
        words.append(f"the last block's gradient scales as {last}")
    growth = _median(row, "stream_growth")
    if growth is None:
        words.append("the stream overflows")
    elif growth >= _FLAT:
        words.append(f"the stream grows {number(growth)} times from the first block to the last")
    elif growth <= 1.0 / _FLAT:
        words.append(f"the stream shrinks to {number(growth)} of its size by the last block")
    alike = _median(row, "similarity")
    if alike is not None and alike > _ALIKE:
        words.append(f"all {'images' if spec['task'] == 'images' else 'tokens'} look alike (cosine {alike:.4f})")
    return "; ".join(words)


def _gradient_words(back: float | None) -> str:
    if not back:
        return "the gradient of the first or the last block is zero or not finite"
    if back > _FLAT:
        return f"the gradient grows towards the input, {number(back)} times from the last block to the first"
    if back < 1.0 / _FLAT:
        return f"the gradient grows towards the output, {number(1.0 / back)} times from the first block to the last"
    return f"the gradient is flat (first over last block: {number(back)})"


def _trained(cell: Cell) -> bool:
    return cell.recipe.get("outcome") in TRAINED


def _of(count: int, total: int) -> str:
    return f"{count} of {total} seed{'s' * (total > 1)}"


def _stable(row: SummaryRow) -> Bracket:
    return row.metrics["max_stable_lr"].median


def _median(row: SummaryRow, metric: str) -> float | None:
    summary = row.metrics.get(metric)
    return None if summary is None else _middle(summary.median)


def _middle(value: Bracket | None) -> float | None:
    """A measured value; `None` where it was not measured, or lies beyond all numbers."""
    if value is None or value.low is None or value.high is None:
        return None
    return value.low


def _rounded(value: float | None) -> str:
    return "?" if value is None else f"{value:.2g}" if abs(value) >= 0.005 else "0"
