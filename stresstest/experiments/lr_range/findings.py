"""What an LR range test found."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.experiments.break_findings import look_closer, why
from stresstest.experiments.untrained_findings import never_trained, only_flat, too_little_to_learn
from stresstest.reports.numbers import HOW_IT_BROKE, NO_DATA, failures, lr, number, seeds, times
from stresstest.results.records import TRAINED, Cell, Finding, MetricSummary, SummaryRow

_FAR_FROM_THEORY = 4.0  # the hold's boundary beside predicted_lr: worth a sentence
_FLATTERED = 4.0  # ramp onset above the hold's boundary by this factor: worth a sentence


def lr_range_findings(
    rows: Sequence[SummaryRow], cells: Sequence[Cell], spec: Mapping[str, Any], data: Mapping[str, Any] = NO_DATA
) -> list[Finding]:
    """All findings of an LR range test, the most important first; `data` says in which unit its losses are."""
    every, done = by_variant(cells), done_by_variant(cells)
    ranked = [row for row in rows if _stable(row).median.low is not None]
    broken = [row for row in reversed(ranked[1:]) if _stable(row).median.high is not None]
    outcomes = {row.variant: first_break(done[row.variant]) for row in broken}
    findings = [*_extremes(ranked, done), *(_breaking(row, ranked, done, outcomes[row.variant]) for row in broken)]
    findings += _flattering_ramps(ranked)
    findings += _beside_theory(ranked, spec)
    findings += _plateaus(outcomes, spec)
    findings += _without_onset(rows, done)
    for row in rows:
        findings += _about(row, done[row.variant], spec, data)
        findings += why(row.variant, every[row.variant], cells)
    findings += look_closer(findings, cells)
    findings += failures(cells)
    return findings


def by_variant(cells: Sequence[Cell]) -> Mapping[str, list[Cell]]:
    """The cells of each variant, in their order; none of a variant that has none."""
    found: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        found[cell.variant].append(cell)
    return found


def done_by_variant(cells: Sequence[Cell]) -> Mapping[str, list[Cell]]:
    """Those that have a result."""
    return by_variant([cell for cell in cells if cell.status == "done"])


def _stable(row: SummaryRow) -> MetricSummary:
    return row.metrics["max_stable_lr"]


def _extremes(ranked: Sequence[SummaryRow], done: Mapping[str, Sequence[Cell]]) -> Iterator[Finding]:
    if not ranked:
        return
    best = ranked[0]
    text = f"{best.variant} holds the highest learning rate: {_boundary(best, done[best.variant])}"
    if len(ranked) > 1 and best.times_weakest is not None:
        text += f", {times(best.times_weakest)} that of {ranked[-1].variant}"
    yield Finding(kind="highest", subject=best.variant, text=text + ".")


def _boundary(row: SummaryRow, done: Sequence[Cell]) -> str:
    metric = _stable(row)
    if metric.median.high is None:
        return f"at least {lr(metric.median.low)}, the top of the range"
    below, above = ("does no harm", "breaks it") if flat_at_boundary(done) else ("trains", "does not")
    return f"{lr(metric.median.low)} {below}, {lr(metric.median.high)} {above} ({seeds(metric.n)})"


def flat_at_boundary(done: Sequence[Cell]) -> bool:
    """Whether the largest LR that did not break a variant brought nothing, in most seeds."""
    mine = [cell for cell in done if cell.metrics["max_stable_lr"].low is not None]
    return 2 * sum(map(_ends_flat, mine)) > len(mine)


def _ends_flat(cell: Cell) -> bool:
    last = cell.metrics["max_stable_lr"].low
    return any(trial["outcome"] == "flat" for trial in cell.hold if trial["lr"] == last)


def _breaking(
    row: SummaryRow, ranked: Sequence[SummaryRow], done: Mapping[str, Sequence[Cell]], outcome: str
) -> Finding:
    boundary = _boundary(row, done[row.variant])
    how = f"{HOW_IT_BROKE[outcome]} ({outcome})" if outcome in HOW_IT_BROKE else "breaks"
    text = f"{row.variant}: {boundary}; above that, it {how}."
    if row is ranked[-1] and ranked[0].times_weakest is not None:
        text = f"{row.variant} breaks first: {boundary}; above that, it {how}. "
        text += f"A warm-up may help; {ranked[0].variant} tolerates a learning rate "
        text += f"{times(ranked[0].times_weakest, ' as high')}."
    return Finding(kind="boundary", subject=row.variant, text=text)


def _plateaus(outcomes: Mapping[str, str], spec: Mapping[str, Any]) -> Iterator[Finding]:
    stuck = [variant for variant, outcome in outcomes.items() if outcome == "failed-to-train"]
    if stuck:
        text = (
            f"{', '.join(stuck)}: just above the boundary the loss stays at the constant predictor's for all "
            f"{spec['hold_steps']} steps; raise --hold-steps to tell a slow plateau from a collapse."
        )
        yield Finding(kind="plateau", subject=",".join(stuck), text=text)


def first_break(done: Sequence[Cell]) -> str:
    """The commonest outcome of a variant's first held LR that did not train; empty where all did."""
    outcomes = []
    for cell in done:
        first = cell.metrics["max_stable_lr"].high
        outcomes += [trial["outcome"] for trial in cell.hold if trial["lr"] == first]
    return statistics.mode(outcomes) if outcomes else ""


def _about(
    row: SummaryRow, done: Sequence[Cell], spec: Mapping[str, Any], data: Mapping[str, Any]
) -> Iterator[Finding]:
    yield from never_trained(row.variant, done, spec, data)
    yield from too_little_to_learn(row.variant, done, spec, data)
    yield from _oddities(row, done)


