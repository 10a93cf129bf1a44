"""How often is a hold of the user's own model judged wrongly? Plants runs with known truth; run by hand.

    python tests/benchmarks/fresh_calibration.py [--runs N] [--seed S] [--family TEXT]

Here fresh batches have a say: at the start (does the model bring something?) and at the end (did it gain, rise, look
at its inputs?). Curves and fresh batches are drawn from the same planted truth, each with its noise, and go through
the very functions that judge a hold.

false: what trained or was harmless was called broken or failed; missed: the opposite; word: any wrong outcome.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from stresstest.engine.divergence import Detector
from stresstest.engine.outcomes import FreshLosses, Outcome, Rules
from stresstest.measurements.replica import ReplicaRun
from stresstest.results.records import HARMLESS
from stresstest.user_model.constants.predictor import Constant
from stresstest.user_model.fresh import Judging, conclude, mean, standard_error, starts

Floats = NDArray[np.float64]
Range = tuple[float, float]
Baseline = str  # paired, single (one number for all batches), said (by the file, not looked for) or unknown
MOST = 512  # fresh batches


@dataclass(frozen=True)
class Scene:
    """A task, a model on it and the noise of its batches; losses in any unit.

    `luck` is the standard deviation of a batch's loss that the constant predictor shares, `own` what it does not,
    both in parts of what lies between the constant predictor (or the start, if that is lower) and `best`. `rare`:
    the share of batches that bring all the noise.
    """

    initial: float
    baseline: float
    best: float
    luck: float
    own: float
    known: Baseline = "paired"
    learnable: float = math.nan
    rare: float = 1.0

    @property
    def scale(self) -> float:
        """What there is to learn."""
        return min(self.initial, self.baseline) - self.best

    def drawn(self, rng: Generator, share: float, count: int) -> Floats:
        """Noise of `count` batches."""
        noise = rng.standard_normal(count)
        if self.rare < 1.0:  # as many as are rare are high by one size, the others low by as much in sum
            noise = ((rng.random(count) < self.rare) - self.rare) / math.sqrt(self.rare * (1.0 - self.rare))
        return share * self.scale * noise


@dataclass(frozen=True)
class Story:
    """Mean losses of the steps, the right outcomes, and the noise of the rise from start to end in parts of it."""

    losses: Floats
    truth: frozenset[Outcome]
    drift: float = 0.3

    @property
    def end(self) -> float:
        """The mean loss of fresh batches at the end."""
        return float(self.losses[-1])


@dataclass(frozen=True)
class Planted(Judging):
    """What fresh batches would say: of the model at the start, and at its end once it `ended`."""

    scene: Scene
    story: Story
    luck: Floats
    own: tuple[Floats, Floats]
    rise: Floats
    apart: Floats
    ended: bool = False

    def losses(self, seeds: Sequence[int], count: int, first: int = 0) -> tuple[Floats, Floats]:
        """(the model's loss, the constant predictor's), each [count, 1]."""
        at = slice(first, first + count)
        brings = self.scene.initial < self.scene.baseline
        loss = self.scene.initial + self.luck[at] + self.own[0][at]
        if self.ended and brings:  # the same model, some steps on: what is hard for it stays so
            by = self.story.end - self.scene.initial
            loss = loss + by * (1.0 + self.story.drift * self.rise[at])
        elif self.ended:
            loss = self.story.end + self.luck[at] + self.own[1][at]
        constant = np.full(len(loss), self.constant.baseline_loss)
        if self.scene.known == "paired":
            constant = constant + self.luck[at]
        return loss[:, None], constant[:, None]

    def first_losses(self, seed: int, count: int, first: int) -> Floats:
        """Those of the start, [count]."""
        return replace(self, ended=False).losses([seed], count, first)[0][:, 0]

    def swap(self, row: int, seed: int, count: int) -> FreshLosses:
        """The loss rises as far as the model looks at its inputs: to the constant predictor's, and beyond."""
        level = self.story.end if self.ended else self.scene.initial
        learned = max(0.0, self.scene.baseline - level)
        rise = learned * (1.3 + 0.3 * self.apart[:count]) + 0.02 * self.scene.scale * self.apart[:count]
        return FreshLosses(swap=mean(rise), swap_error=standard_error(rise), swapped_loss=level + mean(rise))


