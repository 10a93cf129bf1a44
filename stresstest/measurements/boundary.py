"""Ramp and hold: where the boundary is, first by a rising learning rate, then by constant ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresstest.measurements.ahead import Question
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.course import held_elsewhere, hold, ramp
from stresstest.measurements.diagnosis import explain
from stresstest.measurements.hold import LOWEST, OCTAVE, STRIDES, HoldAnswer, HoldSearch, grid_lr, octave_below
from stresstest.measurements.replica import ReplicaRun
from stresstest.measurements.theory import measure_theory
from stresstest.results.bracket import Bracket, finite
from stresstest.results.outcome import HARMLESS, TRAINED
from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.kinds import is_user_model

_AHEAD = 3  # places of one search that are tried at once where rows are cheap
_OFFERED = 6  # that others may try, the one at hand among them


def ramp_lrs(spec: BoundarySpec) -> NDArray[np.float64]:
    """The learning rate of each step of the ramp; the last is `end_lr`."""
    if spec.ramp == "linear":
        return np.linspace(spec.start_lr, spec.end_lr, spec.num_steps)
    return np.geomspace(spec.start_lr, spec.end_lr, spec.num_steps)


def measure_ramp(bench: Bench, spec: BoundarySpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Ramp every cell's seed."""
    runs = ramp(bench, [cell.seed for cell in cells], ramp_lrs(spec))
    found = _of_ramps(spec, runs)
    for one, run in zip(found, runs, strict=True):
        one.add(explain(bench, run, ()))
    return found


def measure_boundary(
    bench: Bench, spec: BoundarySpec, cells: Sequence[CellPlan], best: bool = False
) -> list[Measurement]:
    """Ramp every seed, then hold constant learning rates around the answer until the bracket is found.

    best: on down until the LR of the lowest loss is found as well.
    """
    seeds = [cell.seed for cell in cells]
    ramps = ramp(bench, seeds, ramp_lrs(spec))
    found = _of_ramps(spec, ramps)
    searches = [_search(spec, run, best) for run in ramps]
    trials = _answer_all(bench, spec, seeds, searches)
    for one, search, held in zip(found, searches, trials, strict=True):
        one.records["ramp"] |= {"hold_monotone": search.monotone}
        one.add(_hold_measurement(search, [held[k] for k in sorted(held)]))
    for one, run, held in zip(found, ramps, trials, strict=True):
        one.add(explain(bench, run, list(held.values())))
    if spec.theory:
        for one, said in zip(found, measure_theory(bench, seeds), strict=True):
            one.add(said)
    return found


def _answer_all(
    bench: Bench, spec: BoundarySpec, seeds: Sequence[int], searches: Sequence[HoldSearch]
) -> list[dict[int, ReplicaRun]]:
    """Answer every search's questions; returns the holds of each that it asked for, by place.

    Where rows are cheap, so are the answers to what a search may ask next; elsewhere they are offered to whoever has a
    core to spare. One that it does not ask for is left out.
    """
    known: list[dict[int, ReplicaRun]] = [{} for _ in seeds]
    places = _AHEAD if bench.rows_are_cheap else 1
    with closing(bench.ahead):  # also where the user's model raises
        while asked := [(i, k) for i, search in enumerate(searches) if (k := search.ask()) is not None]:
            _take_over(bench, spec, seeds, searches, known)
            behind = [i for i, k in asked if k not in known[i]]
            trials = [(i, k) for i in behind for k in searches[i].ahead(places) if k not in known[i]]
            runs = hold(bench, [(seeds[i], grid_lr(k)) for i, k in trials], spec.hold_steps) if trials else []
            for (i, k), run in zip(trials, runs, strict=True):
                known[i][k] = run
            for i, k in asked:
                searches[i].tell(k, _answer(known[i][k]))
    return [{k: held[k] for k in search.answers} for search, held in zip(searches, known, strict=True)]


def _take_over(
    bench: Bench,
    spec: BoundarySpec,
    seeds: Sequence[int],
    searches: Sequence[HoldSearch],
    known: Sequence[dict[int, ReplicaRun]],
) -> None:
    """Let others train what may be asked next, and take over what they made of the questions at hand."""
    places = [search.ahead(_OFFERED) for search in searches]
    questions = {
        (i, k): Question(seeds[i], grid_lr(k), spec.hold_steps)
        for n in range(_OFFERED)
        for i, k in ((i, ahead[n]) for i, ahead in enumerate(places) if n < len(ahead))
        if k not in known[i]
    }
    at_hand = {(i, k): question for (i, k), question in questions.items() if k == places[i][0]}
    bench.ahead.offer([questions[place] for place in questions if place not in at_hand], list(at_hand.values()))
    for (i, k), question in at_hand.items():
        run = bench.ahead.answer(question, bench.journal.wait)
        if run is not None:
            held_elsewhere(bench, question, run)
            known[i][k] = run


