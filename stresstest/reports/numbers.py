"""How outcomes, numbers and failures are put in words, everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stresstest.results.metrics import loss_unit as loss_unit  # beside the other words for losses
from stresstest.results.outcome import TRAINED

if TYPE_CHECKING:
    from stresstest.results.records import Bracket, Cell, Finding, MetricSummary

OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        "stable": "trains and keeps what it has learned",
        "spiked": "has a loss spike and recovers",
        "flat": "makes no clear progress and does no harm",
        "relapsed": "loses what it had learned",
        "failed-to-train": "never beats the best constant predictor",
        "exploded": "ends above its initial loss",
        "nonfinite": "becomes NaN or infinite",
    }
)  # what each stored outcome means, after "it"
OUTCOME_MARKS: Mapping[str, str] = MappingProxyType(
    {"spiked": "~", "flat": "-", "failed-to-train": "=", "relapsed": "<", "exploded": "^", "nonfinite": "x"}
)  # in a map; one that is stable has none
HOW_IT_BROKE = {outcome: words for outcome, words in OUTCOMES.items() if outcome not in TRAINED}
NO_DATA: Mapping[str, Any] = MappingProxyType({})  # nothing is known of it: losses are in nats


def loss(value: float, unit: str = "nats") -> str:
    """A loss to four digits with its unit, where that has a name."""
    return with_unit(f"{value:.4g}", unit)


def with_unit(text: str, unit: str) -> str:
    """A number that is written already, with its unit, where that has a name."""
    return f"{text} {unit}" if unit else text


def has_constant(data: Mapping[str, Any]) -> bool:
    """Whether `baseline_loss` is that of the best constant predictor, and not of the start for want of one."""
    return "baseline_loss" in data and bool(data.get("constant_predictor_known", True))


def lr(value: float | None) -> str:
    """A learning rate, as printed everywhere."""
    return "none" if value is None else number(value)


_BEYOND = 1e300  # a number that is only known to be larger is as good as infinite


def bracket(value: Bracket) -> str:
    """The lower side of a bracket; `> low` or `< high` where a side is open."""
    if value.high is None and value.low is not None and value.low > _BEYOND:
        return "inf"
    if value.low is None:
        return "none" if value.high is None else f"< {number(value.high)}"
    return f"> {number(value.low)}" if value.high is None else number(value.low)


def number(value: float) -> str:
    """Two significant digits below 1, three below 100, whole numbers from there on, powers from a million on."""
    if abs(value) >= 1e6:
        return f"{value:.2g}".replace("e+", "e")
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.2g}"


def middle(metric: MetricSummary) -> str:
    """The median over seeds, as printed everywhere."""
    return bracket(metric.median)


def interval(metric: MetricSummary) -> str:
    """The interval over seeds, as printed everywhere."""
    if middle(metric) == "none" and metric.low is None and metric.high is None:
        return "-"  # most seeds lack such a value
    low = "none" if metric.low is None else number(metric.low)
    return f"{low}..{'more' if metric.high is None else number(metric.high)}"


def exponent_words(metric: MetricSummary | None) -> str:
    """The middle of an exponent's bracket with its interval over seeds, e.g. `0.5 (-0.4..1.4)`; - where it is open."""
    if metric is None or metric.median.low is None or metric.median.high is None:
        return "-"
    return f"{number((metric.median.low + metric.median.high) / 2)} ({interval(metric)})"


def seeds(n: int) -> str:
    """How many seeds a statement rests on."""
    return "one seed" if n == 1 else f"median of {n} seeds"


def times(ratio: MetricSummary, than: str = "") -> str:
    """A paired ratio, what it is compared in, and its range over seeds, e.g. `32x as high (16x to 64x over seeds)`."""
    middle = ("" if ratio.median.high is not None else "over ") + f"{ratio.median.low:.3g}x{than}"
    if ratio.low == ratio.high or ratio.low is None:
        return middle
    high = "more" if ratio.high is None else f"{ratio.high:.3g}x"
    return f"{middle} ({ratio.low:.3g}x to {high} over seeds)"


def size_name(size: Mapping[str, Any]) -> str:
    """A size by its settings: "width 512, depth 8"."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size.items())


def cell_name(cell: Any) -> str:
    """Which cell, planned or ended, this is: all that it differs in from others."""
    point = dict(cell.point)
    optimizer, shape = point.pop("optimizer", ""), point.pop("warmup", "")
    words = [cell.variant, optimizer, f"depth {cell.depth}"]
    if "batch_size" in point:
        words.append(f"batch {point.pop('batch_size')}")
    if "warmup_steps" in point:
        kind = "" if shape in ("", "none", "linear") else f"{shape} "
        words.append(f"{point.pop('warmup_steps')} {kind}steps to {number(point.pop('peak_lr'))}")
    for key, value in point.items():
        words.append(f"{key.replace('_', ' ')} {number(value) if isinstance(value, float) else value}")
    return " ".join(filter(None, [*words, f"seed {cell.seed}"]))


def failures(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Cells that have no result, which says nothing about stability."""
    from stresstest.results.records import Finding

    for status, remedy in (
        ("oom", "use a smaller --batch-size or --width, or fewer blocks; it does not mean instability"),
        ("crashed", "its traceback is under errors in the run directory"),
        ("timeout", "raise or drop --cell-timeout"),
    ):
        hit = [cell for cell in cells if cell.status == status]
        if hit:
            why = hit[0].error.splitlines()[-1] if status == "crashed" and hit[0].error else ""
            text = f"{status}: {', '.join(map(cell_name, hit))} has no result; {why}{'; ' * bool(why)}{remedy}."
            yield Finding(kind=status, subject="", text=text)