def judged(rng: Generator, scene: Scene, story: Story, rules: Rules = Rules()) -> Outcome:
    """Draw the batches and judge the run as a hold is judged."""
    number = scene.baseline if scene.known != "unknown" else math.nan
    found = torch.zeros(1) if scene.known in ("paired", "single") else None
    constant = Constant(
        "planted", number, number, learnable=scene.learnable, mean=found, paired=scene.known == "paired"
    )
    luck, start, end = (scene.drawn(rng, share, MOST) for share in (scene.luck, scene.own, scene.own))
    free = (rng.standard_normal(MOST), rng.standard_normal(MOST))
    nothing = cast(Any, None)  # population, batches and contract: what is drawn from them is planted
    planted = Planted(nothing, nothing, nothing, constant, rules, scene, story, luck, (start, end), *free)
    (first,) = starts(planted, [0])
    run = ReplicaRun(0, Detector(first.reference, rules, rules.patience), first.paired, first.losses)
    noise = scene.drawn(rng, scene.own, len(story.losses))
    if not first.paired:
        noise = noise + scene.drawn(rng, scene.luck, len(story.losses))
    for loss in story.losses + noise:
        run.detector.update(float(loss))
        if run.detector.settled:
            return run.detector.judgement().outcome
    conclude(replace(planted, ended=True), [run])
    return run.detector.judgement().outcome


# Stories: of models from scratch, then of those that bring something.


def descent(rng: Generator, at: Scene, to: float, steps: int | None = None) -> Floats:
    """Quickly from the start to the constant predictor, slowly below it."""
    t = np.arange(steps or int(rng.integers(60, 200)))
    fast, slow = np.exp(-t / rng.uniform(1, 5)), np.exp(-t / rng.uniform(5, 15))
    top = min(at.initial, at.baseline)
    return to + (at.initial - top) * fast + (top - to) * slow


def trains(rng: Generator, at: Scene, share: Range = (1.0, 1.0)) -> Story:
    """Learns this share of what there is to learn."""
    to = min(at.initial, at.baseline) - rng.uniform(*share) * at.scale
    return Story(descent(rng, at, to), frozenset({"stable"}))


def never(rng: Generator, at: Scene) -> Story:
    """As good as the constant predictor, or hardly worse."""
    level = at.baseline + rng.uniform(0.0, 0.1) * at.scale
    curve = descent(rng, replace(at, best=level), level) if rng.random() < 0.5 else np.full(120, level)
    return Story(curve, frozenset({"failed-to-train"}))


def stays(rng: Generator, at: Scene) -> Story:
    """Where it started, above the constant predictor."""
    return Story(np.full(int(rng.integers(60, 200)), at.initial), frozenset({"failed-to-train"}))


def collapses(rng: Generator, at: Scene, back: Range = (1.0, 1.1)) -> Story:
    """Learns, then gives this share of it back within some steps; 8 to 90 are left."""
    share, fall = rng.uniform(*back), int(rng.integers(1, 20))
    end = at.best + share * at.scale
    curve = descent(rng, at, at.best, int(rng.integers(50, 120)))
    after = [*np.linspace(curve[-1], end, fall + 1)[1:], *np.full(int(rng.integers(8, 90)), end)]
    return Story(np.concatenate([curve, after]), frozenset({"relapsed"}))


def explodes(rng: Generator, at: Scene) -> Story:
    """Grows beyond where it started, by far."""
    curve = descent(rng, at, at.best, int(rng.integers(10, 100)))
    growth = at.scale * np.exp(rng.uniform(0.2, 1.0) * np.arange(1, 40))
    limit = abs(at.initial) + 20.0 * at.scale
    return Story(np.concatenate([curve, np.minimum(curve[-1] + growth, limit)]), frozenset({"exploded"}))


def improves(rng: Generator, at: Scene, share: Range) -> Story:
    """From its start down by this share of what is left to learn."""
    return replace(trains(rng, at, share), drift=rng.uniform(0.1, 0.6))


