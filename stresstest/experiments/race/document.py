"""The report of a race."""

from __future__ import annotations

from stresstest.experiments.contest_document import contest_title, how_sure, lrs_and, results_table
from stresstest.experiments.document_parts import data_words, report_of
from stresstest.experiments.race.verdicts import answer
from stresstest.reports.document import AT_LENGTH, Document, Paragraph
from stresstest.reports.numbers import loss_unit, number, with_unit
from stresstest.results.records import Result

_COLUMNS = {
    "steps": "steps_to_target",
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
    blocks = [*results_table(result, _COLUMNS), Paragraph(race_legend(result), "dim", formats=AT_LENGTH)]
    return report_of(result, contest_title("Race", result), subtitle, blocks, answer(result))


def race_legend(result: Result) -> str:
    """How to read a race's table."""
    target = result.spec["target_loss"]
    said = "the reference's loss at its end" if target is None else with_unit(number(target), loss_unit(result.data))
    return (
        f"Target (smoothed training loss): {said}. Each entrant runs at its own best peak LR of the grid, where its "
        "median reaches the target first; ratios of steps are taken seed by seed against the first entrant. "
        f"Seconds are measured on this machine. {how_sure(result)}"
    )