def _without_onset(rows: Sequence[SummaryRow], done: Mapping[str, Sequence[Cell]]) -> Iterator[Finding]:
    """Variants that trained at a held LR, and learned nothing on the ramp in some seeds."""
    found: dict[str, str] = {}
    for row in rows:
        mine = done[row.variant]
        unlearned = [cell for cell in mine if not cell.ramp["learned"] and not only_flat(cell)]
        if unlearned and all(cell.metrics["max_stable_lr"].low is not None for cell in mine):
            found[row.variant] = f"{row.variant} in {len(unlearned)} of {len(mine)} seeds"
    if found:
        text = (
            f"No onset_lr for {', '.join(found.values())}: nothing was learned on the ramp. max_stable_lr comes from "
            "the hold and is not affected; a slower ramp (--num-steps) may show an onset."
        )
        yield Finding(kind="no-onset", subject=",".join(found), text=text)


def _flattering_ramps(ranked: Sequence[SummaryRow]) -> Iterator[Finding]:
    factors = {}
    for row in ranked:
        onset, stable = row.metrics.get("onset_lr"), _stable(row)
        if onset is not None and onset.median.low is not None and stable.median.low is not None:
            factors[row.variant] = onset.median.low / stable.median.low
    flattered = {variant: factor for variant, factor in factors.items() if factor >= _FLATTERED}
    if flattered:
        each = ", ".join(f"{variant} {factor:.2g} times" for variant, factor in flattered.items())
        text = (
            f"Try a warm-up: the ramp's onset_lr is above the hold's max_stable_lr ({each}), and the early part of a "
            "ramp works as a warm-up."
        )
        yield Finding(kind="ramp-flatters", subject=",".join(flattered), text=text)


def _beside_theory(ranked: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Where the curvature's prediction and the hold are far apart, with the usual cause."""
    factors: dict[str, float] = {}
    for row in ranked:
        predicted, stable = row.metrics.get("predicted_lr"), _stable(row)
        if predicted is not None and predicted.median.low and stable.median.low:
            factors[row.variant] = stable.median.low / predicted.median.low
    above = {variant: factor for variant, factor in factors.items() if factor >= _FAR_FROM_THEORY}
    below = {variant: 1.0 / factor for variant, factor in factors.items() if factor <= 1.0 / _FAR_FROM_THEORY}
    if above:
        cause = (
            "at initialisation the optimizer divides by one batch's gradients, which are tiny for many parameters; "
            "that, and so the prediction, changes within the first steps"
            if OPTIMIZERS[spec["optimizer"].partition(":")[0]].adaptive
            else "training survives a start above the threshold: the sharpness falls as the loss jumps (a catapult)"
        )
        yield Finding(kind="above-theory", subject=",".join(above), text=_apart(above, "above", cause))
    if below:
        cause = "the sharpness grows in training (progressive sharpening), or the noise of small batches breaks it"
        yield Finding(kind="below-theory", subject=",".join(below), text=_apart(below, "below", cause))


def _apart(factors: Mapping[str, float], side: str, cause: str) -> str:
    each = ", ".join(f"{variant} {number(factor)} times" for variant, factor in factors.items())
    return f"max_stable_lr is {side} predicted_lr (curvature at initialisation): {each}. The usual cause: {cause}."


def _same_runs(row: SummaryRow, done: Sequence[Cell]) -> Iterator[Finding]:
    """Held LRs whose runs are one and the same: the LR did not set the optimizer's step."""
    found = [same for cell in done if (same := _bit_equal(cell.hold))]
    if found:
        low, high = min(map(min, found)), max(map(max, found))
        text = (
            f"{row.variant}: runs held at {lr(low)} and {lr(high)} end bit-equal ({len(found)} of {len(done)} seeds): "
            "there the LR does not set the optimizer's step, so a boundary in that range does not measure the LR."
        )
        yield Finding(kind="same-runs", subject=row.variant, text=text)


def _bit_equal(held: Sequence[Mapping[str, Any]]) -> list[float]:
    """The held LRs of one seed that ended with the same losses as another."""
    lrs: dict[tuple[Any, ...], list[float]] = {}
    for trial in held:
        ends = tuple(trial.get(name) for name in ("best_loss", "last_loss", "validation_loss"))
        if trial["outcome"] in TRAINED and None not in ends:
            lrs.setdefault(ends, []).append(trial["lr"])
    return [value for same in lrs.values() if len(same) > 1 for value in same]


def _oddities(row: SummaryRow, done: Sequence[Cell]) -> Iterator[Finding]:
    yield from _same_runs(row, done)
    odd = [str(cell.seed) for cell in done if not cell.ramp["hold_monotone"]]
    if odd:
        text = (
            f"{row.variant}: stability is not monotone in the LR for seed {', '.join(odd)}; "
            "max_stable_lr is the last LR below the first break."
        )
        yield Finding(kind="not-monotone", subject=row.variant, text=text)
    clipped = [cell.ramp["clip_fraction"] for cell in done]
    if any(clipped):
        share = f"{max(clipped):.0%}"
        text = f"{row.variant}: gradients were clipped in {share} of the ramp's steps; clipping hides instability."
        yield Finding(kind="clipped", subject=row.variant, text=text)
    skipped = sum(cell.ramp["skipped_steps"] for cell in done)
    if skipped:
        text = f"{row.variant}: the loss scaler skipped {skipped} steps whose float16 gradients overflowed."
        yield Finding(kind="skipped", subject=row.variant, text=text)
