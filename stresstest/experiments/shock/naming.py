"""How shocks, their doses and what became of a run are put in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import ChosenShock, parse_shock
from stresstest.experiments.sizes.path import NAMES
from stresstest.reports.document import Tone
from stresstest.reports.numbers import lr, number
from stresstest.results.records import Bracket, Cell, MetricSummary, SummaryRow

_GROWS = {name: axis for axis, name in NAMES.items()}  # the setting of a run, by its name in a selector
HARM: tuple[str, ...] = ("recovered", "scarred", "broke")  # what becomes of a run, the least harm first
SURVIVAL_TONES: Mapping[str, Tone] = {"recovered": "good", "scarred": "mixed", "broke": "bad", "untrained": "dull"}
_ROUNDING = 1.0 + 1e-9  # times
TOLERANCES: Mapping[str, str] = {"shock_tolerance": "no scar up to", "break_tolerance": "no break up to"}


def size_of(each: SummaryRow | Cell) -> tuple[tuple[str, Any], ...]:
    """Depth, and what else grows along a path of sizes."""
    beside = ((name, value) for name, value in each.point.items() if name not in ("shock", "guard", "peak_lr"))
    return (("depth", each.depth), *beside)


def arm(each: SummaryRow | Cell, spec: ShockSpec) -> str:
    """What is compared, as a table names it: the variant, and along a path of sizes its size."""
    sizes = [f"{name.replace('_', ' ')} {value}" for name, value in size_of(each) if _GROWS.get(name) in spec.path]
    return " ".join((each.variant, *sizes))


def arms_words(spec: ShockSpec) -> str:
    """What the rows of a shock are called: `variants`, or along a path `sizes`."""
    return "sizes" if spec.path else "variants"


def guard_of(row: SummaryRow) -> str:
    """The guard of a row; empty without one."""
    return str(row.point.get("guard", ""))


def is_searched(shock: ChosenShock) -> bool:
    """Whether the largest dose that a run takes was looked for."""
    return shock.only is None and not shock.shock.dose.is_switch


def standard_dose(spec: ShockSpec, shock: ChosenShock) -> float:
    """The dose at which the damage of all runs is compared: the given or the usual one, or the largest that fits."""
    doses = spec.doses(shock)
    asked = shock.shock.dose.standard if shock.only is None else shock.only
    return asked if asked in doses else doses[-1]


def dose_number(shock: ChosenShock, dose: float) -> str:
    """The same where its unit is clear: `8x`, `4`."""
    return shock.words(dose) if shock.shock.dose.unit == "x" else number(dose)


def dose_and_lr(spec: ShockSpec, shock: ChosenShock, dose: float, peak_lr: float) -> str:
    """The same, of a pulse with the learning rate that it comes to: `8x = LR 0.5`."""
    words = shock.words(dose)
    if shock.shock.name != "lr-pulse":
        return words
    return f"{words} = LR {lr(dose * peak_lr * spec.share_of_peak(shock.lasts(dose)))}"


def at_dose(spec: ShockSpec, shock: ChosenShock, peak_lr: float) -> str:
    """A shock at its standard dose: `lr-pulse of 8x = LR 0.5`, `lr-pulse:factor=8 = LR 0.5`, `lost-moments`."""
    words = dose_and_lr(spec, shock, standard_dose(spec, shock), peak_lr)
    if shock.only is not None:
        return f"{shock.label}{words.removeprefix(shock.words(shock.only))}"
    return f"{shock.label} of {words}" if words else shock.label


def median_dose(row: SummaryRow, metric: str) -> Bracket:
    """The median over seeds of a tolerance, at doses that were tried: of an even number it may lie between two."""
    value, tried = row.metrics[metric].median, chosen(row).shock.dose.tried
    low = None if value.low is None else max(dose for dose in tried if dose <= value.low * _ROUNDING)
    high = None if value.high is None else min(dose for dose in tried if dose >= value.high / _ROUNDING)
    return Bracket(low=low, high=high)


def bracket_words(value: Bracket, words: Callable[[float], str]) -> str:
    """The largest dose that is taken; `> 64 steps` where all that were tried are, `< 2x` where none is."""
    if value.low is None:
        return "-" if value.high is None else f"< {words(value.high)}"
    return f"> {words(value.low)}" if value.high is None else words(value.low)


def tolerance_interval(metric: MetricSummary, words: Callable[[float], str]) -> str:
    """The interval over seeds of the last dose that was taken and the first that was not; of one seed nothing."""
    if metric.n == 1:
        return ""
    low = "none" if metric.low is None else words(metric.low)
    return f"{low}..{'more' if metric.high is None else words(metric.high)}"


def outcome_words(outcomes: Mapping[str, int]) -> str:
    """What became of the seeds, the worst first: `2 broke, 1 scarred`."""
    known = sorted(outcomes, key=_rank, reverse=True)
    return ", ".join(f"{outcomes[name]} {name}" for name in known)


def outcome_tone(outcomes: Mapping[str, int]) -> Tone:
    """Good where every seed recovers, bad where most break, dull where none trained."""
    whole, broke = sum(outcomes.values()), outcomes.get("broke", 0)
    if outcomes.get("untrained", 0) == whole:
        return "dull"
    if 2 * broke > whole:
        return "bad"
    return "good" if outcomes.get("recovered", 0) == whole else "mixed"


def usual(outcomes: Mapping[str, int]) -> str:
    """What became of most seeds that trained, of the worse where as many did; empty where none trained."""
    told = [name for name in outcomes if name in HARM]
    return max(told, key=lambda name: (outcomes[name], _rank(name)), default="")


def of_shock(rows: Sequence[SummaryRow], shock: str, guard: str = "") -> list[SummaryRow]:
    """The rows of a shock with a guard, or without any."""
    return [row for row in rows if (row.point["shock"], guard_of(row)) == (shock, guard)]


def cells_of(row: SummaryRow, cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a row that have a result."""
    key = (row.variant, row.depth, row.point)
    return [cell for cell in cells if cell.status == "done" and (cell.variant, cell.depth, cell.point) == key]


def listed(names: Sequence[str]) -> str:
    """Names in a row: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def chosen(row: SummaryRow) -> ChosenShock:
    """The shock of a row."""
    return parse_shock(row.point["shock"])


def _rank(outcome: str) -> int:
    return HARM.index(outcome) if outcome in HARM else -1
