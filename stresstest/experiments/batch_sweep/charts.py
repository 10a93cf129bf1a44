"""The pictures of a sweep over batch sizes: steps to a target, the loss at equal tokens, and the best LR."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from stresstest.experiments.arms import Arm
from stresstest.experiments.batch_sweep.rows import GIVEN_AWAY, arm_of
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.contest_document import row_name
from stresstest.experiments.race.rows import steps_to
from stresstest.reports.document import PAGE, VERBOSE, Axis, Chart, Point, Series, Tone
from stresstest.reports.numbers import loss_unit, number, with_unit
from stresstest.results.records import Bracket, MetricSummary, Result, SummaryRow, TrendRow, summarise

_BATCH = "batch size"
_ROOM = 1.12  # times, beyond the smallest and the largest batch
_FORMATS = (*VERBOSE, *PAGE)
Arms = Mapping[int, Arm]  # by batch size
Steps = Mapping[int, MetricSummary]


def charts(result: Result) -> Iterator[Chart]:
    """Steps to the target with the loss at equal tokens below, and the best LR."""
    spec = BatchSweepSpec.model_validate(result.spec)
    if not result.trends or len(spec.batch_sizes) == 1:
        return
    arms = [_arms(spec, trend, result) for trend in result.trends]
    target = target_of(arms)
    if target is None:
        yield _losses(result, _sizes(spec))
    else:
        yield _steps([steps_over_batch(spec, mine, target) for mine in arms], target, spec, result)
    yield _best_lrs(arms, spec, result)


def _sizes(spec: BatchSweepSpec) -> Axis:
    sizes = tuple(map(float, spec.batch_sizes))
    return Axis(_BATCH, low=sizes[0] / _ROOM, high=sizes[-1] * _ROOM, ticks=sizes)


def _arms(spec: BatchSweepSpec, trend: TrendRow, result: Result) -> dict[int, Arm]:
    found = {size: arm_of(spec, result.cells, trend.variant, trend.optimizer, size) for size in spec.batch_sizes}
    return {size: arm for size, arm in found.items() if arm.seeds}


def target_of(arms: Sequence[Arms]) -> float | None:
    """The lowest training loss that every batch size comes to at its end: where most seeds train, the median over them.

    `None` where no batch trains, or the courses of the runs are not known.
    """
    found = []
    for arm in (arm for mine in arms for arm in mine.values()):
        if any("progress" not in cell.recipe for by_seed in arm.cells.values() for cell in by_seed.values()):
            return None
        ends = [_end(arm, lr) for lr in arm.lrs if 2 * sum(arm.trained(0, lr, s) for s in arm.seeds) > len(arm.seeds)]
        found += [min(ends)] if ends else []
    return max(found, default=None)


def _end(arm: Arm, lr: float) -> float:
    courses = [arm.cells[0, lr][seed].recipe["progress"] for seed in arm.seeds]
    return statistics.median(course[-1][1] if course else math.inf for course in courses)


def steps_over_batch(spec: BatchSweepSpec, arms: Arms, target: float) -> Steps:
    """The steps to the target by batch size, each at the LR whose median over seeds is soonest there."""
    found = {}
    for size, arm in arms.items():
        by_lr = [
            summarise(
                "steps_to_target", {s: steps_to(arm.cells[0, lr][s], target, spec.steps(size)) for s in arm.seeds}
            )
            for lr in arm.lrs
        ]
        found[size] = min(by_lr, key=lambda each: (each.median.high is None, each.median.high or 0.0, each.censored))
    return found


def _steps(found: Sequence[Steps], target: float, spec: BatchSweepSpec, result: Result) -> Chart:
    names = [row_name(trend, result) for trend in result.trends]
    series = [part for name, steps in zip(names, found, strict=True) for part in _of_optimizer(name, steps)]
    anchor = next((each.points[0] for each in series if each.kind == "line" and each.points), None)
    ys = [y for each in series for _, y in each.points]
    words = with_unit(f"{target:.4g}", loss_unit(result.data))
    slopes = {"perfect scaling: steps ~ 1/batch": -1.0, "steps ~ 1/sqrt(batch)": -0.5}
    guides = [_guide(name, anchor, spec, power) for name, power in slopes.items()] if anchor else []
    return Chart(
        f"Steps to a training loss of {words} over the batch size",
        _sizes(spec),
        Axis(f"steps to {words}"),
        (*series, *guides, *_limits(result, min(ys), max(ys))),
        below=_losses(result, _sizes(spec)),
        caption=(
            "Raise the batch size as long as the line falls along perfect scaling. Beyond the dashed upright line a "
            f"batch gives away over {GIVEN_AWAY:.0%} of what the smallest learns at equal tokens. Target: {words}, the "
            "lowest training loss that every batch comes to; each at the LR that is soonest there, a dot a seed, a "
            "cross one that was not there when its tokens were spent. Below, the lowest held-out loss at equal tokens."
        ),
        name="steps-over-batch",
        formats=_FORMATS,
    )


def _of_optimizer(name: str, steps: Steps) -> Iterator[Series]:
    medians = [(float(size), metric.median.high) for size, metric in steps.items()]
    yield Series(name, tuple((size, max(1.0, end)) for size, end in medians if end is not None))
    dots = [(float(size), seed, value) for size, metric in steps.items() for seed, value in metric.per_seed.items()]
    known = [(size, seed, value) for size, seed, value in dots if value.low is not None]
    tones: tuple[Tone, ...] = tuple("bad" if value.high is None else "" for _, _, value in known)
    yield Series(
        name,
        tuple((size, max(1.0, value.low or 0.0)) for size, _, value in known),
        kind="dots",
        tones=tones,
        notes=tuple(f"seed {seed}, {_arrival(value)}" for _, seed, value in known),
    )


def _arrival(value: Bracket) -> str:
    return f"not there in {value.low:.0f} steps" if value.high is None else f"there at step {value.low:.0f}"


def _guide(name: str, anchor: Point, spec: BatchSweepSpec, power: float) -> Series:
    """A slope through the smallest batch's place."""
    size, value = anchor
    return Series(name, tuple((float(b), value * (b / size) ** power) for b in spec.batch_sizes), kind="guide")


