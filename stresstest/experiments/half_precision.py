"""Whether bfloat16 or float16 is worth it on this CPU: a step of it beside one of float32, timed on the spot.

A CPU with instructions for them gains from a large enough width on; one without them loses at any.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from stresstest.experiments.plan import Plan
from stresstest.experiments.step_time import step_seconds
from stresstest.experiments.workload import work_of
from stresstest.models.variants import STAGES
from stresstest.specs.kinds import is_user_model

_SLOWER = 1.2  # times, from which on it is said: below it is within the scatter of such a clock


def slower_words(plan: Plan) -> str:
    """What to do where a plan's dtype makes its steps slower on this CPU; empty where it does not.

    Nothing is said of the user's own model, whose code may count how often it is called.
    """
    spec = plan.spec
    if plan.device != "cpu" or spec.dtype == "float32" or is_user_model(spec.model):
        return ""
    first = plan.places[0]
    kind, sized = work_of(plan, first).kind, plan.spec_of(first)
    few = replace(kind, depth=min(kind.depth, STAGES if spec.model == "resnet" else 2))
    with suppress(Exception):  # what fails here fails in the training too, where it is recorded
        times = step_seconds(sized, plan.device, few)
        times /= step_seconds(sized.model_copy(update={"dtype": "float32"}), plan.device, few)
        if times > _SLOWER:
            return f"use --dtype float32: a step of {spec.dtype} takes {times:.1f} times as long on this CPU"
    return ""
