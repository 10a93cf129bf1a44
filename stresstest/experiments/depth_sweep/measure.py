"""How a depth sweep is planned and trained: signal propagation, a fixed recipe, ramp and hold at growing depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stresstest.engine.schedules import schedule
from stresstest.engine.signal_propagation import Signal
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.plan import Phase, Plan, canonical, make_plan, no_more
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.boundary import measure_boundary, measure_ramp
from stresstest.measurements.course import initial_signals, recipe
from stresstest.measurements.diagnosis import explain
from stresstest.measurements.replica import ReplicaRun
from stresstest.results.records import HARMLESS, Bracket, Cell
from stresstest.results.summary import trainable_depth
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import RunStore

TARGET_SHARE = 0.9  # of the constant predictor's loss: the target where none is given
_TRAINED = ("grad_last", "grad_mismatch", "activation_rms")  # measured again before the last of the probe_steps
_CLOSE = 1.1  # bisection ends when the first depth that fails is this many times the last that trains


def plan(spec: DepthSweepSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    return make_plan(
        "depth-sweep",
        canonical(spec, sweeps_depth=True),
        spec.depths,
        frozenset({"depths", "bisect"}),
        measure_depth,
        _phases(spec),
        bisect if spec.bisect else no_more,
    )


def _phases(spec: DepthSweepSpec) -> tuple[Phase, ...]:
    if spec.init_only:
        return ("probe",)
    return ("train and probe",) if spec.probe_steps else ("train", "probe")


def measure_depth(bench: Bench, spec: DepthSweepSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """What was asked for at one depth: signal propagation always, then recipe, ramp, hold."""
    noise, seeds = spec.jacobian_input == "noise", [cell.seed for cell in cells]
    found = [_of_signal(signal) for signal in initial_signals(bench, seeds, noise)]
    for one in found if bench.module() is None else ():
        one.metrics["parameters"] = Bracket.exactly(bench.model.layout.num_parameters)
    if spec.init_only:
        return found
    if {"ramp", "hold"} & set(spec.measure):
        measure = measure_boundary if "hold" in spec.measure else measure_ramp
        for one, boundary in zip(found, measure(bench, spec, cells), strict=True):
            one.add(boundary)
    if "outcome" in spec.measure:
        trials = [(seed, recipe_lrs(spec)) for seed in seeds]
        for one, run in zip(found, recipe(bench, trials, spec.probe_steps, noise), strict=True):
            one.add(_of_recipe(spec, run, run.detector.reference.baseline_loss))
            if run.detector.judgement().outcome not in HARMLESS or "why" not in one.records:
                one.add(explain(bench, run, ()))
    return found


def recipe_lrs(spec: DepthSweepSpec) -> NDArray[np.float64]:
    """The fixed recipe's learning rate at each step: linear warm-up, then constant."""
    return spec.peak_lr * schedule("linear", spec.warmup_steps, "constant", spec.train_steps)


def bisect(plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
    """For each variant and seed, a depth between the last that trained and the first that did not."""
    more: dict[str, CellPlan] = {}
    for variant in plan.spec.variant:
        for seed in plan.spec.seeds:
            bracket = trainable_depth([c for c in cells if c.variant == variant and c.seed == seed])
            if bracket is None or bracket.low is None or bracket.high is None:
                continue
            between = round(math.sqrt(bracket.low * bracket.high))
            if bracket.high > _CLOSE * bracket.low and bracket.low < between < bracket.high:
                cell = plan.cell(variant, between, seed)
                more[cell.key] = cell
    return list(more.values())


def _of_signal(signal: Signal | None) -> Measurement:
    if signal is None:
        return Measurement()
    return Measurement(
        metrics=signal.metrics(),
        records={"signal": signal.record()},
        curves={f"signal_{name}": curve for name, curve in signal.curves.items()},
    )


def _of_recipe(spec: DepthSweepSpec, run: ReplicaRun, baseline_loss: float) -> Measurement:
    record = run.record()
    learnable = run.detector.reference.learnable if spec.label_smoothing else baseline_loss
    target = spec.target_loss
    if target is None:
        target = TARGET_SHARE * baseline_loss + (1.0 - TARGET_SHARE) * (baseline_loss - learnable)
    steps = run.steps_to(target)
    metrics = {
        "steps_to_target": Bracket(low=spec.train_steps, high=None) if steps is None else Bracket.exactly(steps),
        "seconds_per_step": Bracket.exactly(run.seconds_per_step),
    }
    if math.isfinite(run.peak_bytes):
        metrics["peak_bytes"] = Bracket.exactly(run.peak_bytes)
    if math.isfinite(run.validation_loss):
        metrics["recipe_loss"] = Bracket.exactly(run.validation_loss)
    metrics |= {name: Bracket.exactly(score) for name, score in run.scores.items()}
    curves = {
        "recipe_lr": np.array(run.lrs),
        "recipe_loss": np.array(run.losses),
        "recipe_judged": np.array(run.judged),
        "recipe_grad_norm": np.array(run.grad_norms),
    }
    if run.signals:
        trained = run.signals[max(run.signals)].metrics()
        metrics |= {f"{name}_trained": trained[name] for name in _TRAINED if name in trained}
    for step, signal in run.signals.items():
        curves |= {f"signal_{step}_{name}": curve for name, curve in signal.curves.items()}
    return Measurement(
        metrics=metrics,
        records={
            "recipe": record | {"target_loss": target},
            "signals": {step: signal.record() for step, signal in run.signals.items()},
        },
        curves=curves,
    )
