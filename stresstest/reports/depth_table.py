"""The columns of a depth sweep's tables, for every format: what was measured decides which there are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from stresstest.experiments.depth_sweep.findings import growth_words, why_failed
from stresstest.reports.numbers import HOW_IT_BROKE, bracket, interval, middle, number
from stresstest.reports.words import loss_format
from stresstest.results.records import (
    TRAINED,
    Bracket,
    Cell,
    MetricSummary,
    Result,
    SummaryRow,
    TrendRow,
    interval_rank,
    summarise,
)

_BLOCKS = "▁▂▃▄▅▆▇█"


class Column(NamedTuple):
    """A header in one or two lines, a row's text, and its class on a page."""

    header: str
    text: Callable[[SummaryRow], str]
    wide: bool = False  # left out where there is little room
    css: Callable[[SummaryRow], str] = lambda row: ""


def main_columns(result: Result) -> list[Column]:
    """What was trained at each depth; at initialisation alone, how signal and gradient come through."""
    if result.spec["init_only"]:
        return signal_columns()
    metrics = {name for row in result.summary for name in row.metrics}
    columns = []
    if "recipe_loss" in metrics or "steps_to_target" in metrics:
        columns += [
            Column(
                "fixed\nrecipe",
                lambda row: _outcome(row, result)[1],
                css=lambda row: "trains" if _outcome(row, result)[0] else "fails",
            ),
            Column("steps to\ntarget", _value("steps_to_target")),
            Column("recipe\nloss", _value("recipe_loss")),
        ]
    if "max_stable_lr" in metrics:
        columns.append(Column("max stable lr", _with_interval("max_stable_lr")))
    if "explosion_lr" in metrics:
        columns += [
            Column("onset\nlr", _value("onset_lr")),
            Column("explosion\nlr", _value("explosion_lr"), wide=True),
        ]
    if "seconds_per_step" in metrics:
        columns.append(Column("ms per\nstep", lambda row: _scaled(row, "seconds_per_step", 1e3)))
    if "peak_bytes" in metrics:
        columns.append(Column("peak\nMiB", lambda row: _scaled(row, "peak_bytes", 2.0**-20), wide=True))
    if "grad_ratio" in metrics:
        columns.append(Column("gradient\n1st/last", _value("grad_ratio")))
    if "stream_growth" in metrics:
        columns.append(Column("stream\ngrowth", _value("stream_growth"), wide=True))
    return columns


def signal_columns() -> list[Column]:
    """Signal propagation at initialisation."""
    return [
        Column("gradient\n1st/last", _value("grad_ratio")),
        Column("mean abs\n1st/last", _value("grad_mismatch"), wide=True),
        Column("decades /\n100 blocks", _value("grad_slope"), wide=True),
        Column("gradient\nlast", _value("grad_last")),
        Column("stream\ngrowth", _value("stream_growth")),
        Column("branch\nshare", _value("branch_share"), wide=True),
        Column("simi-\nlarity", _cosine),
        Column("Jacobian\nmean sq", _value("jacobian_mean_square")),
        Column("Jacobian\ncondition", _value("jacobian_condition"), wide=True),
    ]


def legend(result: Result) -> str:
    """What the columns mean."""
    spec = result.spec
    sentences = [f"Medians over {len(spec['seeds'])} seeds." if len(spec["seeds"]) > 1 else "One seed."]
    metrics = {name for row in result.summary for name in row.metrics}
    if "steps_to_target" in metrics:
        target = next(cell.recipe["target_loss"] for cell in result.cells if cell.recipe)
        sentences.append(
            f"Fixed recipe: seeds that train, or the commonest outcome of those that do not{_outcomes_words(result)}; "
            f"target: a loss of {loss_format(result)(target)}; recipe loss: on held-out data, of runs that "
            f"reached the end."
        )
    if "max_stable_lr" in metrics:
        sentences.append(
            f"max_stable_lr: the last constant LR that trained; the first that did not is one "
            f"{spec['hold_resolution']} higher; in brackets: {_interval_words(result)}."
        )
    if "grad_ratio" in metrics:
        sentences.append(
            "Gradient: Frobenius norm of the mean gradient of a block's last matrix at initialisation, first block "
            "over last. Stream growth: RMS of the stream after the last block over the one before the first."
        )
    if "encoder_grad_ratio" in metrics:
        sentences.append(
            f"The columns describe the decoder. Curves count the blocks of both stacks, the encoder's first: depth "
            f"{spec['depths'][-1]} has {2 * spec['depths'][-1]} blocks there."
        )
    if spec["init_only"]:
        sentences.append(
            "Similarity: mean cosine between "
            f"{'images' if spec['task'] == 'images' else 'tokens'} after the last block. Jacobian: mean squared "
            "singular value of the Jacobian of the stream after the last block by the one before the first."
        )
    return " ".join(sentences)


