"""How often are the outcome rules wrong? Judges loss curves planted with known truth; run by hand.

    python tests/benchmarks/outcome_calibration.py [--curves N] [--seed S] [--rules key=value ...]

false: a sound curve was called broken (relapsed, exploded, nonfinite) or failed; missed: the opposite; word: any
wrong outcome. onset, blow-up: steps late against the planted first step (median and worst); a slow
relapse cannot be seen before it gave something back. Beside ours, on the same curves: the LR finders'
rule (5x: the smoothed loss is above 5 times its best) and "non-finite only" (nf).
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from stresstest.engine.divergence import judge
from stresstest.engine.outcomes import Outcome, Reference, Rules

Floats = NDArray[np.float64]
Range = tuple[float, float]
Step = int | None
BROKEN: frozenset[Outcome] = frozenset({"relapsed", "exploded", "nonfinite"})
NO_USE: frozenset[Outcome] = BROKEN | {"failed-to-train"}  # which the rivals do not look for
MEDIAN_OF_5 = 0.56  # standard deviation of the median of 5, in those of one loss
LARGEST = 3e38  # float32 overflows beyond


@dataclass(frozen=True)
class Setting:
    """A task and a model on it; losses in nats.

    sigma: of the batch noise where it is constant; `None` where losses are relative to the constant
    predictor on the same batch: 0.012 where nothing is learned, and `loudness` x 0.11 x learned more.
    """

    initial: float
    baseline: float
    chance: float
    best: float
    sigma: float | None
    loudness: float

    def noise(self, mean: Floats) -> Floats:
        """Standard deviation of each loss around the planted `mean`."""
        if self.sigma is not None:
            return np.full(mean.shape, self.sigma)
        learned, lost = np.maximum(0.0, self.baseline - mean), np.maximum(0.0, mean - self.baseline)
        return 0.012 + 0.11 * self.loudness * learned + 0.02 * lost


@dataclass(frozen=True)
class Curve:
    """Losses and their truth: every right outcome, and the steps where breaking and blowing up began."""

    losses: list[float]
    reference: Reference
    truth: frozenset[Outcome]
    onset: Step
    explosion: Step
    constant_lr: bool = False  # judged as a hold is, else as a ramp


def drawn(
    rng: Generator,
    initial: Range = (5.6, 6.6),
    baseline: float = 3.18,
    chance: float = 5.55,
    best: Range = (2.1, 2.9),
    noise: Range | None = None,
    loudness: float = 1.0,
) -> Setting:
    """A setting, by default a language model's; `noise`: constant batch noise, as a share of the learned."""
    lowest = rng.uniform(*best)
    sigma = None if noise is None else (baseline - lowest) * rng.uniform(*noise)
    return Setting(rng.uniform(*initial), baseline, chance, lowest, sigma, loudness)


def planted(
    rng: Generator, at: Setting, mean: Floats, *truth: Outcome, onset: Step = None, explosion: Step = None
) -> Curve:
    noise = at.noise(np.where(np.isfinite(mean), mean, 0.0))
    losses = (mean + noise * rng.standard_normal(len(mean))).tolist()
    std = at.sigma or 0.01 * at.initial
    reference = Reference(at.initial, std, at.baseline, at.chance, MEDIAN_OF_5 * (at.sigma or 0.0))
    return Curve(losses, reference, frozenset(truth), onset, explosion)


def descent(rng: Generator, at: Setting, given_back: Sequence[float] | Floats = ()) -> tuple[Floats, int]:
    """Quickly to the constant predictor, slowly below it; then these shares of it are given back.

    Returns the mean losses and the step at which the giving back starts.
    """
    start = int(rng.integers(100, 300))
    t = np.arange(start + len(given_back))
    fast, slow = np.exp(-t / rng.uniform(2, 10)), np.exp(-t / rng.uniform(10, 60))
    mean = at.best + (at.initial - at.baseline) * fast + (at.baseline - at.best) * slow
    mean[start:] += np.asarray(given_back) * (at.baseline - mean[start:])
    return mean, start