def rests(rng: Generator, at: Scene, share: Range = (-0.002, 0.01)) -> Story:
    """Nothing is left to learn, and it hardly moves: up by so much of its loss."""
    end = at.initial + rng.uniform(*share) * min(at.baseline - at.initial, abs(at.initial))
    return Story(np.linspace(at.initial, end, int(rng.integers(60, 200))), frozenset({"flat"}), rng.uniform(1.0, 5.0))


def is_damaged(rng: Generator, at: Scene, share: Range) -> Story:
    """Up, soon or slowly, by this share of the way back to the constant predictor (or of its loss, if that is less)."""
    end = at.initial + rng.uniform(*share) * min(at.baseline - at.initial, abs(at.initial))
    t = np.arange(int(rng.integers(60, 200)))
    curve = end + (at.initial - end) * np.exp(-t / rng.uniform(2.0, 15.0))
    return Story(curve, frozenset({"relapsed", "exploded"}), rng.uniform(0.1, 0.6))


def recovers(rng: Generator, at: Scene, to: Range) -> Story:
    """Thrown up to the constant predictor and back, down by this share of what is left to learn."""
    up = np.full(int(rng.integers(8, 20)), at.baseline)
    end = at.initial - rng.uniform(*to) * at.scale
    down = end + (at.baseline - end) * np.exp(-np.arange(int(rng.integers(60, 150))) / rng.uniform(1.0, 3.0))
    curve = np.concatenate([np.full(3, at.initial), up, down])
    return Story(curve, frozenset({"spiked", "stable"} if to[0] > 0.01 else {"flat"}), 0.3)


# Scenes.


def scratch(
    rng: Generator,
    luck: Range = (0.02, 0.3),
    own: Range = (0.02, 0.2),
    known: Baseline = "paired",
    depth: Range = (0.2, 0.9),
    above: Range = (0.02, 1.0),
    rare: float = 1.0,
    offset: float = 0.0,
    size: Range = (1.0, 5.0),
) -> Scene:
    """From scratch: `above` the constant predictor; `depth` is to be learned, both in parts of its loss.

    With an `offset` the loss has an additive constant of so many times its size, and what can be learned is known.
    """
    loss = rng.uniform(*size)
    best = loss * (1.0 - rng.uniform(*depth))
    learnable = loss - 0.8 * best if offset else math.nan
    shift = offset * loss
    at = (loss * (1.0 + rng.uniform(*above)) + shift, loss + shift, best + shift)
    return Scene(*at, rng.uniform(*luck), rng.uniform(*own), known, learnable, rare)


def tuned(
    rng: Generator,
    luck: Range = (0.02, 0.5),
    own: Range = (0.02, 0.2),
    known: Baseline = "paired",
    ahead: Range = (0.2, 0.8),
    left: Range = (0.2, 0.8),
    baseline: float = 3.4,
    rare: float = 1.0,
    shift: float = 0.0,
    learnable: float = math.nan,
) -> Scene:
    """Fine-tuning: starts `ahead` of the constant predictor, in parts of its loss; `left` to learn, in those of its."""
    initial = baseline * (1.0 - rng.uniform(*ahead))
    best = initial * (1.0 - rng.uniform(*left))
    at = (initial + shift, baseline + shift, best + shift)
    return Scene(*at, rng.uniform(*luck), rng.uniform(*own), known, learnable, rare)


