"""What the HTML page of a depth sweep shows: columns, charts, Jacobians."""

from __future__ import annotations

from typing import Any

from stresstest.reports.depth_table import (
    depth_words,
    first_seed_cells,
    gradient_points,
    law_words,
    legend,
    main_columns,
    signal_columns,
    spectrum_words,
    stable_lr_points,
    training_rows,
    trend_columns,
    trend_legend,
)
from stresstest.reports.svg import svg_chart
from stresstest.reports.words import sweep_words
from stresstest.results.records import Result

_CHARTED_DEPTHS = 4


def depth_sweep_facts(result: Result) -> dict[str, Any]:
    """What the template reads beside the result."""
    return {
        "setting": sweep_words(result),
        "columns": main_columns(result),
        "signal": [] if result.spec["init_only"] else signal_columns(),
        "legend": legend(result),
        "depth": lambda row: depth_words(row, result),
        "training": training_rows(result),
        "trends": trend_columns(result) if len(result.spec["depths"]) > 1 else [],
        "trend_legend": trend_legend(result),
        "charts": _charts(result),
        "spectra": _spectra(result),
    }


def _charts(result: Result) -> list[dict[str, Any]]:
    variants = list(dict.fromkeys(row.variant for row in result.summary))
    charts = [
        svg_chart(
            "max_stable_lr against depth",
            {variant: stable_lr_points(result.summary, variant) for variant in variants},
            logarithmic=True,
        )
    ]
    depths = sorted({row.depth for row in result.summary})
    for depth in depths[:: -max(1, len(depths) // _CHARTED_DEPTHS)]:
        charts.append(
            svg_chart(
                f"Gradient norm over the blocks at depth {depth}, at initialisation, seed {result.spec['seeds'][0]}",
                {cell.variant: gradient_points(cell.signal) for cell in first_seed_cells(result, depth)},
                logarithmic=False,
            )
        )
    for cell in first_seed_cells(result, max(depths, default=0)):
        if cell.signals:
            curves = {"at initialisation": gradient_points(cell.signal)}
            curves |= {f"before step {step}": gradient_points(signal) for step, signal in cell.signals.items()}
            charts.append(
                svg_chart(
                    f"Gradient norm while training: {cell.variant}, depth {cell.depth}", curves, logarithmic=False
                )
            )
    return [chart for chart in charts if chart is not None]


def _spectra(result: Result) -> list[dict[str, str]]:
    rows = {(row.variant, row.depth): row for row in result.summary}
    mean_square = next(column for column in signal_columns() if column.header == "Jacobian\nmean sq")
    return [
        {
            "variant": variant,
            "depth": str(depth),
            "law": law_words(cell),
            "bars": spectrum_words(cell),
            "mean_square": mean_square.text(row),
        }
        for (variant, depth), row in rows.items()
        for cell in first_seed_cells(result, depth)
        if cell.variant == variant
    ]
