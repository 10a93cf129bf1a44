"""What a gate asks for before anything is trained: its thresholds, its looks, and the seeds of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stresstest.errors import ConfigError
from stresstest.gate import statistics
from stresstest.gate.baseline import Baseline
from stresstest.gate.thresholds import check_threshold, default_thresholds, metrics_of
from stresstest.scenario.reader import Scenario, ScenarioExperiment
from stresstest.scenario.thresholds import Threshold, parse_threshold
from stresstest.specs.base import TrainingSpec

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan


def gate_thresholds(
    scenario: Scenario, specs: Mapping[str, TrainingSpec]
) -> tuple[list[Threshold], list[Threshold], int]:
    """Absolute and relative thresholds, and how many lines the relative ones have.

    Where none is relative, the boundaries are. What cannot be answered is a `ConfigError` with its place.
    """
    written = list(scenario.thresholds)
    if not any(threshold.relative for _, threshold in written):
        written += [(scenario.source, parse_threshold(key, text)) for key, text in default_thresholds(specs)]
    number = 0
    for where, threshold in written:
        try:
            lines = check_threshold(threshold, specs)
        except ConfigError as error:
            raise ConfigError(f"{where}: thresholds.{threshold.name}: {error}") from None
        number += lines if threshold.relative else 0
    thresholds = [threshold for _, threshold in written]
    return [t for t in thresholds if not t.relative], [t for t in thresholds if t.relative], number


def planned_looks(
    scenario: Scenario, specs: Mapping[str, TrainingSpec], relative: Sequence[Threshold], lines: int, once: bool = False
) -> list[int]:
    """Seeds at each look, or at the only one; a `ConfigError` where even the last one could call nothing."""
    gated = [spec for name, spec in specs.items() if any(_answers(threshold, name, spec) for threshold in relative)]
    if not gated:
        return []
    seeds, gate = min(len(spec.seeds) for spec in gated), scenario.gate
    most = seeds if once else min(statistics.MOST_SEEDS, gate.max_seeds or statistics.MOST_SEEDS)
    looks = statistics.looks(seeds, most)
    needed = statistics.seeds_needed(lines, gate.alpha / len(looks))
    if looks[-1] < needed:
        what = f"{lines} line{'s' * (lines > 1)} at alpha {gate.alpha:g} over {len(looks)} look{'s' * (len(looks) > 1)}"
        raise ConfigError(
            f"{scenario.source}: give seeds: {needed}, or gate fewer lines: a gate of {what} needs {needed} "
            f"seeds for any verdict, and this one has {looks[0]}, at most {looks[-1]}"
        )
    return looks


def _answers(threshold: Threshold, name: str, spec: TrainingSpec) -> bool:
    return threshold.experiment in ("", name) and threshold.metric in metrics_of(spec)


def extended(seeds: Sequence[int], number: int) -> tuple[int, ...]:
    """These seeds, and as many more as make `number`: the smallest that are not there."""
    more = (seed for seed in range(number + len(seeds)) if seed not in seeds)
    return (*seeds, *(next(more) for _ in range(number - len(seeds))))


def in_kernels_of(baseline: Baseline, experiments: Sequence[ScenarioExperiment], plans: Sequence[Plan]) -> list[Plan]:
    """The plans with the baseline's kernels, where nobody asked for others and this machine has them."""
    return [
        plan.of_kernel("torch") if plan.other_kernel == "torch" == baseline.kernel_of(experiment.name) else plan
        for experiment, plan in zip(experiments, plans, strict=True)
    ]


def kernel_words(plan: Plan) -> str:
    """What the line that gives a plan's result again has to say of its kernel: torch, where another would be taken."""
    return " --kernel torch" if (plan.spec.kernel, plan.other_kernel) == ("torch", "native") else ""