def _of_ramps(spec: BoundarySpec, runs: Sequence[ReplicaRun]) -> list[Measurement]:
    return [
        Measurement(
            metrics=_ramp_metrics(spec, run.record()),
            records={"ramp": run.record() | {"curve": _thinned(run)}},
            curves={
                "ramp_lr": np.array(run.lrs),
                "ramp_loss": np.array(run.losses),
                "ramp_judged": np.array(run.judged),
                "ramp_grad_norm": np.array(run.grad_norms),
            },
        )
        for run in runs
    ]


def _hold_measurement(search: HoldSearch, held: Sequence[ReplicaRun]) -> Measurement:
    record = [
        {"lr": trial.lrs[0], "validation_loss": finite(trial.validation_loss)} | trial.scores | trial.record()
        for trial in held
    ]
    longest = max((len(trial.losses) for trial in held), default=0)
    losses = np.full((len(held), longest), np.nan)
    for row, trial in zip(losses, held, strict=True):
        row[: len(trial.losses)] = trial.losses
    return Measurement(
        metrics=_hold_metrics(search, held),
        records={"hold": record},
        curves={"hold_lr": np.array([trial.lrs[0] for trial in held]), "hold_loss": losses},
    )


def _search(spec: BoundarySpec, run: ReplicaRun, best: bool) -> HoldSearch:
    """Start two octaves below the ramp's answer: the early part of a ramp works as a warm-up."""
    record = run.record()
    broke_at = record["onset_lr"]
    if not record["learned"]:
        finite = [pair for pair in zip(run.losses, run.lrs, strict=True) if math.isfinite(pair[0])]
        broke_at = min(finite)[1] if finite else run.lrs[0]
    highest = octave_below(spec.end_lr)
    guess = octave_below(broke_at or spec.end_lr) - 2 * OCTAVE  # a linear ramp starts at 0
    stride = STRIDES[spec.hold_resolution]
    floor = run.detector.floor
    return HoldSearch(
        min(guess, highest),
        highest,
        stride,
        spec.lr_window,
        both_ways=is_user_model(spec.model),
        best=best,
        lowest=octave_below(spec.start_lr) if spec.start_lr else LOWEST,
        noise_floor=floor,
    )


def _answer(run: ReplicaRun) -> HoldAnswer:
    judgement = run.detector.judgement()
    broke = judgement.outcome in ("nonfinite", "exploded")
    if broke:
        return HoldAnswer(judgement.outcome, math.inf)
    validation = run.validation_loss if math.isfinite(run.validation_loss) else math.inf
    return HoldAnswer(judgement.outcome, run.detector.final_level, validation)


def _ramp_metrics(spec: BoundarySpec, record: Mapping[str, Any]) -> dict[str, Bracket]:
    metrics: dict[str, Bracket] = {}
    explosion, onset = record["explosion_lr"], record["onset_lr"]
    beyond = Bracket(low=spec.end_lr, high=None)
    metrics["explosion_lr"] = _measured(explosion, spec.start_lr, beyond)
    metrics["steps_survived"] = (
        Bracket(low=spec.num_steps, high=None)
        if record["explosion_step"] is None
        else Bracket.exactly(record["explosion_step"])
    )
    if onset is not None or record["learned"]:
        metrics["onset_lr"] = _measured(onset, spec.start_lr, beyond)
    return metrics


def _hold_metrics(search: HoldSearch, held: Sequence[ReplicaRun]) -> dict[str, Bracket]:
    """The boundary, and how the best hold ended: of those that trained, or else of those that did no harm."""
    metrics = {"max_stable_lr": search.max_stable_lr}
    trained, harmless = (
        [run for run in held if run.detector.judgement().outcome in outcomes] for outcomes in (TRAINED, HARMLESS)
    )
    if harmless:
        best = min(trained or harmless, key=lambda run: run.validation_loss)
        metrics["final_loss"] = Bracket.exactly(best.last_loss)
        metrics["validation_loss"] = Bracket.exactly(best.validation_loss)
        metrics |= {name: Bracket.exactly(score) for name, score in best.scores.items()}
    if trained:
        metrics["lr_window"] = _window(search)
        if search.best:
            metrics["best_lr"] = search.best_lr
    return metrics


def _measured(lr: float | None, start_lr: float, beyond: Bracket) -> Bracket:
    if lr is None:
        return beyond
    return Bracket.exactly(lr) if lr > start_lr else Bracket(low=None, high=lr)


def _window(search: HoldSearch) -> Bracket:
    """Octaves from the smallest useful LR to the largest."""
    top, bottom = search.max_useful_lr, search.min_useful_lr
    assert top.low is not None, "something trained"
    assert bottom.high is not None, "something trained"
    narrow = math.log2(top.low / bottom.high)
    if top.high is None or bottom.low is None:
        return Bracket(low=narrow, high=None)
    return Bracket(low=narrow, high=math.log2(top.high / bottom.low))


def _thinned(run: ReplicaRun, points: int = 80) -> list[tuple[float, float]]:
    """(lr, loss) of the ramp for charts: the largest loss of each stretch, so that spikes survive."""
    stretch = max(1, math.ceil(len(run.losses) / points))
    return [
        (run.lrs[i], max(finite))
        for i in range(0, len(run.losses), stretch)
        if (finite := [x for x in run.losses[i : i + stretch] if math.isfinite(x)])
    ]