def _limits(result: Result, low: float, high: float) -> Iterator[Series]:
    """An upright line at each batch size up to which optimizers scale."""
    ends: dict[float, list[str]] = {}
    for trend in result.trends:
        limit = trend.metrics.get("scaling_batch")
        if limit is not None and limit.median.low is not None and limit.median.high is not None:
            ends.setdefault(limit.median.low, []).append(row_name(trend, result))
    for at, names in ends.items():
        words = f"{' and '.join(names)} scale{'s' * (len(names) == 1)} up to {number(at)}"
        yield Series(words, ((at, low), (at, high)), kind="guide")


def _losses(result: Result, sizes: Axis) -> Chart:
    """The lowest loss at equal tokens, over the peak LRs."""
    series: list[Series] = []
    for trend in result.trends:
        mine = [(float(row.point["batch_size"]), row.metrics["validation_loss"]) for row in _rows(trend, result)]
        seeds = [(size, seed, value.low) for size, metric in mine for seed, value in metric.per_seed.items()]
        known = [(size, seed, low) for size, seed, low in seeds if low is not None]
        name = row_name(trend, result)
        middles = ((size, metric.median.low) for size, metric in mine)
        series.append(Series(name, tuple((size, low) for size, low in middles if low is not None)))
        series.append(
            Series(
                name,
                tuple((size, low) for size, _, low in known),
                kind="dots",
                notes=tuple(f"seed {seed}" for _, seed, _ in known),
            )
        )
    return Chart(
        "Lowest loss at equal tokens",
        sizes,
        Axis(", ".join(filter(None, ("held-out loss", loss_unit(result.data)))), log=False),
        tuple(series),
        name="loss-over-batch",
        formats=_FORMATS,
    )


def _best_lrs(arms: Sequence[Arms], spec: BatchSweepSpec, result: Result) -> Chart:
    series: list[Series] = []
    for trend, by_size in zip(result.trends, arms, strict=True):
        name = row_name(trend, result)
        best = [(float(row.point["batch_size"]), float(row.point["peak_lr"])) for row in _rows(trend, result)]
        series += [Series(name, tuple(best)), _seeds_best(name, by_size)]
    anchor = next(each.points[0] for each in series if each.points)
    return Chart(
        "Best peak LR over the batch size",
        _sizes(spec),
        Axis("best peak LR"),
        (*series, _guide("LR ~ sqrt(batch)", anchor, spec, 0.5), _guide("LR ~ batch", anchor, spec, 1.0)),
        caption=(
            "Scale the LR by the dashed slope that the line follows: the LR with the lowest median loss. Dots are "
            f"each seed's; a triangle lies at an end of the grid ({number(spec.start_lr)} to {number(spec.end_lr)} "
            f"at batch {spec.batch_sizes[0]}, {spec.lr_scaling} scaling), so that a better LR may lie beyond it."
        ),
        name="lr-over-batch",
        formats=_FORMATS,
    )


def _rows(trend: TrendRow, result: Result) -> list[SummaryRow]:
    """Of one variant and optimizer, by batch size."""
    which = (trend.variant, trend.optimizer)
    return [row for row in result.summary if (row.variant, row.optimizer) == which]


def _seeds_best(name: str, by_size: Arms) -> Series:
    """Each seed's own best LR; one that is an end of the grid has a tone."""
    found: list[tuple[float, float, int, bool]] = []
    for size, arm in by_size.items():
        for seed in arm.seeds:
            best = min(arm.lrs, key=lambda lr, arm=arm, seed=seed: arm.loss(0, lr, seed))  # type: ignore[misc]  # its default
            found.append((float(size), best, seed, len(arm.lrs) > 1 and best in (arm.lrs[0], arm.lrs[-1])))
    tones: tuple[Tone, ...] = tuple("mixed" if at_end else "" for *_, at_end in found)
    return Series(
        name,
        tuple((size, best) for size, best, _, _ in found),
        kind="dots",
        tones=tones,
        notes=tuple(f"seed {seed}{', an end of the grid' * at_end}" for _, _, seed, at_end in found),
    )
