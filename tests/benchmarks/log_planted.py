"""Breaks planted on real stable logs: python tests/benchmarks/log_planted.py FOLDER [--curves N] [--seed S].

FOLDER holds logs and their `labels.csv`. Each curve is one labelled `stable`, of one stretch, whose rows are taken as
steps; something is planted in it, and it is judged as it is, in means of 10 and in means of 100 rows, where at least
40 rows remain. Heights are shares of what the run had learned. Intervals are Wilson's, 95 %, over curves; curves share
logs.

Found means: a spike of several steps is listed as lasting at its place; one of a single step is listed; a collapse is
`relapsed` or `exploded`, one half way and a tail that rises also `rising`; NaN, also as the 0.0 that a filter wrote, is
`nonfinite` within a row of its place. A resume, a cut and an untouched curve must be neither broken, spiked nor flat.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from labelled_logs import read_labelled
from tables import show

from stresstest.diagnosis.course import Course, courses_of
from stresstest.diagnosis.levels import BEFORE, centred_median
from stresstest.logs.curve import Curve, Floats, FormatFacts, RawLog
from stresstest.logs.segments import assemble

LEAST_ROWS = 40
MEANS = (1, 10, 100)
LOUD = ("spiked", "rising", "relapsed", "exploded", "nonfinite", "failed-to-train", "flat")


@dataclass(frozen=True)
class Planted:
    """A curve with what was planted in it, in steps: [n] losses, the steps if not 0 to n - 1, and where it is."""

    loss: Floats
    first: int = 0
    last: int = 0
    steps: Floats | None = None
    zero_for_nan: bool = False


@dataclass(frozen=True)
class Family:
    """How something is planted (curve, what it learned, noise, random numbers), and whether a course finds it."""

    plant: Callable[[Floats, float, np.random.Generator], Planted]
    found: Callable[[tuple[Course, ...], float, float], bool]
    per_step_only: bool = False


def _place(n: int, rng: np.random.Generator, low: float = 0.2, high: float = 0.8) -> int:
    return int(n * rng.uniform(low, high))


def spike(height: float, length: int) -> Callable[[Floats, float, np.random.Generator], Planted]:
    """A rise of so much that stays for half of its length and then fades."""

    def plant(loss: Floats, learned: float, rng: np.random.Generator) -> Planted:
        first, wide = _place(len(loss), rng), min(length, max(1, len(loss) // 8))
        shape = np.minimum(1.0, 2 * (1 - np.arange(wide) / wide))
        planted = loss.copy()
        planted[first : first + wide] += height * learned * shape
        return Planted(planted, first, first + wide - 1)

    return plant


def collapse(share: float) -> Callable[[Floats, float, np.random.Generator], Planted]:
    """From some step on, so much of what had been learned is gone and stays gone, with the noise that was there."""

    def plant(loss: Floats, learned: float, rng: np.random.Generator) -> Planted:
        first = _place(len(loss), rng, 0.3, 0.9)
        level = centred_median(loss, BEFORE)
        planted = loss.copy()
        planted[first:] += level[first] + share * (loss[0] - level[first]) - level[first:]
        return Planted(planted, first, len(loss) - 1)

    return plant


def nan_tail(as_zero: bool) -> Callable[[Floats, float, np.random.Generator], Planted]:
    """NaN from some step to the end, or the 0.0 of a tool that filters it."""

    def plant(loss: Floats, learned: float, rng: np.random.Generator) -> Planted:
        first = _place(len(loss), rng, 0.1, 0.9)
        planted = loss.copy()
        planted[first:] = math.nan
        return Planted(planted, first, len(loss) - 1, zero_for_nan=as_zero)

    return plant


def one_nan(loss: Floats, learned: float, rng: np.random.Generator) -> Planted:
    """NaN for one step."""
    first = _place(len(loss), rng, 0.1, 0.9)
    planted = loss.copy()
    planted[first] = math.nan
    return Planted(planted, first, first)


def rise(share: float) -> Callable[[Floats, float, np.random.Generator], Planted]:
    """The last part of the run climbs to so much above where it would have been."""

    def plant(loss: Floats, learned: float, rng: np.random.Generator) -> Planted:
        first = _place(len(loss), rng, 0.5, 0.8)
        planted = loss.copy()
        planted[first:] += share * learned * np.linspace(0, 1, len(loss) - first)
        return Planted(planted, first, len(loss) - 1)

    return plant


def resume(loss: Floats, learned: float, rng: np.random.Generator) -> Planted:
    """The run is stopped and taken up some steps before, with other batches."""
    stop = _place(len(loss), rng)
    back = stop - int(rng.integers(1, max(2, len(loss) // 20)))
    again = loss[back:stop][rng.permutation(stop - back)]
    steps = np.concatenate([np.arange(stop), np.arange(back, len(loss))])
    return Planted(np.concatenate([loss[:stop], again, loss[stop:]]), steps=steps.astype(float))


def cut(share: float) -> Callable[[Floats, float, np.random.Generator], Planted]:
    """The beginning of the run, to within a tenth of the share."""
    return lambda loss, learned, rng: Planted(loss[: max(2, int(share * rng.uniform(0.9, 1.1) * len(loss)))])


def is_listed(lasting: bool) -> Callable[[tuple[Course, ...], float, float], bool]:
    """Whether a spike is listed at the place."""

    def found(courses: tuple[Course, ...], first: float, last: float) -> bool:
        spikes = [s for course in courses for s in course.spikes if s.lasting or not lasting]
        return any(s.first <= last + 1 and s.last >= first - 1 for s in spikes)

    return found


def has(*outcomes: str) -> Callable[[tuple[Course, ...], float, float], bool]:
    """Whether a stretch has one of these outcomes."""
    return lambda courses, first, last: any(course.outcome in outcomes for course in courses)


def is_nonfinite(courses: tuple[Course, ...], first: float, last: float) -> bool:
    """Whether the row is found."""
    rows = [course.onset_row for course in courses if course.outcome == "nonfinite"]
    return any(row is not None and abs(row - first) <= 1 for row in rows)


def is_quiet(courses: tuple[Course, ...], first: float, last: float) -> bool:
    """Whether nothing is said against a curve."""
    return not any(course.outcome in LOUD for course in courses)


FAMILIES = {
    "spike of 1 step, 0.5 of what was learned": Family(spike(0.5, 1), is_listed(lasting=False), per_step_only=True),
    "spike of 1 step, 2": Family(spike(2.0, 1), is_listed(lasting=False), per_step_only=True),
    "spike of 20 steps, 0.5": Family(spike(0.5, 20), is_listed(lasting=True)),
    "spike of 20 steps, 2": Family(spike(2.0, 20), is_listed(lasting=True)),
    "spike of 200 steps, 0.5": Family(spike(0.5, 200), is_listed(lasting=True)),
    "spike of 200 steps, 1": Family(spike(1.0, 200), is_listed(lasting=True)),
    "spike of 200 steps, 5": Family(spike(5.0, 200), is_listed(lasting=True)),
    "collapse to the start": Family(collapse(1.0), has("relapsed", "exploded")),
    "collapse, 0.7 given back": Family(collapse(0.7), has("relapsed", "exploded", "rising")),
    "collapse, 0.4 given back": Family(collapse(0.4), has("relapsed", "exploded", "rising")),
    "NaN to the end": Family(nan_tail(as_zero=False), is_nonfinite),
    "NaN to the end, written as 0": Family(nan_tail(as_zero=True), is_nonfinite),
    "NaN for one step": Family(one_nan, is_nonfinite),
    "tail that rises by 0.3": Family(rise(0.3), has("relapsed", "exploded", "rising")),
    "tail that rises by 0.6": Family(rise(0.6), has("relapsed", "exploded", "rising")),
    "resume": Family(resume, is_quiet),
    "cut at 10 %": Family(cut(0.1), is_quiet),
    "cut at 25 %": Family(cut(0.25), is_quiet),
    "cut at 50 %": Family(cut(0.5), is_quiet),
    "untouched": Family(lambda loss, learned, rng: Planted(loss), is_quiet),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--curves", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    curves, repositories = stable_curves(asked.folder)
    rng = np.random.default_rng(asked.seed)
    kinds = [(name, k) for name, family in FAMILIES.items() for k in MEANS if k == 1 or not family.per_step_only]
    counts: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for i in range(asked.curves):
        name, k = kinds[i % len(kinds)]
        enough = [curve for curve in curves if len(curve) // k >= LEAST_ROWS]
        counts[name, k][verdict(enough[rng.integers(len(enough))], FAMILIES[name], k, rng)] += 1
    print(f"{asked.curves} curves, seed {asked.seed}, of {len(curves)} stable logs from {repositories} repositories")
    rows = [[name, *(_share(counts[name, k]) for k in MEANS)] for name in FAMILIES]
    quiet = sum((counts[kind] for kind in kinds if FAMILIES[kind[0]].found is is_quiet), Counter())
    print(f"nothing said against a resume, a cut, an untouched curve: {_share(quiet)}")
    show(["planted", "per step", "means of 10", "means of 100"], rows, asked.markdown)


def stable_curves(folder: Path) -> tuple[list[Floats], int]:
    """The losses of the stable logs that have one stretch and rows enough, and of how many repositories they are."""
    files = [file for file in read_labelled(folder) if file.label == "stable" and len(file.logs) == 1]
    files = [file for file in files if len(file.logs[0].segments) == 1]
    found = [(file.logs[0].segments[0].loss.value, file.repository) for file in files]
    enough = [(loss, repository) for loss, repository in found if len(loss) >= LEAST_ROWS]
    return [loss for loss, _ in enough], len({repository for _, repository in enough})


def verdict(loss: Floats, family: Family, k: int, rng: np.random.Generator) -> str:
    """Whether what was planted is found in means of `k` steps: yes, no, or that it was not judged."""
    learned = max(float(loss[0] - np.median(loss[-max(5, len(loss) // 20) :])), 1e-12)
    planted = family.plant(loss, learned, rng)
    courses = courses_of(assemble(as_logged(planted, k), "planted").segments)
    if family.found(courses, planted.first // k, planted.last // k):
        return "yes"
    return "not judged" if all(course.outcome is None for course in courses) else "no"


def as_logged(planted: Planted, k: int) -> RawLog:
    """What a trainer writes that logs the mean of `k` steps; the rest of less than `k` is not logged."""
    steps = np.arange(float(len(planted.loss))) if planted.steps is None else planted.steps
    loss, step, grad_norm = _means(planted.loss, k), _means(steps, k, last=True), None
    bad = ~np.isfinite(loss)
    if planted.zero_for_nan:
        grad_norm = np.where(bad, math.nan, 1.0)
        loss = np.where(bad, 0.0, loss)
    row = np.arange(len(loss))
    curves = {"loss": Curve(step, loss, row)}
    if grad_norm is not None:
        curves["grad_norm"] = Curve(step, grad_norm, row)
    facts = FormatFacts(roles={"loss": "loss"}, row_kind="mean", zero_for_nan=planted.zero_for_nan)
    return RawLog("planted", curves, replace(facts))


def _means(values: Floats, k: int, last: bool = False) -> Floats:
    rows = values[: len(values) // k * k].reshape(-1, k)
    return np.asarray(rows[:, -1] if last else rows.mean(axis=1))


def _share(counts: Counter[str]) -> str:
    """Found of judged, with Wilson's interval."""
    n, yes = counts["yes"] + counts["no"], counts["yes"]
    if not n:
        return ""
    z, share = 1.96, yes / n
    middle, wide = share + z * z / 2 / n, z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n)
    low, high = ((middle + sign * wide) / (1 + z * z / n) for sign in (-1, 1))
    more = f"; {counts['not judged']} not judged" if counts["not judged"] else ""
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {n}{more}"


if __name__ == "__main__":
    sys.exit(main())
