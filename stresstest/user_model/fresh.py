"""What the user's model is judged against at its start, and what fresh batches say of it at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stresstest.engine.outcomes import MEDIAN_OF_FIVE, FreshLosses, Reference, Rules
from stresstest.engine.train import evaluate_batches
from stresstest.measurements.replica import ReplicaRun, Start
from stresstest.results.outcome import TRAINED
from stresstest.tasks.task import INITIAL
from stresstest.user_model.batches import UserBatch, UserBatches, tensors
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.constants.swapped import swapped_losses
from stresstest.user_model.constants.targets import classes_of
from stresstest.user_model.contract import Contract, shape_words
from stresstest.user_model.factory import seeded
from stresstest.user_model.micro_batches import differentiated
from stresstest.user_model.population import UserPopulation

FIRST_BATCHES = 8  # that tell of most runs
ALL_BATCHES = 32
_MOST_BATCHES = 512  # of noisy ones, whose steps are cheap


@dataclass(frozen=True)
class Judging:
    """All that a judgement on fresh batches needs: who was trained, on what, and what a constant predictor loses."""

    population: UserPopulation
    batches: UserBatches
    contract: Contract
    constant: Constant
    rules: Rules

    def losses(
        self, seeds: Sequence[int], count: int, first: int = 0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(the model's loss, the constant predictor's) on fresh batches, each [count, R]."""
        return evaluate_batches(self.population, self.batches, seeds, INITIAL, count, first)

    def first_losses(self, seed: int, count: int, first: int) -> NDArray[np.float64]:
        """What a replica lost at its start on the same batches, [count]: it is built again."""
        again = self.population.anew(seed)
        return evaluate_batches(again, self.batches, [seed], INITIAL, count, first)[0][:, 0]

    def swap(self, row: int, seed: int, count: int) -> FreshLosses:
        """What the loss rises by with the outputs of other batches; NaN where that cannot be asked."""
        if not self.constant.swappable:
            return FreshLosses()
        ones = [self.batches.batch([seed], step, INITIAL)[0] for step in range(count)]
        with self.population.trained_module(row) as module:
            found = swapped_losses(self.contract, module, ones, self.constant.outlet)
        if found is None:
            return FreshLosses()
        own, swapped = map(np.asarray, found)
        rise = swapped - own
        return FreshLosses(swap=mean(rise), swap_error=standard_error(rise), swapped_loss=mean(swapped))


def reference_of(
    loss: NDArray[np.float64], constant: NDArray[np.float64], known: Constant, rules: Rules, swapped: float = math.nan
) -> tuple[Reference, bool]:
    """A `Reference` from the losses of a replica at initialisation and the constant predictor's, [batches]; and whether
    its losses are to be paired with the constant predictor's.

    `swapped` is the loss with the outputs of other batches, where no constant predictor is known: a model that
    starts below it by more than the noise has learned something before.
    """
    mean, std = float(loss.mean()), float(loss.std(ddof=1))
    baseline = known.baseline_loss if known.known else swapped
    if not math.isnan(baseline):
        ahead = (constant if known.known else np.full_like(loss, baseline)) - loss
        from_scratch = Reference(mean, std, baseline, known.chance_loss, learnable=known.learnable)
        floor = rules.progress_share * from_scratch.above_lowest(baseline)
        if ahead.mean() > max(rules.fresh_sigmas * standard_error(ahead), floor, 2.0 * known.error):
            chance = max(baseline, known.chance_loss) if known.known else baseline
            noise, brought = standard_error(loss), float(ahead.mean())  # of the start; the curve tells its own
            return Reference(mean, std, baseline, chance, noise, known.error, known.learnable, brought, True), False
    if not known.known:
        return Reference(mean, std, mean, mean, MEDIAN_OF_FIVE * std, noisy=True), False
    judged = loss - constant + known.baseline_loss if known.paired else loss
    std = float(judged.std(ddof=1))
    return (
        Reference(
            float(judged.mean()),
            std,
            known.baseline_loss,
            known.chance_loss,
            0.0 if known.paired else MEDIAN_OF_FIVE * std,
            known.error,
            known.learnable,
            noisy=True,
        ),
        known.paired,
    )


