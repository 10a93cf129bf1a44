"""The report of a race."""

from __future__ import annotations

from stresstest.experiments.contest_document import contest_title, how_sure, lrs_and, results_table
from stresstest.experiments.document_parts import data_words, report_of
from stresstest.experiments.race.charts import charts
from stresstest.experiments.race.verdicts import answer, target_words
from stresstest.reports.document import AT_LENGTH, Document, Paragraph
from stresstest.results.records import Result

_COLUMNS = {
    "steps to {}": "steps_to_target",
    "tokens": "tokens_to_target",
    "seconds": "seconds_to_target",
    "times as fast": "speedup",
    "loss at the end": "validation_loss",
}


def document(result: Result) -> Document:
    """The report of a race."""
    spec = result.spec
    schedule = f"{spec['warmup_steps']} steps of warm-up, then {spec['decay']}, {spec['train_steps']} steps"
    subtitle = f"{data_words(spec, result.data)}; {lrs_and(schedule, result)}"
    target = f"{target_words(result)} (target)"
    columns = {header.format(target): name for header, name in _COLUMNS.items()}
    blocks = [
        *results_table(result, columns),
        *charts(result),
        Paragraph(race_legend(result), "dim", formats=AT_LENGTH),
    ]
    return report_of(result, contest_title("Race", result), subtitle, blocks, answer(result))


def race_legend(result: Result) -> str:
    """How to read a race's table."""
    own = ", the reference's at its end, of each seed its own" if result.spec["target_loss"] is None else ""
    return (
        f"Target: a smoothed training loss of {target_words(result)}{own}. Each entrant runs at its own best peak LR "
        "of the grid, where its median reaches the target first; ratios of steps are taken seed by seed against the "
        "first entrant. "
        f"Seconds are measured on this machine. {how_sure(result)}"
    )
