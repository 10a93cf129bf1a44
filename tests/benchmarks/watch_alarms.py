"""False alarms on stable runs and delays on planted blow-ups, of `stresstest.watch` and of other live rules.

    python tests/benchmarks/watch_alarms.py [--steps 10000] [--seeds 3] [--held-out] [--markdown]

`--held-out` takes the models, data and seeds of watch_heldout.py, on which no constant of the alarm was tuned.

A blow-up is planted at step 200 and followed for 60 steps. It counts where it lasts for ten steps; delays are from the
step at which it is visible: the first of two losses in a row above all of the 100 steps before by a fourth of what was
learned, or one that is not finite.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import watch_heldout
from tables import show
from watch_peers import Rule, installed
from watch_plants import BASES, KINDS, Kind
from watch_runs import STABLE, TAILS, Maker, synthetic

from stresstest.watch.alarm import Alarm

AT, AFTER, SOON = 200, 60, 30


@dataclass
class Curve:
    """The losses and gradient norms of a run, and when a blow-up in it is visible."""

    losses: list[float]
    grad_norms: list[float]
    visible: int = AT


def ours() -> Rule:
    """The provisional alarm."""
    alarm = Alarm()
    return lambda step, loss, grad_norm: any(event.kind == "alarm" for event in alarm.update(loss, step))


def confirmation() -> Rule:
    """The confirmed one."""
    alarm = Alarm()
    return lambda step, loss, grad_norm: any(event.kind == "confirmed" for event in alarm.update(loss, step))


def stable_curves(steps: int) -> dict[str, Curve]:
    """Real small runs, and made losses with heavy tails."""
    curves = {}
    for name, make in STABLE.items():
        run = make(0)
        losses = list(run.losses(steps))
        curves[name] = Curve(losses, run.grad_norms)
    for tail in TAILS:
        curves[f"made, {tail} noise"] = Curve(list(itertools.islice(synthetic(tail, 0), steps)), [1.0] * steps)
    return curves


def held_out_curves(steps: int) -> dict[str, Curve]:
    """Runs that the alarm was not tuned on."""
    curves = {}
    for name, make in watch_heldout.STABLE.items():
        run = make(watch_heldout.FIRST_SEED)
        losses = list(run.losses(steps))
        curves[name] = Curve(losses, run.grad_norms)
    for name, make in watch_heldout.IN_TENS.items():
        run = make(watch_heldout.FIRST_SEED)
        losses = list(watch_heldout.in_tens(run.losses(10 * steps)))
        curves[name] = Curve(losses, run.grad_norms[9::10])
    return curves


def blow_ups(kinds: dict[str, Kind], bases: dict[str, Maker], seeds: range) -> dict[str, list[Curve]]:
    """Those that lasted, by kind."""
    found: dict[str, list[Curve]] = {kind: [] for kind in kinds}
    for kind, planted in kinds.items():
        for base, seed in itertools.product(planted.bases, seeds):
            run = bases[base](seed)
            planted.plant(run, AT)
            losses = list(run.losses(AT + AFTER))
            visible = _visible(losses)
            if visible is not None:
                found[kind].append(Curve(losses, run.grad_norms, visible))
    return found


def _visible(losses: list[float]) -> int | None:
    """The step at which a blow-up shows; None where there is none, or it went away at once."""
    start, level = statistics.median(losses[:3]), statistics.median(losses[AT - 10 : AT])
    limit = max(losses[AT - 100 : AT]) + 0.25 * (start - level)
    bad = [not loss <= limit for loss in losses]
    pairs = (i for i in range(AT, len(losses) - 1) if bad[i] and (bad[i + 1] or not math.isfinite(losses[i])))
    visible = next(pairs, None)
    return visible if visible is not None and sum(bad[visible : visible + 10]) >= 8 else None


def fires(make: Callable[[], Rule], curve: Curve) -> list[int]:
    """The steps at which a rule fires."""
    rule = make()
    pairs = zip(curve.losses, curve.grad_norms, strict=True)
    return [step for step, (loss, norm) in enumerate(pairs) if rule(step, loss, norm)]


def episodes(steps: list[int]) -> int:
    """Alarms at most 20 steps apart are one."""
    return sum(1 for i, step in enumerate(steps) if i == 0 or step - steps[i - 1] > 20)


def delays(make: Callable[[], Rule], curves: list[Curve], within: int) -> str:
    """How many fire so soon after a blow-up is visible, and the median delay of those that do at all."""
    found = []
    for curve in curves:
        after = [step for step in fires(make, curve) if AT <= step <= curve.visible + SOON]
        if after:
            found.append(after[0] - curve.visible)
    soon = sum(delay <= within for delay in found)
    return f"{soon}/{len(curves)}" + (f" ({statistics.median(found):+.0f})" if found else "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rules = {"stresstest.watch": ours, **installed()}

    curves = held_out_curves(asked.steps) if asked.held_out else stable_curves(asked.steps)
    rows = [[name, *(str(episodes(fires(make, curve))) for make in rules.values())] for name, curve in curves.items()]
    totals = [sum(int(row[i + 1]) for row in rows) for i in range(len(rules))]
    per = [f"{10000 * total / (asked.steps * len(curves)):.2f}" for total in totals]
    print(f"Alarms in {asked.steps} steps of stable runs:")
    show(["stable run", *rules], [*rows, ["per 10,000 steps", *per]], asked.markdown)

    if asked.held_out:
        seeds = range(watch_heldout.FIRST_SEED, watch_heldout.FIRST_SEED + asked.seeds)
        planted = blow_ups(watch_heldout.KINDS, watch_heldout.BASES, seeds)
    else:
        planted = blow_ups(KINDS, BASES, range(asked.seeds))
    rows = [
        [kind, *(delays(make, found, 2) for make in rules.values()), delays(confirmation, found, 10)]
        for kind, found in planted.items()
    ]
    print("\nBlow-ups alarmed within 2 steps of being visible (median delay), and confirmed within 10:")
    show(["blow-up", *rules, "confirmed"], rows, asked.markdown)


if __name__ == "__main__":
    main()