Draw = Callable[[Generator], Scene]
Tell = Callable[[Generator, Scene], Story]
RESIDUAL = partial(tuned, baseline=25.0, ahead=(0.98, 0.999), left=(0.5, 0.99), luck=(0.1, 0.3))
NOISY = partial(scratch, luck=(0.3, 1.0), own=(0.3, 1.0), depth=(0.3, 0.9))
SEEN = partial(NOISY, own=(0.3, 0.45))  # in more noise, so many steps do not tell how good the best of them were
SKEWED = partial(scratch, luck=(0.3, 0.8), own=(0.2, 0.6), depth=(0.3, 0.9), rare=0.03)
SINGLE = partial(scratch, known="single", luck=(0.1, 0.5))
SAID = partial(scratch, known="said", luck=(0.02, 0.3))
UNKNOWN = partial(scratch, known="unknown", above=(0.3, 1.0), luck=(0.02, 0.3))
SHIFTED = partial(scratch, offset=300.0)
BELOW_ZERO = partial(scratch, offset=-3.0)
SMALL = partial(scratch, size=(1e-5, 1e-3))
UNKNOWN_TUNED = partial(tuned, known="unknown")
NOISY_TUNED = partial(tuned, luck=(0.3, 1.0), own=(0.3, 1.0))
SKEWED_TUNED = partial(tuned, luck=(0.3, 0.8), own=(0.2, 0.6), rare=0.03)
SHIFTED_TUNED = partial(tuned, shift=900.0, learnable=3.4)
FROM_SCRATCH: dict[str, Tell] = {
    "trains": trains,
    "never": never,
    "stays": stays,
    "collapses": collapses,
    "partly back": partial(collapses, back=(0.7, 0.95)),
    "explodes": explodes,
}
BROUGHT: dict[str, Tell] = {
    "improves much": partial(improves, share=(0.5, 1.0)),
    "improves a little": partial(improves, share=(0.1, 0.3)),
    "rests": rests,
    "damaged a little": partial(is_damaged, share=(0.12, 0.3)),
    "damaged much": partial(is_damaged, share=(0.4, 0.9)),
    "collapses": partial(is_damaged, share=(1.0, 1.1)),
    "recovers, improved": partial(recovers, to=(0.5, 1.0)),
    "recovers, as before": partial(recovers, to=(0.0, 0.0)),
}
SCENES: dict[str, tuple[Draw, dict[str, Tell]]] = {
    "scratch": (scratch, FROM_SCRATCH),
    "one baseline": (SINGLE, FROM_SCRATCH),
    "baseline said": (SAID, FROM_SCRATCH),
    "noisy batches": (NOISY, {name: tell for name, tell in FROM_SCRATCH.items() if name != "partly back"}),
    "noisy batches, less": (SEEN, {"partly back": FROM_SCRATCH["partly back"]}),
    "rare large losses": (SKEWED, FROM_SCRATCH),
    "near zero": (SMALL, FROM_SCRATCH),
    "negative": (BELOW_ZERO, FROM_SCRATCH),
    "large constant": (SHIFTED, FROM_SCRATCH),
    "no baseline": (UNKNOWN, FROM_SCRATCH),
    "tuned": (tuned, BROUGHT),
    "tuned, no baseline": (UNKNOWN_TUNED, BROUGHT),
    "tuned, noisy": (NOISY_TUNED, BROUGHT),
    "tuned, rare large": (SKEWED_TUNED, BROUGHT),
    "tuned, large constant": (SHIFTED_TUNED, BROUGHT),
    "residual": (RESIDUAL, BROUGHT),
}
FAMILIES: dict[str, tuple[Draw, Tell]] = {
    f"{scene}: {story}": (draw, tell) for scene, (draw, tales) in SCENES.items() for story, tell in tales.items()
} | {"scratch: learns 12 to 20 %": (partial(scratch, depth=(0.12, 0.2), own=(0.02, 0.1)), trains)}


def score(family: str, count: int, seed: int = 0, rules: Rules = Rules()) -> dict[str, int]:
    """The errors in `count` runs of a family; the same runs whatever the other families are."""
    rng = np.random.default_rng([seed, zlib.crc32(family.encode())])
    draw, tell = FAMILIES[family]
    row = {"false": 0, "missed": 0, "word": 0}
    for _ in range(count):
        scene = draw(rng)
        story = tell(rng, scene)
        outcome = judged(rng, scene, story, rules)
        harmless = story.truth <= HARMLESS
        row["false"] += harmless and outcome not in HARMLESS
        row["missed"] += not harmless and outcome in HARMLESS
        row["word"] += outcome not in story.truth
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=500, help="runs of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", default="", help="those whose name has this in it")
    args = parser.parse_args()
    print(f"{f'{args.runs} runs each':42}   false  missed    word")
    for family in FAMILIES:
        if args.family in family:
            row = score(family, args.runs, args.seed)
            print(f"{family:42}" + "".join(f"  {value:6}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
