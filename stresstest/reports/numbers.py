"""How numbers and failures are put in words, everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from stresstest.results.records import Bracket, Cell, Finding, MetricSummary

HOW_IT_BROKE = {
    "failed-to-train": "never beats the best constant predictor",
    "relapsed": "gives back what it had learned",
    "exploded": "explodes",
    "nonfinite": "becomes non-finite",
    "flat": "neither learns nor loses what it starts with",
}
NO_DATA: Mapping[str, Any] = MappingProxyType({})  # nothing is known of it: losses are in nats


def loss_unit(data: Mapping[str, Any]) -> str:
    """The unit of a result's losses: "nats" of a likelihood, or nothing where the loss has a unit of its own."""
    return str(data.get("loss_unit", "nats"))


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
        return "-"  # in most seeds there is no such value
    low = "none" if metric.low is None else number(metric.low)
    return f"{low}..{'more' if metric.high is None else number(metric.high)}"


def seeds(n: int) -> str:
    """How many seeds a statement rests on."""
    return "one seed" if n == 1 else f"median of {n} seeds"


def times(ratio: MetricSummary) -> str:
    """A paired ratio with its range over seeds, e.g. `32x (16x to 64x)`."""
    middle = ("" if ratio.median.high is not None else "over ") + f"{ratio.median.low:.3g}x"
    if ratio.low == ratio.high or ratio.low is None:
        return middle
    high = "more" if ratio.high is None else f"{ratio.high:.3g}x"
    return f"{middle} ({ratio.low:.3g}x to {high} over seeds)"


def cell_name(cell: Any) -> str:
    """Which cell, planned or ended, this is."""
    point = cell.point
    batch = f" batch {point['batch_size']}" if "batch_size" in point else ""
    where = f" {point['warmup_steps']} steps to {number(point['peak_lr'])}" if point else ""
    return f"{cell.variant} depth {cell.depth}{batch}{where} seed {cell.seed}"


def failures(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Cells that have no result, which says nothing about stability."""
    for status, remedy in (
        ("oom", "use a smaller --batch-size or --width, or fewer blocks; this says nothing about stability"),
        ("crashed", "its traceback is under errors in the run directory"),
        ("timeout", "give it more time"),
    ):
        hit = [cell for cell in cells if cell.status == status]
        if hit:
            why = hit[0].error.splitlines()[-1] if status == "crashed" and hit[0].error else ""
            text = f"{status}: {', '.join(map(cell_name, hit))} has no result; {why}{'; ' * bool(why)}{remedy}."
            yield Finding(kind=status, subject="", text=text)