def held(share: float, rng: Generator, low: int, high: int) -> Floats:
    return np.full(int(rng.integers(low, high + 1)), share)


def steady(rng: Generator, at: Setting) -> Curve:
    return planted(rng, at, descent(rng, at)[0], "stable")


def slow_learner(rng: Generator, at: Setting) -> Curve:
    mean = np.linspace(at.baseline + rng.uniform(0.0, 1.0), at.best, int(rng.integers(150, 400)))
    return planted(rng, at, mean, "stable")


def never(rng: Generator, at: Setting, from_baseline: bool) -> Curve:
    level = at.baseline + rng.uniform(0.0, 0.1) if from_baseline else at.initial
    return planted(rng, at, held(level, rng, 150, 400), "failed-to-train")


def spike(rng: Generator, at: Setting, low: int, high: int, above_start: bool = False) -> Curve:
    """Up and back; so short a spike may be called either, a longer one may leave a scar."""
    height, scar = rng.uniform(0.7, 1.2), rng.uniform(0.0, 0.15) if low >= 10 else 0.0
    if above_start:
        height = 1.3 * math.exp(rng.uniform(0, 4)) * (at.initial - at.best) / (at.baseline - at.best)
    mean, _ = descent(rng, at, [*held(height, rng, low, high), *held(scar, rng, 30, 100)])
    truth: list[Outcome] = ["spiked"] if low >= 10 else ["spiked", "stable"]
    return planted(rng, at, mean, *truth)


def relapse(
    rng: Generator, at: Setting, low: int = 1, high: int = 4, fade: float = 0.0, then_nan: bool = False
) -> Curve:
    """Back to the constant predictor, or just above, within so many steps; perhaps after a slow fade."""
    end = min(rng.uniform(1.0, 1.1), (at.initial - at.best) / (at.baseline - at.best))
    given = np.linspace(0, rng.uniform(0.1, fade), int(rng.integers(40, 120))) if fade else np.zeros(0)
    fall = np.linspace(0, end, int(rng.integers(low, high + 1)) + 1)[1:]
    mean, start = descent(rng, at, [*given, *fall, *held(end, rng, 8, 80)])
    if not then_nan:
        return planted(rng, at, mean, "relapsed", onset=start + len(given))
    mean[-1] = math.nan
    return planted(rng, at, mean, "nonfinite", onset=start, explosion=len(mean) - 1)


def partly_back(rng: Generator, at: Setting) -> Curve:
    lasting = rng.uniform(0.4, 0.8)
    back = np.linspace(1.0, lasting, int(rng.integers(5, 30)))
    mean, onset = descent(rng, at, [*held(1.0, rng, 5, 30), *back, *held(lasting, rng, 20, 80)])
    return planted(rng, at, mean, "relapsed", onset=onset)


def explosion(rng: Generator, at: Setting, fade: float = 0.0, plateau: float = math.inf) -> Curve:
    """Exponential growth, perhaps after a slow fade, perhaps to a plateau between 8 and `plateau`."""
    given = np.linspace(0, rng.uniform(0.1, fade), int(rng.integers(40, 120))) if fade else np.zeros(1)
    rate = math.exp(rng.uniform(math.log(0.1), math.log(8.0)))
    mean, start = descent(rng, at, [*given, *np.full(math.ceil(8 / rate) + 10, given[-1])])
    onset = start + len(given)
    limit, highest = (at.initial, math.inf) if plateau == math.inf else (at.chance, rng.uniform(8.0, plateau))
    growth = 0.02 * (limit - at.best) * np.exp(rate * np.arange(1, len(mean) - onset + 1))
    mean[onset:] = np.minimum(mean[onset:] + growth, highest)
    mean[mean > LARGEST] = math.inf
    above = onset + int(np.argmax(mean[onset:] > limit))
    return planted(rng, at, mean, "exploded", "nonfinite", onset=onset, explosion=above)