def _outcomes_words(result: Result) -> str:
    """What the outcomes of the runs that did not train mean."""
    found = {cell.recipe["outcome"] for cell in result.cells if cell.recipe}
    words = [f"{outcome}: {meaning}" for outcome, meaning in HOW_IT_BROKE.items() if outcome in found]
    return f" ({', '.join(words)})" if words else ""


def trend_legend(result: Result) -> str:
    """What the trends mean, and how sure they are."""
    metrics = {name for row in result.trends for name in row.metrics}
    sentences = []
    if "max_trainable_depth" in metrics:
        sentences.append("max trainable depth: the last depth that trains and the first that does not.")
    if any(name.endswith(("_exponent", "_rate")) for name in metrics):
        sentences.append(
            "depth^b: least squares in log-log, seed by seed; b^depth where that fits better. Gradient of the last "
            "block and activations (stream plus branch there) are measured at initialisation."
        )
    sentences.append(f"Medians, in brackets: {_interval_words(result)}.")
    if "max_stable_lr_exponent" in metrics:
        sentences.append("For max_stable_lr a seed counts with every slope that its brackets allow.")
    return " ".join(sentences)


def _interval_words(result: Result) -> str:
    count = len(result.spec["seeds"])
    if count == 1:
        return "the bracket of the one seed"
    rank, coverage = interval_rank(count)
    what = "the range over seeds" if rank == 1 else "an interval over seeds"
    return f"{what} that covers the median {coverage:.0%} of the time"


class TrainingRow(NamedTuple):
    """The signal of one variant and depth before a step of the fixed recipe; step 0 is initialisation."""

    step: int
    row: SummaryRow


def training_rows(result: Result) -> list[TrainingRow]:
    """The signals that were taken while training, over the seeds that got as far; empty without probe_steps."""
    rows = []
    for at in result.summary:
        mine = [c for c in result.cells if (c.variant, c.depth) == (at.variant, at.depth) and c.signals]
        steps = sorted({step for cell in mine for step in cell.signals})
        for step in (0, *steps) if steps else ():
            signals = {c.seed: c.signals.get(step, {}) if step else c.signal for c in mine}
            values: dict[str, dict[int, Bracket]] = {}
            for seed, signal in signals.items():
                for name, value in signal.get("metrics", {}).items():
                    values.setdefault(name, {})[seed] = Bracket.model_validate(value)
            metrics = {name: summarise(name, by_seed) for name, by_seed in values.items()}
            rows.append(TrainingRow(step, at.model_copy(update={"metrics": metrics})))
    return rows


def trend_columns(result: Result) -> list[tuple[str, Callable[[TrendRow], str]]]:
    """What depth does to a variant."""
    metrics = {name for row in result.trends for name in row.metrics}
    columns: list[tuple[str, Callable[[TrendRow], str]]] = []
    if "max_trainable_depth" in metrics:
        columns.append(("max trainable depth", lambda row: _depths(row.metrics.get("max_trainable_depth"))))
    for name, header in (("max_stable_lr", "max_stable_lr"), ("grad", "last gradient"), ("activation", "activations")):
        if {f"{name}_exponent", f"{name}_rate"} & metrics:
            columns.append((header, partial(_growth, name)))
    return columns


def stable_lr_points(rows: Sequence[SummaryRow], variant: str) -> list[tuple[float, float]]:
    """(depth, max_stable_lr) of a variant where both sides of the median are known."""
    points = []
    for row in rows:
        metric = row.metrics.get("max_stable_lr")
        if row.variant == variant and metric is not None and metric.median.low and metric.median.high:
            points.append((float(row.depth), metric.median.low))
    return points


