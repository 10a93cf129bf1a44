"""How long a check will take, before anything is trained: both sides, and all its looks at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stresstest.commands.check_request import CheckRequest
from stresstest.reports.progress import duration, time_left
from stresstest.results.progress import TimeLeft

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan

_SHORT = 10.0  # seconds: a check of less needs no estimate


def check_estimate(asked: CheckRequest, plans: Sequence[Plan], looks: Sequence[int]) -> str:
    """A line; empty where the check is short, or what a step takes is not known."""
    from stresstest.experiments.following import forecast_of

    jobs = int(asked.words[asked.words.index("--jobs") + 1]) if "--jobs" in asked.words else None
    found = []
    for plan, request in zip(plans, asked.requests, strict=True):
        progress, _ = forecast_of(plan, replace(request.settings, jobs=jobs or request.settings.jobs))
        if progress.left is None:
            return ""
        found.append(progress.left)
    return in_words(found, sum(len(plan.cells) for plan in plans), asked.base is not None, looks)


def in_words(experiments: Sequence[TimeLeft], cells: int, both: bool, looks: Sequence[int]) -> str:
    """The time of each experiment of one side, once; `looks` are the seeds at each."""
    sides = 1 + both
    seconds = sides * sum(each.seconds for each in experiments)
    low, high = sides * sum(each.low for each in experiments), sides * sum(each.high for each in experiments)
    if seconds < _SHORT:
        return ""
    text = f"{cells} cells{' on both sides' * both}: {time_left(TimeLeft(seconds, low, high))}"
    if len(looks) < 2:
        return text
    most = high * looks[-1] / looks[0]
    return f"{text}; at most {duration(most)}, with more seeds ({looks[-1]}) where {looks[0]} do not settle it"
