"""What the shocks of a run showed: advice first, then the sign behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.experiments.shock.contrasts import Contrast, contrast, contrasts
from stresstest.experiments.shock.damage import SHARE
from stresstest.experiments.shock.naming import (
    TOLERANCES,
    arm,
    arms_words,
    at_dose,
    chosen,
    is_searched,
    listed,
    median_dose,
    of_shock,
    outcome_words,
    usual,
)
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.experiments.shock.untrained import is_slow, spoilt_by, untrained, without_shock
from stresstest.reports.document import Tone
from stresstest.reports.numbers import failures, loss, loss_unit, lr, times
from stresstest.results.records import Cell, Finding, SummaryRow, interval_rank

_ROUNDING = 1.001  # times
_RARE = 0.9  # coverage of an interval, from which on its ends seldom differ by chance
_LOW = 0.5  # of the peak learning rate: a shock that comes at less says little of the peak


def shock_findings(
    rows: Sequence[SummaryRow], cells: Sequence[Cell], spec: ShockSpec, data: Mapping[str, Any]
) -> list[Finding]:
    """What harms and what does not, which variants take more, what guards do, what was not told, what has no result."""
    return [
        *_harm(rows, spec),
        *_apart(rows, cells, spec),
        *_guards(rows, cells, spec),
        *_off_the_peak(spec),
        *_untrained(cells, spec),
        *_noisy(cells, spec, data),
        *_beyond_the_end(cells, spec),
        *_without_boundary(cells, spec),
        *_not_monotone(cells, spec),
        *failures(cells),
    ]


def beyond_the_end(cell: Cell) -> bool:
    """Whether a run that did not break is not back at its twin when it ends."""
    at_standard = [each for each in cell.shock.get("doses", []) if each["dose"] == cell.shock["dose"]]
    return any(each["recovery_steps"] is None and each["outcome"] != "broke" for each in at_standard)


def is_noisy(cell: Cell) -> bool:
    """Whether its null twins hide scars that would be ones elsewhere."""
    if cell.shock.get("outcome") == "untrained":
        return False
    floor, learned = cell.shock.get("floor"), cell.shock.get("learned")
    return floor is not None and learned is not None and 0.0 < _ROUNDING * SHARE * learned < floor


def apart_words(spec: ShockSpec, rows: Sequence[SummaryRow], cells: Sequence[Cell]) -> str:
    """Of which shocks the seeds tell rows apart, and of which they do not; nothing of one row."""
    if len({arm(row, spec) for row in rows}) == 1 or len(spec.seeds) == 1:
        return ""
    told = {shock: any(each.side for each in _compared(rows, shock, cells)) for shock in spec.shock}
    apart, alike = ([shock for shock, yes in told.items() if yes is wanted] for wanted in (True, False))
    if not apart:
        return f"no shock tells the {arms_words(spec)} apart"
    rest = f", {listed(alike)} not" if alike else ""
    return f"{listed(apart)} tell{'s' * (len(apart) == 1)} {arms_words(spec)} apart{rest}"


def _harm(rows: Sequence[SummaryRow], spec: ShockSpec) -> Iterator[Finding]:
    for shock in spec.shock:
        mine = [row for row in of_shock(rows, shock) if usual(row.outcomes)]
        hurt = [row for row in mine if row.outcomes.keys() & {"scarred", "broke"}]
        if not mine:
            continue
        peaks = {row.point["peak_lr"] for row in mine}
        named = at_dose(spec, parse_shock(shock), peaks.pop()) if len(peaks) == 1 else _without_lr(spec, mine[0])
        if hurt:
            others = [arm(row, spec) for row in mine if row not in hurt]
            harms = "; ".join(f"{arm(row, spec)}: {outcome_words(row.outcomes)}" for row in hurt)
            rest = f"; {listed(others)} recover{'s' * (len(others) == 1)}" if others else ""
            text = f"Guard against {named}: {harms}{rest}."
        else:
            recover = "recovers" if len(mine) == 1 else "recover"
            text = f"Do not fear {named}: {listed([arm(row, spec) for row in mine])} {recover}{_up_to(mine, spec)}."
        yield Finding(kind="shock", subject=shock, text=text)


def _without_lr(spec: ShockSpec, row: SummaryRow) -> str:
    """A pulse at several peak learning rates is a multiple alone."""
    return at_dose(spec, chosen(row), row.point["peak_lr"]).partition(" = ")[0]


def _up_to(rows: Sequence[SummaryRow], spec: ShockSpec) -> str:
    """The dose from which the first of them breaks."""
    shock = chosen(rows[0])
    if not is_searched(shock):
        return ""
    broke = {arm(row, spec): median_dose(row, "break_tolerance").high for row in rows}
    known = {variant: dose for variant, dose in broke.items() if dose is not None}
    if not known:
        return ", and no dose that was tried breaks most seeds"
    first = min(known.values())
    weak = [variant for variant, dose in known.items() if dose == first]
    return f"; from {shock.words(first)} on it breaks most seeds of {listed(weak)}"


def _compared(rows: Sequence[SummaryRow], shock: str, cells: Sequence[Cell]) -> list[Contrast]:
    mine = of_shock(rows, shock)
    names = list(TOLERANCES) if mine and is_searched(chosen(mine[0])) else ["shock_tolerance"]
    return [each for name in names for each in contrasts(mine, name, cells)]


def _apart(rows: Sequence[SummaryRow], cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    """Which variants or sizes take more of a shock than others, over all seeds."""
    alike: list[str] = []
    for shock in spec.shock:
        compared = _compared(rows, shock, cells)
        said = [_more(each, spec, arm(each.other, spec)) for each in compared if each.side]
        if said:
            rest = "" if len(said) == len(compared) else "; the seeds cannot tell the others apart"
            text = f"By {shock}, paired by seed: {'; '.join(said)}{rest}.{_by_chance(spec, len(compared))}"
            yield Finding(kind="apart", subject=shock, text=text)
        elif compared:
            alike.append(shock)
    if alike:
        text = (
            f"Choose no {arms_words(spec).removesuffix('s')} by {listed(alike)}: these seeds cannot tell them apart, "
            "their intervals overlap."
        )
        yield Finding(kind="alike", subject=", ".join(alike), text=text)


def _by_chance(spec: ShockSpec, number: int) -> str:
    """How often so few seeds order two that are alike, of so many that were compared; nothing where that is rare."""
    _, coverage = interval_rank(len(spec.seeds))
    if coverage >= _RARE:
        return ""
    pairs = f"; {number} comparisons were made" if number > 1 else ""
    order = f"{len(spec.seeds)} order two that are alike up to {1 - coverage:.0%} of the time"
    return f" Use 5 seeds or more to rely on it: {order}{pairs}."


def _more(found: Contrast, spec: ShockSpec, other: str = "") -> str:
    """How much more a row takes: `pre-ln takes 4x as much as post-ln without a scar (2x to 8x over seeds)`.

    other: its name; without one it is the same without a guard, and the shock is named.
    """
    who, shock, better = arm(found.row, spec), found.row.point["shock"], found.side > 0
    if found.times is None:
        return f"{who} is harmed {'less' if better else 'more'} {f'than {other}' if other else f'by {shock}'}"
    without = f"without a {TOLERANCES[found.metric].split()[1]}"
    if found.times.median.low is None:
        return f"{who} takes {'more' if better else 'less'} {f'than {other}' if other else shock} {without}"
    much = f" as much {f'as {other}' if other else shock} {without}"
    return f"{who} takes {times(found.times, much)}"


def _guards(rows: Sequence[SummaryRow], cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    advice: Mapping[Tone, str] = {
        "good": "Use",
        "bad": "Beware of",
        "mixed": "Mind",
        "": "Use more seeds, or do without",
    }
    for guard, said, tone in guard_answers(rows, cells, spec):
        yield Finding(kind="guard", subject=guard, text=f"{advice[tone]} {guard}: {said}.")


def guard_answers(
    rows: Sequence[SummaryRow], cells: Sequence[Cell], spec: ShockSpec
) -> Iterator[tuple[str, str, Tone]]:
    """(guard, what it changes of the tolerances, its tone); what every seed says, and what they cannot show."""
    for guard in spec.guard:
        found = [each for shock in spec.shock for each in _with_and_without(rows, shock, guard, cells, spec)]
        better, worse = ([_more(each, spec) for each in found if each.side == side] for side in (1, -1))
        if spoilt := spoilt_by(guard, cells, spec):
            yield guard, f"with it {listed(spoilt)} {'do' if len(spoilt) > 1 else 'does'} not train", "bad"
        elif better or worse:
            tone: Tone = "mixed" if better and worse else "good" if better else "bad"
            yield guard, f"with it {'; '.join((*better, *worse))}", tone
        elif found:
            yield guard, "it makes no difference that these seeds can show", ""


def _with_and_without(
    rows: Sequence[SummaryRow], shock: str, guard: str, cells: Sequence[Cell], spec: ShockSpec
) -> Iterator[Contrast]:
    bare = {arm(row, spec): row for row in of_shock(rows, shock)}
    names = TOLERANCES if is_searched(parse_shock(shock)) else ["shock_tolerance"]
    for row in of_shock(rows, shock, guard):
        pairs = (contrast(row, bare[arm(row, spec)], name, cells) for name in names if arm(row, spec) in bare)
        yield from (each for each in pairs if each is not None)


def _off_the_peak(spec: ShockSpec) -> Iterator[Finding]:
    share = spec.share_of_peak(1)
    if share < _LOW:
        text = (
            f"Use --after {spec.after_of_peak} to see what a shock does near the peak LR: at step {spec.after} the "
            f"schedule has {share:.0%} of it, and little LR does little."
        )
        yield Finding(kind="off-the-peak", subject="", text=text)


def off_the_peak_words(spec: ShockSpec) -> str:
    """That the learning rate is far below its peak when the shock comes; nothing where it is not."""
    share = spec.share_of_peak(1)
    return f"the LR is {share:.0%} of its peak when the shock comes" if share < _LOW else ""


def _untrained(cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    hit = untrained(cells, spec)
    for some in ([cell for cell in hit if is_slow([cell]) is slow] for slow in (True, False)):
        if some:
            subject = ", ".join(dict.fromkeys(arm(cell, spec) for cell in some))
            yield Finding(kind="untrained", subject=subject, text=without_shock(spec, some))


def _noisy(cells: Sequence[Cell], spec: ShockSpec, data: Mapping[str, Any]) -> Iterator[Finding]:
    for variant in dict.fromkeys(arm(cell, spec) for cell in cells if is_noisy(cell)):
        mine = [cell for cell in cells if arm(cell, spec) == variant and is_noisy(cell)]
        floor, peak = max(cell.shock["floor"] or 0.0 for cell in mine), mine[0].shock["peak_lr"]
        text = (
            f"Use a lower {'--peak-lr' if spec.peak_lr else '--lr-share'} for {variant} to see smaller scars: at LR "
            f"{lr(peak)} a lasting damage below {loss(floor, loss_unit(data))} cannot be told from chance."
        )
        yield Finding(kind="noisy", subject=variant, text=text)


def _beyond_the_end(cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    hit = [cell for cell in cells if beyond_the_end(cell)]
    if hit:
        names = list(dict.fromkeys(f"{arm(cell, spec)} {cell.point['shock']}" for cell in hit))
        text = (
            f"Use --train-steps {spec.after + 2 * spec.horizon} or more to see whether {listed(names)} recover: "
            f"{len(hit)} run{'s' * (len(hit) > 1)} did not within {spec.horizon} steps."
        )
        yield Finding(kind="beyond-the-end", subject=", ".join(names), text=text)


def _without_boundary(cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    for cell in cells:
        if "shock" not in cell.point and cell.status == "done" and cell.metrics["max_stable_lr"].low is None:
            text = (
                f"Give --peak-lr for {arm(cell, spec)}: no held LR from {lr(spec.start_lr)} to {lr(spec.end_lr)} "
                f"trained in {spec.hold_steps} steps, and --lr-share needs a boundary."
            )
            yield Finding(kind="no-boundary", subject=arm(cell, spec), text=text)


def _not_monotone(cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    hit = [cell for cell in cells if cell.shock and not cell.shock.get("monotone", True)]
    if hit:
        names = dict.fromkeys(f"{arm(cell, spec)} {cell.point['shock']}" for cell in hit)
        text = (
            f"Stay below the tolerance: a larger dose did less harm in {len(hit)} run{'s' * (len(hit) > 1)} "
            f"({', '.join(names)}), and the tolerance ends at the first dose that harms."
        )
        yield Finding(kind="not-monotone", subject=", ".join(names), text=text)
