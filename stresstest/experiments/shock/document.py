"""The report of shocks."""

from __future__ import annotations

from stresstest.experiments.document_parts import (
    data_words,
    interval_words,
    machine_words,
    model_words,
    report_of,
    seeds_words,
)
from stresstest.experiments.shock.charts import along_sizes, courses, maps, responses
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.tables import first_moves, guards_table, results_table
from stresstest.experiments.shock.verdicts import answer
from stresstest.reports.document import AT_LENGTH, Block, Document, Paragraph
from stresstest.reports.numbers import number
from stresstest.results.records import Result


def document(result: Result) -> Document:
    """What each variant takes, what became of it at the standard dose, what guards change, runs beside their twins."""
    spec = ShockSpec.model_validate(result.spec)
    at = f"peak LR {number(spec.peak_lr)}" if spec.peak_lr else f"{spec.lr_share:g} of each variant's max_stable_lr"
    shown = result.spec | {axis: f"{sizes[0]} to {sizes[-1]}" for axis, sizes in spec.path.items()}
    title = f"Shocks: {model_words(shown, result.data)}, {spec.optimizer}, {seeds_words(result)}"
    subtitle = (
        f"{data_words(shown, result.data)}; {spec.after} steps before the shock, {spec.horizon} after; {at}; "
        f"{machine_words(result)}"
    )
    blocks: list[Block] = []
    if result.summary:
        blocks = [
            *results_table(result, spec),
            Paragraph(_legend(result, spec), "dim", formats=AT_LENGTH),
            *maps(result, spec),
            *along_sizes(result, spec),
            *guards_table(result, spec),
            *responses(result, spec),
            *courses(result, spec),
            *first_moves(result, spec),
        ]
    return report_of(result, title, subtitle, blocks, answer(result))


def _legend(result: Result, spec: ShockSpec) -> str:
    """How to read the table."""
    metric = max((each for row in result.summary for each in row.metrics.values()), key=lambda m: m.n, default=None)
    lasts = [
        f"{shock.label} lasts {shock.options['steps']:g} steps" for shock in spec.shocks if "steps" in shock.options
    ]
    lasting = f"{lasts[0]}. " if lasts else ""
    return (
        "No scar up to, no break up to: the largest dose, of those a factor of 2 apart, up to which a run comes back "
        "to its twin (the same run without the shock), or keeps at least half of what it learned. What follows is of "
        "the one dose beside it: the loss above the twin's at its worst, the steps until the difference counts no "
        f"more, and the mean difference of the last 30 steps. {lasting}{interval_words(metric)}"
    )
