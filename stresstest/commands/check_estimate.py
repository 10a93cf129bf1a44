"""How long a check will take, before anything is trained: both sides, and all its looks at most."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from stresstest.commands.check_request import CheckRequest
from stresstest.gate.forecast import CheckForecast, Expected
from stresstest.gate.sides import Side
from stresstest.reports.progress import time_left
from stresstest.results.progress import TimeLeft
from stresstest.scenario.request import Request

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan

_SHORT = 10.0  # seconds: a check of less needs no estimate
_UNTIMED = 0.5  # the spread of the logarithm of a time of which only the steps are known


def forecast_of_check(
    asked: CheckRequest, plans: Sequence[Plan], sides: Sequence[Side], looks: Sequence[int] = ()
) -> CheckForecast:
    """What is known beforehand, with some steps timed unless nobody asks; `sides` in the order in which they run."""
    named = dict(zip((experiment.name for experiment in asked.scenario.experiments), plans, strict=True))
    seconds = [None if asked.quiet else _seconds(asked, *each) for each in zip(plans, asked.requests, strict=True)]
    timed = None not in seconds
    expected = {
        name: _expected(plan, left if timed else None)
        for (name, plan), left in zip(named.items(), seconds, strict=True)
    }
    stored = {
        (side.name, name): side.stored_share(name, plan.spec, plan.settings["code"], expected[name].cells)
        for side, (name, plan) in product(sides, named.items())
    }
    return CheckForecast(expected, timed, [side.name for side in sides], looks, stored)


def estimate_line(forecast: CheckForecast) -> str:
    """How many cells are to be trained and how long that takes; empty where it is short, or not known."""
    beforehand = forecast.progress(time.time())
    if beforehand.left is None or beforehand.left.seconds < _SHORT:
        return ""
    cells, looks = beforehand.total - beforehand.ended, forecast.looks
    text = f"{cells} cell{'s' * (cells > 1)}{', both sides' * (len(forecast.sides) > 1)}: {time_left(beforehand.left)}"
    if beforehand.left.at_most is None:
        return text
    return f"{text}, with more seeds ({looks[-1]}) where {looks[0]} do not settle it"


def _seconds(asked: CheckRequest, plan: Plan, request: Request) -> TimeLeft | None:
    from stresstest.experiments.following import forecast_of

    jobs = int(asked.words[asked.words.index("--jobs") + 1]) if "--jobs" in asked.words else request.settings.jobs
    progress, _ = forecast_of(plan, replace(request.settings, jobs=jobs))
    return progress.left


def _expected(plan: Plan, left: TimeLeft | None) -> Expected:
    """One experiment on one side, in seconds where they are known; else a step costs what its model and batch are."""
    from stresstest.experiments.workload import to_come, works_of

    works = [*works_of(plan, plan.cells), *to_come(plan, plan.cells)]
    if left is None:
        return Expected(len(works), sum(work.steps * work.kind.size for work in works), _UNTIMED)
    return Expected(len(works), left.seconds, math.log(max(1.0, left.high / max(left.seconds, 1e-9))))