def thrown_up(rng: Generator, at: Setting, then: Outcome) -> Curve:
    """The first steps throw the loss above its start, as AdaGrad's do; it comes back and learns, or does not."""
    first = int(rng.integers(60, 150) if then == "exploded" else rng.integers(8, 40))
    flung = at.initial * np.exp(rng.uniform(0.3, 4.0)) * np.linspace(1.0, rng.uniform(0.8, 1.0), first)
    mean = np.concatenate([np.full(3, at.initial), flung])
    if then == "failed-to-train":
        mean = np.concatenate([mean, held(at.baseline + rng.uniform(0.0, 0.1), rng, 100, 300)])
    elif then == "spiked":
        mean = np.concatenate([mean, descent(rng, at)[0]])
    at_start = 3 if then == "exploded" else None
    return replace(planted(rng, at, mean, then, explosion=at_start), constant_lr=True)


def nonfinite(rng: Generator, at: Setting, value: float, huge: int = 0) -> Curve:
    """A non-finite loss at a random step, after up to `huge` growing ones; what follows is finite again."""
    mean, start = descent(rng, at, held(0.0, rng, 20, 80))
    before = int(rng.integers(0, huge + 1))
    mean[start : start + before] = at.initial * np.exp(rng.uniform(0.5, 3) * np.arange(1, before + 1))
    mean[start + before] = value
    truth: list[Outcome] = ["nonfinite", "exploded"] if huge else ["nonfinite"]
    return planted(rng, at, mean, *truth, onset=start, explosion=start)


Draw = Callable[[Generator], Setting]
SOME_NOISE, MUCH_NOISE, ANY_NOISE = (partial(drawn, noise=n) for n in ((0.02, 0.1), (0.1, 0.3), (0.02, 0.3)))
FAR_START = partial(drawn, initial=(50.0, 50.0), best=(2.3, 2.3))
NEGATIVE = partial(drawn, initial=(-1.0, -1.0), baseline=-1.2, chance=0.0, best=(-6.0, -6.0), noise=(0.01, 0.12))
NEAR_ZERO = partial(drawn, initial=(0.05, 0.05), baseline=0.04, chance=0.05, best=(0.001, 0.001), noise=(0.01, 0.1))
FAMILIES: dict[str, tuple[Draw, Callable[[Generator, Setting], Curve]]] = {
    "clean descent": (partial(drawn, loudness=0.25), steady),
    "noisy plateau": (drawn, steady),
    "noisy plateau, x1.5": (partial(drawn, loudness=1.5), steady),
    "noisy plateau, x2": (partial(drawn, loudness=2.0), steady),
    "constant noise 2-10 %": (SOME_NOISE, steady),
    "constant noise 10-30 %": (MUCH_NOISE, steady),
    "slow learner": (drawn, slow_learner),
    "spike, 1-2 steps": (drawn, partial(spike, low=1, high=2, above_start=True)),
    "spike, 3-4 steps": (drawn, partial(spike, low=3, high=4)),
    "spike, 3-4, above l0": (drawn, partial(spike, low=3, high=4, above_start=True)),
    "spike, 10-40 steps": (drawn, partial(spike, low=10, high=40)),
    "slow relapse": (drawn, partial(relapse, low=20, high=100)),
    "collapse": (drawn, relapse),
    "collapse, partly back": (drawn, partly_back),
    "collapse, constant noise": (ANY_NOISE, relapse),
    "never below baseline": (drawn, partial(never, from_baseline=True)),
    "never, constant noise": (ANY_NOISE, partial(never, from_baseline=True)),
    "never left l0": (drawn, partial(never, from_baseline=False)),
    "explosion": (drawn, explosion),
    "thrown up, then learns": (drawn, partial(thrown_up, then="spiked")),
    "thrown up, never learns": (drawn, partial(thrown_up, then="failed-to-train")),
    "thrown up for good": (drawn, partial(thrown_up, then="exploded")),
    "NaN": (drawn, partial(nonfinite, value=math.nan)),
    "inf": (drawn, partial(nonfinite, value=math.inf)),
    "huge losses, then NaN": (drawn, partial(nonfinite, value=math.nan, huge=6)),
    "collapse, then NaN": (drawn, partial(relapse, then_nan=True)),
    "l0 50, stable": (FAR_START, steady),
    "l0 50, explosion to 8-20": (FAR_START, partial(explosion, plateau=20.0)),
    "negative, stable": (NEGATIVE, steady),
    "negative, explosion": (NEGATIVE, explosion),
    "negative, relapse": (NEGATIVE, partial(relapse, low=1, high=60)),
    "near zero, stable": (NEAR_ZERO, steady),
    "near zero, explosion": (NEAR_ZERO, explosion),
    "fade, then collapse": (drawn, partial(relapse, fade=0.4)),
    "fade, then explosion": (drawn, partial(explosion, fade=0.4)),
}


