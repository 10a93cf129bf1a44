"""The pictures of a race: how each entrant comes to the target, and how many times as fast as the first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from stresstest.experiments.document_parts import beside
from stresstest.experiments.race.findings import entrant
from stresstest.experiments.race.rows import targets_of
from stresstest.experiments.race.spec import RaceSpec
from stresstest.experiments.race.verdicts import target_words
from stresstest.reports.document import PAGE, VERBOSE, Axis, Chart, Point, Series, Tone
from stresstest.reports.forest import ForestRow, forest
from stresstest.reports.numbers import interval, loss_unit, lr, middle
from stresstest.results.records import Bracket, Cell, MetricSummary, Result, SummaryRow


def charts(result: Result) -> Iterator[Chart]:
    """Losses over steps with the steps to the target below, and the ratios."""
    if not result.summary:
        return
    yield _courses(result)
    rows = [_ratio(row, result) for row in result.summary[1:] if "speedup" in row.metrics]
    if rows:
        reference = entrant(result.summary[0], result.spec)
        yield forest(
            f"Times as fast as {reference}",
            Axis(f"times as fast as {reference}, to the target"),
            [row for row in rows if row is not None],
            (reference, 1.0),
            f"Right of the dashed line an entrant needs fewer steps than {reference} to {target_words(result)}: "
            "a circle does over the whole interval (bar) of the ratios seed by seed, a cross needs more, a triangle "
            "cannot be told apart. The dot is their median.",
            "speedup",
        )


def _courses(result: Result) -> Chart:
    most = result.spec["train_steps"]
    cells = {entrant(row, result.spec): _cells(row, result) for row in result.summary}
    steps = Axis("step", log=False, low=0.0, high=float(most))
    medians = [Series(name, median_course(mine)) for name, mine in cells.items()]
    seeds = [
        Series(name, points, kind="seed", notes=(f"seed {cell.seed}",) * len(points))
        for name, mine in cells.items()
        for cell in mine
        if len(mine) > 1 and (points := course(cell))
    ]
    known = [level for level in _targets(result).values() if math.isfinite(level)]
    peaks = ", ".join(f"{entrant(row, result.spec)} at {lr(row.point['peak_lr'])}" for row in result.summary)
    return Chart(
        f"Race to a training loss of {target_words(result)}",
        steps,
        Axis(", ".join(filter(None, ("training loss so far", loss_unit(result.data)))), log=False),
        (*medians, *seeds),
        reference=("target", statistics.median(known)) if known else None,
        below=_arrivals(result, steps),
        caption=(
            f"The line that is first at the dashed target wins. Above, the lowest smoothed training loss so far: thick "
            f"the median over seeds, thin each seed, each entrant at its best peak LR ({peaks}). Below, the step at "
            f"which each seed is at {_own_target(result)}: a cross was not there within {most} steps."
        ),
        name="race",
        formats=(*VERBOSE, *PAGE),
    )


def course(cell: Cell) -> tuple[Point, ...]:
    """(step, level) wherever a run got lower by a hundredth of the constant predictor's loss."""
    return tuple((float(step), level) for step, level in cell.recipe["progress"])


def median_course(cells: Sequence[Cell]) -> tuple[Point, ...]:
    """The median over seeds at each step at which one got lower, from where half of them have a level."""
    courses = [course(cell) for cell in cells]
    found: list[Point] = []
    for step in sorted({step for points in courses for step, _ in points}):
        levels = [min((level for at, level in points if at <= step), default=math.inf) for points in courses]
        found.append((step, statistics.median(levels)))
    return tuple(point for point in found if math.isfinite(point[1]))


def _cells(row: SummaryRow, result: Result) -> list[Cell]:
    """The runs of an entrant at its best peak LR."""
    return [
        cell
        for cell in result.cells
        if cell.status == "done"
        and (cell.variant, cell.point["optimizer"]) == (row.variant, row.optimizer)
        and cell.point["peak_lr"] == row.point["peak_lr"]
    ]


def _targets(result: Result) -> dict[int, float]:
    return targets_of(RaceSpec.model_validate(result.spec), result.cells)


def _own_target(result: Result) -> str:
    if result.spec["target_loss"] is not None:
        return target_words(result)
    levels = sorted(level for level in _targets(result).values() if math.isfinite(level))
    ends = f", {levels[0]:.4g} to {levels[-1]:.4g}" if len(levels) > 1 else ""
    return f"its own target (what {entrant(result.summary[0], result.spec)} ends with in that seed{ends})"


def _arrivals(result: Result, steps: Axis) -> Chart:
    """The steps to the target of each seed, a row an entrant."""
    names = [entrant(row, result.spec) for row in result.summary]
    dots = []
    for place, (name, row) in enumerate(zip(names, result.summary, strict=True)):
        metric = row.metrics.get("steps_to_target")
        if metric is not None:
            dots.append(_arrived(name, metric, place))
    return Chart("Steps to the target", steps, Axis("", names=tuple(names)), tuple(dots))


def _arrived(name: str, metric: MetricSummary, place: int) -> Series:
    known = {seed: value for seed, value in metric.per_seed.items() if value.low is not None}
    tones: tuple[Tone, ...] = tuple("bad" if value.high is None else "" for value in known.values())
    return Series(
        name,
        tuple((value.low or 0.0, beside(place, i, len(known))) for i, value in enumerate(known.values())),
        kind="dots",
        tones=tones,
        notes=tuple(f"seed {seed}, {_arrival(value)}" for seed, value in known.items()),
    )


def _arrival(value: Bracket) -> str:
    return f"not there in {value.low:.0f} steps" if value.high is None else f"there at step {value.low:.0f}"


def _ratio(row: SummaryRow, result: Result) -> ForestRow | None:
    speedup = row.metrics["speedup"]
    at = speedup.median.low if speedup.median.low is not None else speedup.median.high
    if at is None:
        return None
    tone: Tone = "mixed"
    if speedup.low is not None and speedup.low > 1.0:
        tone = "good"
    elif speedup.high is not None and speedup.high < 1.0:
        tone = "bad"
    note = f"{middle(speedup)} ({interval(speedup)}), {speedup.n} seed{'s' * (speedup.n > 1)}"
    return ForestRow(entrant(row, result.spec), at, speedup.low, speedup.high, tone, note)