def standard_error(values: NDArray[np.float64]) -> float:
    """Of their mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def mean(values: NDArray[np.float64]) -> float:
    """As a plain number."""
    return float(values.mean())


def starts(judging: Judging, seeds: Sequence[int]) -> list[Start]:
    """What each replica of a fresh population is judged against, [R]."""
    known, rules = judging.constant, judging.rules
    rows = range(len(seeds))
    swapped = [
        math.nan if known.known else judging.swap(row, seed, FIRST_BATCHES).swapped_loss
        for row, seed in enumerate(seeds)
    ]
    loss, constant = np.empty((0, len(seeds))), np.empty((0, len(seeds)))
    with np.errstate(invalid="ignore", over="ignore"):  # a loss at initialisation may be infinite
        for count in (FIRST_BATCHES, ALL_BATCHES, _MOST_BATCHES // 4):
            more = judging.losses(seeds, count - len(loss), len(loss))
            loss, constant = np.concatenate([loss, more[0]]), np.concatenate([constant, more[1]])
            found = [reference_of(loss[:, i], constant[:, i], known, rules, swapped[i]) for i in rows]
            if not any(_may_bring(loss[:, i], constant[:, i], swapped[i], found[i][0], rules) for i in rows):
                break
    return [
        Start(reference, paired, loss[:, i] if reference.brought or not known.known else None)
        for i, (reference, paired) in enumerate(found)
    ]


def _may_bring(
    loss: NDArray[np.float64], constant: NDArray[np.float64], swapped: float, found: Reference, rules: Rules
) -> bool:
    """Whether more batches would tell better what a model brings, if it brings anything."""
    if found.brought:
        return len(loss) < ALL_BATCHES
    ahead = np.where(np.isnan(constant), swapped, constant) - loss
    error = standard_error(ahead)
    at_least = 3.0 * error if len(loss) < ALL_BATCHES else -error
    return bool(ahead.mean() + at_least > found.least(rules))


def conclude(judging: Judging, runs: Sequence[ReplicaRun]) -> None:
    """Tell the runs of a population, [R], what fresh batches say of them, but those that are settled."""
    rows = [row for row, run in enumerate(runs) if not run.detector.settled]
    seeds = [run.seed for run in runs]
    if not rows:
        return
    loss, gain = np.empty((0, len(runs))), np.empty((0, len(runs)))
    start = [run.start for run in runs]
    for count in (FIRST_BATCHES, ALL_BATCHES, _MOST_BATCHES // 4, _MOST_BATCHES):
        more = judging.losses(seeds, count - len(loss), len(loss))
        loss, gain = np.concatenate([loss, more[0]]), np.concatenate([gain, more[1] - more[0]])
        unclear = False
        for row in rows:
            mine = start[row]
            if mine is None:
                unclear |= _unclear(runs[row], gain[:, row])
            elif not runs[row].detector.reference.brought:
                unclear |= count < len(mine)
            elif count < len(mine):
                unclear = True
            elif _unclear_rise(runs[row], loss[: len(mine), row] - mine):
                if count > len(mine):
                    mine = np.concatenate([mine, judging.first_losses(seeds[row], count - len(mine), len(mine))])
                    start[row] = mine
                unclear |= _unclear_rise(runs[row], loss[:, row] - mine)
        if not unclear:
            break
    for row in rows:
        run, mine = runs[row], start[row]
        if mine is not None and run.detector.reference.brought:
            rise = loss[: len(mine), row] - mine
            run.detector.conclude(FreshLosses(rise=mean(rise), rise_error=standard_error(rise)))
            continue
        mine = gain[:, row] if mine is None else mine - loss[: len(mine), row]  # over its start, if none is known
        fresh = FreshLosses(gain=mean(mine), gain_error=standard_error(mine))
        run.detector.conclude(fresh)
        if not judging.constant.found and run.detector.judgement().outcome in TRAINED:
            run.detector.conclude(replace(_swap(judging, row, run.seed), gain=fresh.gain, gain_error=fresh.gain_error))


def _swap(judging: Judging, row: int, seed: int) -> FreshLosses:
    """The rise on swapped batches; from more of them where few leave its sign open."""
    found = judging.swap(row, seed, ALL_BATCHES)
    unsure = 0.0 < found.swap < judging.rules.fresh_sigmas * found.swap_error
    return judging.swap(row, seed, _MOST_BATCHES // 4) if unsure else found


def _unclear(run: ReplicaRun, gain: NDArray[np.float64]) -> bool:
    """Whether the first batches leave open on which side of the floor a run has ended."""
    if np.isnan(gain).any():
        return False
    least = run.detector.reference.least(run.detector.rules)
    margin = 2.0 * max(least, run.detector.rules.fresh_sigmas * standard_error(gain))
    trained = run.detector.judgement().outcome in TRAINED
    return mean(gain) < margin if trained else mean(gain) > 0.0


def _unclear_rise(run: ReplicaRun, rise: NDArray[np.float64]) -> bool:
    """Whether batches leave open if a model that brought something has lost too much of it."""
    detector = run.detector
    least, error = detector.reference.least(detector.rules), standard_error(rise)
    may_be = mean(rise) > least or mean(rise) + 2.0 * error > 2.0 * least
    return may_be and mean(rise) <= detector.rules.fresh_sigmas * error


def finite_step(contract: Contract, module: nn.Module, one: UserBatch) -> bool:
    """Whether the loss of a batch and its gradient are finite."""
    with seeded(one.seed), torch.enable_grad():
        if contract.stepped:
            return bool(contract.loss(module, one.data).isfinite())
        if not bool(differentiated(contract.loss, module, one.parts).isfinite()):
            return False
    return all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)


def oddness(data: Any) -> str:
    """What is odd about a batch, in words that follow a sentence; empty where nothing is seen."""
    parts = tensors(data)
    if any(not part.numel() for part in parts) or not parts:
        return f": it is empty, {shape_words(data)}"
    if any(part.is_floating_point() and not bool(part.isfinite().all()) for part in parts):
        return ": it holds numbers that are not finite"
    for targets in classes_of(data):
        values = targets(data)
        if values.numel() and bool((values < 0).all()):
            return f": all its {values.numel()} targets are ignored ({int(values.flatten()[0])})"
    return ""
