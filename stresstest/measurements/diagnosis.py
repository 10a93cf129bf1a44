"""Why a run broke: what is odd from its start on, which of its signals moved first, and how often they do anyway.

A suspect is something that a block has and its peers have not, or an order of magnitude that explains a failure
by itself. A signal moves when it leaves the range of its values before: three in a row, and most of those from
there to the break. What that is worth, the runs of the same study that trained show.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stresstest.engine.probes import SIZES
from stresstest.measurements.base import Bench, Measurement
from stresstest.measurements.replica import ReplicaRun
from stresstest.models.layout import TensorName
from stresstest.models.peers import FEWEST, ODD_SHARE, frozen_alone, missing_norms
from stresstest.results.bracket import finite

LAST_FRAMES = 20
INIT_RATIO = 10.0  # of a matrix to its peers
LOGIT_RATIO = 3.0  # of attention logits to those of other blocks
LARGE_LOGITS = 3.0  # root mean square at initialisation, where the scale keeps it near 1
GROWN = 2.0  # times: beyond, an overflow is the learning rate's doing
DEAD_SHARE = 0.999  # zeros of what a block puts out

FEWEST_BEFORE = 8  # values that make a range
MOST_BEFORE = 40
MOST_AHEAD = 40  # values before the break: what moved earlier is the course of training
SPREADS = 8.0  # robust standard deviations from the median
FACTOR = 3.0  # and this many times more or less
IN_A_ROW = 3

Cause = Literal["init", "missing-norm", "attention-scale", "large-logits", "frozen", "no-gradient", "eps", "overflow"]


@dataclass(frozen=True)
class Suspect:
    """One thing that explains a failure: where, and by how much.

    value: times its peers (init, attention-scale), root mean square (large-logits), the share of the matrices whose
    gradient is smaller (eps), or of the values (overflow).
    """

    cause: Cause
    place: str
    value: float | None = None


@dataclass(frozen=True)
class Move:
    """A signal that left its range, `lead` steps before the run began to break, to `factor` times its level."""

    signal: str
    place: str
    lead: int
    factor: float | None


def explain(bench: Bench, broken: ReplicaRun, others: Sequence[ReplicaRun]) -> Measurement:
    """What a run that broke shows, beside other runs of the same replica; those of all that trained are calm."""
    if not broken.frames:
        return Measurement()
    calm = [run for run in (broken, *others) if run.detector.judgement().outcome == "stable"]
    names = bench.model.layout.names()
    alarms = [signal for run in calm for signal in {move.signal for move in moves(names, run, len(run.losses))}]
    stop = _broke_at(broken)
    looks = sorted(broken.looks)
    places = list(dict.fromkeys(place for step in looks for place in broken.looks[step]))
    record = {
        "suspects": [asdict(suspect) for suspect in _suspects(bench, names, broken)],
        "moved": [] if stop is None else [asdict(move) for move in _first_moves(names, broken, stop)],
        "dead": _dead(broken),
        "probes": bench.probing.level,
        "calm_runs": len(calm),
        "alarms": dict(Counter(sorted(alarms))),
        "tensors": [name.text for name in names],
        "places": [f"{signal} of {place}" for signal, place in places],
    }
    table = [[broken.looks[step].get(place, math.nan) for place in places] for step in looks]
    curves = {
        "last_frames": np.array(broken.frames[-LAST_FRAMES:], np.float64),
        "look_steps": np.array(looks, np.float64),
        "looks": np.array(table, np.float64).reshape(len(looks), len(places)),
    }
    seconds = sum(run.probe_seconds for run in (broken, *others))
    return Measurement(records={"why": record}, curves=curves, probe_seconds=seconds)


def _first_moves(names: Sequence[TensorName], run: ReplicaRun, onset: int) -> list[Move]:
    """What moved before the onset; where nothing did, what moved after it: with a lead of zero or less."""
    end = len(run.losses)
    return moves(names, run, onset) or [replace(m, lead=m.lead + onset - end) for m in moves(names, run, end)]


def moves(names: Sequence[TensorName], run: ReplicaRun, stop: int) -> list[Move]:
    """The first place at which each signal moved up to step `stop`, the earliest signal first."""
    found: dict[str, Move] = {}
    for signal, place, steps, values in _signals(names, run):
        at = _moved_at(values, bisect(steps, stop))
        if at is not None:
            move = Move(signal, place, int(stop - steps[at]), finite(_factor(values, at)))
            if signal not in found or found[signal].lead < move.lead:
                found[signal] = move
    return sorted(found.values(), key=lambda move: -move.lead)


def _broke_at(run: ReplicaRun) -> int | None:
    """The step at which it began to break; `None` of a run that did not, or that never trained."""
    judgement = run.detector.judgement()
    return judgement.explosion_step if judgement.onset_step is None else judgement.onset_step


def _signals(names: Sequence[TensorName], run: ReplicaRun) -> Iterator[tuple[str, str, list[int], NDArray[np.float64]]]:
    """(signal, place, steps, log values): of each matrix its gradient and update, of what was looked at its size."""
    with np.errstate(divide="ignore", invalid="ignore"):
        frames_T3N = np.log(np.array(run.frames, np.float64))
        weight, gradient, update = (frames_T3N[:, SIZES.index(size)] for size in SIZES)
        relative = update - weight - np.log(np.array(run.lrs))[:, None]
        every = list(range(len(frames_T3N)))
        for i, name in enumerate(names):
            yield "gradient", name.text, every, gradient[:, i]
            yield "update", name.text, every, relative[:, i]
        steps = [step for step in sorted(run.looks) if 0 <= step < len(run.losses)]
        if len(steps) <= FEWEST_BEFORE:
            return
        for signal, place in run.looks[steps[-1]]:
            if not signal.endswith("_share"):
                values = [run.looks[step].get((signal, place), math.nan) for step in steps]
                yield signal, place, steps, np.log(np.abs(np.array(values)))


def _moved_at(values: NDArray[np.float64], stop: int) -> int | None:
    """The first of the values from which on some in a row, and most of those up to `stop`, lie outside the range."""
    tried = np.arange(max(FEWEST_BEFORE, stop - MOST_AHEAD), min(stop, len(values) - IN_A_ROW + 1))
    if not len(tried):
        return None
    padded = np.concatenate([np.full(MOST_BEFORE, np.nan), np.where(np.isfinite(values), values, np.nan)])
    before = sliding_window_view(padded, MOST_BEFORE)[tried]
    middle = _medians(before)
    spread = 1.4826 * _medians(np.abs(before - middle[:, None]))  # as a standard deviation
    allowed = np.maximum(SPREADS * spread, math.log(FACTOR))
    off = ~(np.abs(sliding_window_view(values, IN_A_ROW)[tried] - middle[:, None]) <= allowed[:, None])
    enough = np.isfinite(before).sum(1) >= FEWEST_BEFORE
    for at in np.flatnonzero(enough & off.all(1)):
        i = int(tried[at])
        outside = ~(np.abs(values[i : max(stop, i + IN_A_ROW)] - middle[at]) <= allowed[at])
        if 2 * outside.sum() > len(outside):
            return i
    return None


def _medians(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of each row without its NaNs; NaN of one that has nothing else."""
    ordered, known = np.sort(rows, axis=1), (~np.isnan(rows)).sum(1)  # NaNs come last
    low, high = (np.take_along_axis(ordered, place[:, None], 1)[:, 0] for place in ((known - 1) // 2, known // 2))
    return np.where(known > 0, (low + high) / 2.0, np.nan)


def _factor(values: NDArray[np.float64], at: int) -> float:
    """How many times the level of before the next values are; infinite where they are not numbers any more."""
    before, ahead = values[max(0, at - MOST_BEFORE) : at], values[at : at + IN_A_ROW]
    ahead = ahead[~np.isnan(ahead)]
    if not len(ahead):
        return math.inf
    return math.exp(min(float(np.median(ahead) - np.median(before[np.isfinite(before)])), 700.0))


def _suspects(bench: Bench, names: Sequence[TensorName], run: ReplicaRun) -> Iterator[Suspect]:
    module = bench.module()
    if module is not None:
        yield from (Suspect("missing-norm", name) for name in missing_norms(module))
        yield from (Suspect("frozen", name) for name in frozen_alone(module))
    stop = _broke_at(run)
    frames_T3N = np.array(run.frames[: stop or None], np.float64)
    yield from _odd_weights(names, frames_T3N[0, SIZES.index("weight")])
    gradient_N = np.median(frames_T3N[:, SIZES.index("gradient")], axis=0)
    yield from _without_gradient(names, gradient_N)
    yield from _below_eps(bench, gradient_N)
    first = run.looks.get(0, {})
    if module is not None:  # in a built-in wiring they are by design
        yield from _large_logits({place: value for (signal, place), value in first.items() if signal == "logit_rms"})
    if bench.training.dtype == torch.float16 and not _has_grown(run):
        yield from overflows(run)


def _odd_weights(names: Sequence[TensorName], weight_N: NDArray[np.float64]) -> Iterator[Suspect]:
    for places in _peers(names):
        middle = statistics.median(weight_N[i] for i in places)
        odd = {i: weight_N[i] / middle for i in places if middle > 0.0}
        odd = {i: ratio for i, ratio in odd.items() if not 1.0 / INIT_RATIO < ratio < INIT_RATIO}
        if len(odd) <= ODD_SHARE * len(places):
            yield from (Suspect("init", names[i].text, float(ratio)) for i, ratio in odd.items())


def _without_gradient(names: Sequence[TensorName], gradient_N: NDArray[np.float64]) -> Iterator[Suspect]:
    for places in _peers(names):
        still = [i for i in places if gradient_N[i] == 0.0]
        if len(still) <= ODD_SHARE * len(places):
            yield from (Suspect("no-gradient", names[i].text) for i in still)


def _below_eps(bench: Bench, gradient_N: NDArray[np.float64]) -> Iterator[Suspect]:
    eps = bench.eps
    trained_N = gradient_N[gradient_N > 0.0]
    if eps is not None and len(trained_N):
        below = float((trained_N < eps).mean())
        if below > 0.5:
            yield Suspect("eps", f"eps {eps:g}", below)


def _large_logits(rms: dict[str, float]) -> Iterator[Suspect]:
    """Attention logits that are large at initialisation: in all blocks, or in a few where blocks should be alike."""
    if not rms:
        return
    middle = statistics.median(rms.values())
    if middle > LARGE_LOGITS:
        yield Suspect("large-logits", "every block" if len(rms) > 1 else next(iter(rms)), middle)
    elif len(rms) > FEWEST:
        odd = {place: value / middle for place, value in rms.items() if value > max(LOGIT_RATIO * middle, 1.0)}
        if len(odd) <= ODD_SHARE * len(rms):
            yield from (Suspect("attention-scale", place, ratio) for place, ratio in odd.items())


def overflows(run: ReplicaRun) -> Iterator[Suspect]:
    """The first place of the earliest look whose values do not fit into float16, unless the loss blew up before."""
    explosion = run.detector.judgement().explosion_step
    for step in sorted(run.looks):
        if explosion is not None and explosion + 1 < step:
            return
        for (signal, place), value in run.looks[step].items():
            if signal == "overflow_share" and value > 0.0:
                yield Suspect("overflow", place, value)
                return


def _has_grown(run: ReplicaRun) -> bool:
    """Whether the learning rate alone explains large values: the matrices are several times as large as at first."""
    first, last = (frame[SIZES.index("weight")].astype(np.float64) for frame in (run.frames[0], run.frames[-1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return not float(np.nanmedian(last / first)) < GROWN


def _dead(run: ReplicaRun) -> list[str]:
    """Places that put out zeros after the break, and did not at the start."""
    if len(run.looks) < 2:
        return []
    first, last = run.looks[min(run.looks)], run.looks[max(run.looks)]
    return [
        place
        for (signal, place), value in last.items()
        if signal == "zero_share" and value >= DEAD_SHARE > 2.0 * first.get((signal, place), 1.0)
    ]


def _peers(names: Sequence[TensorName]) -> Iterator[list[int]]:
    """Places of the tensors of each kind that enough blocks have."""
    kinds: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name.block is not None:
            kinds.setdefault(name.kind, []).append(i)
    yield from (places for places in kinds.values() if len(places) > FEWEST)