def curves(family: str, count: int, seed: int = 0) -> list[Curve]:
    """The same curves for a family and seed, whatever the other families are."""
    rng = np.random.default_rng([seed, zlib.crc32(family.encode())])
    draw, story = FAMILIES[family]
    return [story(rng, draw(rng)) for _ in range(count)]


def five_times_best(losses: Sequence[float]) -> bool:
    """The LR finders' rule: the exponential average (weight 0.05) goes above 5 times its best."""
    smooth = best = losses[0]
    for loss in losses[1:]:
        smooth = 0.05 * loss + 0.95 * smooth
        best = min(best, smooth)
        if smooth > 5 * best:
            return True
    return False


def score(found: Sequence[Curve], rules: Rules = Rules()) -> dict[str, int]:
    """The errors of each rule on these curves, by column of the table."""
    judged = [judge(c.losses, c.reference, rules, rules.patience if c.constant_lr else None) for c in found]
    bad = {rule: [curve.truth <= broken for curve in found] for rule, broken in (("", NO_USE), ("5x ", BROKEN))}
    says = {
        "": (bad[""], [judgement.outcome in NO_USE for judgement in judged]),
        "5x ": (bad["5x "], [five_times_best(curve.losses) for curve in found]),
        "nf ": (bad["5x "], [not all(map(math.isfinite, curve.losses)) for curve in found]),
    }
    row = {"word": sum(j.outcome not in c.truth for c, j in zip(found, judged, strict=True))}
    for rule, (truth, answers) in says.items():
        wrong = [answer for answer, right in zip(answers, truth, strict=True) if answer != right]
        row |= {f"{rule}false": sum(wrong), f"{rule}missed": len(wrong) - sum(wrong)}
    for name, step in (("onset", "onset"), ("blow-up", "explosion")):
        pairs = [(getattr(j, f"{step}_step"), getattr(c, step)) for c, j in zip(found, judged, strict=True)]
        late = [said - true for said, true in pairs if said is not None and true is not None]
        row |= {name: round(float(np.median(late))), f"{name} worst": max(late, key=abs)} if late else {}
    return row


def table(count: int, seed: int, rules: Rules) -> str:
    """A line per family, and the sums."""
    ours, rivals = ["false", "missed", "word"], ["5x false", "5x missed", "nf false", "nf missed"]
    rows = {family: score(curves(family, count, seed), rules) for family in FAMILIES}
    rows["sum"] = {column: sum(row[column] for row in rows.values()) for column in ours + rivals}
    columns = [*ours, "onset", "onset worst", "blow-up", "blow-up worst", *rivals]
    lines = [f"{f'{count} curves each':24}" + "".join(f"  {column:>6}" for column in columns)]
    for family, row in rows.items():
        cells = (f"  {row.get(column, '-'):>{max(6, len(column))}}" for column in columns)
        lines.append(f"{family:24}" + "".join(cells))
    return "\n".join(lines)


def parsed_rules(settings: Sequence[str]) -> Rules:
    """The rules with `key=value` changes."""
    kinds = {key: type(value) for key, value in dataclasses.asdict(Rules()).items()}
    pairs = [setting.split("=", 1) for setting in settings]
    return dataclasses.replace(Rules(), **{key: kinds[key](value) for key, value in pairs})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--curves", type=int, default=500, help="curves of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rules", nargs="+", default=[], metavar="KEY=VALUE", help="other constants")
    args = parser.parse_args()
    print(table(args.curves, args.seed, parsed_rules(args.rules)))


if __name__ == "__main__":
    main()