def gradient_points(signal: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(block, gradient norm) where that is a positive number."""
    pairs = zip(signal["blocks"], signal["grad_norm"], strict=True)
    return [(float(block), norm) for block, norm in pairs if norm]


def first_seed_cells(result: Result, depth: int) -> list[Cell]:
    """The cells of the first seed at a depth that have a signal, in the order of the variants."""
    first = result.spec["seeds"][0]
    return [cell for cell in result.cells if (cell.depth, cell.seed) == (depth, first) and cell.signal]


def depth_words(row: SummaryRow, result: Result) -> str:
    """The depth, and how many seeds it has if not all."""
    count = max((metric.n for metric in row.metrics.values()), default=0)
    total = len(result.spec["seeds"])
    return str(row.depth) if count == total else f"{row.depth} ({count} of {total} seeds)"


def spectrum_words(cell: Cell, room: int = 400) -> str:
    """The singular values above zero as bars over log10, and the share of zeros."""
    jacobian = cell.signal["jacobian"]
    if jacobian is None:
        return "not finite"
    shares, edges = jacobian["shares"], jacobian["log10_edges"]
    if not shares:
        return "all zero"
    most = max(shares)
    bars = "".join(" " if not share else _BLOCKS[round(share / most * (len(_BLOCKS) - 1))] for share in shares)
    between = bars if len(bars) <= room - 20 else "to"
    zeros = f", {jacobian['zero_share']:.0%} zero" if jacobian["zero_share"] else ""
    return f"{edges[0]:.3g} {between} {edges[-1]:.3g}{zeros}"


def law_words(cell: Cell) -> str:
    """How the stream grows over the blocks of one cell."""
    law = cell.signal.get("stream_law")
    if law is None:
        return "-"
    if law["law"] == "flat":
        return "flat"
    return f"block^{law['rate']:.2g}" if law["law"] == "power" else f"{law['rate']:.4g}^block"


def _growth(quantity: str, row: TrendRow) -> str:
    return growth_words(row.metrics, quantity)


def _value(metric: str) -> Callable[[SummaryRow], str]:
    return lambda row: "-" if metric not in row.metrics else bracket(row.metrics[metric].median)


def _cosine(row: SummaryRow) -> str:
    metric = row.metrics.get("similarity")
    low = None if metric is None else metric.median.low
    return "-" if low is None else f"{low:.4f}" if low > 0.99 else number(low)


def _with_interval(metric: str) -> Callable[[SummaryRow], str]:
    def text(row: SummaryRow) -> str:
        if metric not in row.metrics:
            return "-"
        summary = row.metrics[metric]
        around = interval(summary)
        return middle(summary) if around == "-" else f"{middle(summary)} ({around})"

    return text


def _scaled(row: SummaryRow, metric: str, factor: float) -> str:
    summary = row.metrics.get(metric)
    low = None if summary is None else summary.median.low
    return "-" if low is None else number(low * factor)


def _outcome(row: SummaryRow, result: Result) -> tuple[bool, str]:
    """(whether all seeds trained, how many did or how most of the others failed)."""
    mine = [c for c in result.cells if (c.variant, c.depth, c.status) == (row.variant, row.depth, "done")]
    failed = [why_failed(cell, result.spec)[0] for cell in mine if cell.recipe["outcome"] not in TRAINED]
    if not failed:
        return True, f"trains {len(mine)}/{len(mine)}"
    return False, f"{max(failed, key=failed.count)} {len(failed)}/{len(mine)}"


def _depths(metric: MetricSummary | None) -> str:
    if metric is None:
        return "-"
    ends = list(metric.per_seed.values())
    low = statistics.median_low(-math.inf if end.low is None else end.low for end in ends)
    high = statistics.median_high(math.inf if end.high is None else end.high for end in ends)
    middle = Bracket(low=low if low > 0 else None, high=high if high < math.inf else None)
    return _depth(middle) if metric.n == 1 else f"{_depth(middle)} ({_ends(metric)})"


def _depth(value: Bracket) -> str:
    """Trained to here, not there."""
    if value.low is None:
        return "none" if value.high is None else f"below {value.high:.0f}"
    return f"{value.low:.0f} or more" if value.high is None else f"{value.low:.0f}, not {value.high:.0f}"


def _ends(metric: MetricSummary) -> str:
    low = "none" if metric.low is None else f"{metric.low:.0f}"
    return f"{low}..{'more' if metric.high is None else f'{metric.high:.0f}'}"
