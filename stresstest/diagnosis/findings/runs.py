"""What only the whole log shows: several runs, resumes, and an end before the planned one."""

from __future__ import annotations

from collections.abc import Iterator

from stresstest.diagnosis.findings.base import Said, at_step
from stresstest.diagnosis.findings.stretch import Run

_NAMED = 5


def several_runs(run: Run) -> Iterator[Said]:
    """More than one run in the log."""
    first = [stretch.steps[0] for stretch in run.stretches if stretch.segment.start != "resume"]
    if len(first) > 1:
        yield Said(f"{len(first)} runs in this log; each is judged by itself.", evidence={"runs": float(len(first))})


def resumed(run: Run) -> Iterator[Said]:
    """The run was resumed."""
    steps = [float(stretch.steps[0]) for stretch in run.stretches[1:] if stretch.segment.start == "resume"]
    if steps:
        named = ", ".join(at_step(step) for step in steps[:_NAMED])
        more = f" and {len(steps) - _NAMED} more" if len(steps) > _NAMED else ""
        yield Said(
            f"Resumed at step {named}{more}; what follows is judged by itself.",
            steps[0],
            steps[-1],
            {"resumes": float(len(steps))},
        )


def ends_early(run: Run) -> Iterator[Said]:
    """The last row lies more than 5 % before the planned end."""
    planned = run.log.facts.planned_steps
    if not planned or not run.stretches:
        return
    last = float(run.stretches[-1].steps[-1])
    if last + run.stretches[-1].row_steps < 0.95 * planned:
        yield Said(
            f"The log ends at step {at_step(last)} of {at_step(planned)} planned: what came after is not in it.",
            last,
            float(planned),
            {"last_step": last, "planned_steps": float(planned)},
        )
