"""`stresstest validate`: what a scenario asks for and would cost, without training."""

from __future__ import annotations

from collections.abc import Sequence

from stresstest.commands.run import OnStderr
from stresstest.errors import ConfigError
from stresstest.gate import statistics
from stresstest.gate.claim_values import check_claim
from stresstest.gate.planning import gate_thresholds, planned_looks
from stresstest.pipeline import plan_scenario
from stresstest.scenario.reader import Scenario
from stresstest.scenario.request import Request
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model


def validate(scenario: Scenario, requests: Sequence[Request]) -> list[str]:
    """What a scenario asks for, in words, without training; what is wrong with it is a `ConfigError`."""
    from stresstest.experiments.workload import number_of_cells

    plans = plan_scenario(scenario.experiments, requests, OnStderr())
    number = len(plans)
    words = [f"{number_of_cells(*plans)} in {number} experiment{'s' * (number > 1)}; valid"]
    if scenario.claims:
        check_claims(scenario, [plan.spec for plan in plans])
        words.append(f"{len(scenario.claims)} claim{'s' * (len(scenario.claims) > 1)} over its metrics")
    if scenario.thresholds:
        specs = {each.name: plan.spec for each, plan in zip(scenario.experiments, plans, strict=True)}
        absolute, relative, lines = gate_thresholds(scenario, specs)
        looks, alpha = planned_looks(scenario, specs, relative, lines), scenario.gate.alpha
        words.append(
            f"gate: {lines} line{'s' * (lines > 1)} against a base, {len(absolute)} limits; looks at "
            f"{' and '.join(map(str, looks))} seeds, error rate {alpha:g} over all: a look can find a "
            f"loss from {statistics.seeds_needed(lines, alpha / len(looks))} seeds on"
        )
    return words


def code_words(scenario: Scenario, requests: Sequence[Request]) -> list[str]:
    """Which code training would run, of a file that nobody has looked at yet; nothing where it names none."""
    code: dict[str, list[str]] = {}
    for experiment, request in zip(scenario.experiments, requests, strict=True):
        for place in _code_of(request.spec):
            code.setdefault(place, []).append(experiment.name)
    if not code:
        return []
    return [
        f"the settings of {len(requests)} experiment{'s' * (len(requests) > 1)} are valid; nothing was built, "
        "since that runs code that the file names",
        *(f"training runs the code of {place} ({', '.join(names)})" for place, names in code.items()),
    ]


def _code_of(spec: TrainingSpec) -> list[str]:
    """The code that a spec names: FILE.py:FUNCTION or MODULE:FUNCTION."""
    model = spec.model if is_user_model(spec.model) and not spec.model.startswith("hf:") else ""
    named = (model, spec.batch_fn, spec.loss_fn, spec.optimizer_fn, spec.step_fn)
    return [place for place in dict.fromkeys(named) if place]


def check_claims(scenario: Scenario, specs: Sequence[TrainingSpec]) -> None:
    """Whether every claim can be told by its experiments; one that cannot is a `ConfigError` with its place."""
    named = {each.name: spec for each, spec in zip(scenario.experiments, specs, strict=True)}
    for where, claim in scenario.claims:
        try:
            check_claim(claim, named)
        except ConfigError as error:
            raise ConfigError(f"{where}: claims: {error}") from None


def estimate_words(scenario: Scenario, requests: Sequence[Request]) -> list[str]:
    """What a profile would cost, of each experiment, variant and depth, without allocating anything.

    It need not fit this machine; anything else that is wrong with it is a `ConfigError`.
    """
    from stresstest.engine.memory import gib
    from stresstest.experiments.estimate import estimates
    from stresstest.experiments.plan import canonical

    specs = [canonical(request.spec, bool(getattr(request.spec, "depths", ()))) for request in requests]
    check_claims(scenario, specs)
    words, total = [], 0.0
    for experiment, spec in zip(scenario.experiments, specs, strict=True):
        for one in estimates(spec):
            total += one.hours
            words.append(
                f"{experiment.name}: {one.variant} {one.size}: {one.parameters / 1e6:.4g} M parameters, "
                f"{gib(one.need.total)} per replica, {one.flops_a_step:.3g} FLOPs per step, {one.runs} runs of "
                f"{one.steps // max(1, one.runs)} steps, {one.hours:.3g} GPU hours"
            )
    words.append(f"{total:.3g} GPU hours in total, if a GPU sustains 100 TFLOP/s")
    return words
