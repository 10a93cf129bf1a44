"""How often is a hold of a real small model judged wrongly? Each beside its hand loop; run by hand, about 5 minutes.

    python -m tests.benchmarks.real_calibration [--runs N] [--family TEXT] [--random N]

A family is one kind of model and loss, with many seeds and learning rates around its edge. The hand loop trains from
the same weights on the same batches and looks, on thousands of fresh examples, at what the model gains over the best
constant predictor, which is written down beside its data. From scratch it trained where that is more than 5 % of what
lies between the constant and the lowest loss, and more than half of the best on the way is kept; a model that brings
something is unharmed where it lost no more than 5 % of its lead (or of its own loss, if that is less).

either: within half to twice of that line (of the half: 0.3 to 0.7) or 4 standard errors of it, or not the same in the
last ten steps: not counted.
false: the hand loop trained or was unharmed, and the tool called it broken; missed: the opposite. Random labels in
2 to 10,000 classes, and models that are constant predictors, may never train.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import cycle, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stresstest.results.records import HARMLESS
from tests.benchmarks.real_families import Batch, Family, families
from tests.user_model import hand_loop
from tests.user_model.untrainable import OCTAVES, Own, constants, random_labels, random_numbers

FRESH_STEP = 10_000_000
LINE = 0.05
CHECKS = 12  # looks on the way
Floats = NDArray[np.float64]


def by_hand(family: Family, seed: int, lr: float) -> tuple[bool | None, list[float]]:
    """Whether training did no harm, `None` where it is near the line; and the losses that it was trained on."""
    own = family.own
    code = hand_loop.UserCode(own.build, own.batch, family.loss, _adam, own.batch_size, family.steps)
    fresh = drawn(family)
    constant = _looked(family, family.constant(), fresh)
    module = hand_loop._built(code, seed)
    start = _looked(family, module, fresh)
    optimizer = code.optimizer(module, lr)
    seen, losses = [start], list[float]()
    looks = {*np.linspace(5, family.steps, CHECKS).astype(int).tolist(), family.steps - 10, family.steps - 5}
    for step in range(family.steps):
        optimizer.zero_grad()
        loss = family.loss(module, code.drawn(step, hand_loop.keys(seed, step)[0]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        losses.append(float(loss.detach()))
        if step + 1 in looks:
            seen.append(_looked(family, module, fresh))
    ends = {_unharmed(family, seen[: len(seen) - i], constant) for i in range(3)}
    return (ends.pop() if len(ends) == 1 else None), losses


@lru_cache(maxsize=1)
def drawn(family: Family) -> Batch:
    """The fresh batches, one below the other: [batches, rows, ...]."""
    each = [
        family.own.batch(FRESH_STEP + i, family.rows, torch.Generator().manual_seed(991 + i))
        for i in range(family.fresh)
    ]
    return torch.stack([batch[0] for batch in each]), torch.stack([batch[1] for batch in each])


def _adam(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=lr)


def _looked(family: Family, module: nn.Module, fresh: Batch) -> Floats:
    with torch.no_grad():
        if len(fresh[0]) == 1:
            return np.array([float(family.loss(module, (fresh[0][0], fresh[1][0])))])
        losses = torch.vmap(lambda x, y: family.loss(module, (x, y)))(*fresh)
    return losses.double().numpy()


def _unharmed(family: Family, looks: Sequence[Floats], against: Floats) -> bool | None:
    """By the looks up to one: above or below the line, or near it."""
    seen, constant = [float(look.mean()) for look in looks], float(against.mean())
    start, end, best = seen[0], seen[-1], min(x for x in seen if math.isfinite(x))
    if not math.isfinite(end):
        return False
    zero, line = constant, LINE * (constant - family.lowest)
    if family.brings:
        zero, line = start, LINE * min(constant - start, start - family.lowest)
        if end - start > line / 2.0:
            return False if end - start > 2.0 * line else None
    else:
        gain = against - looks[-1]
        error = 4.0 * float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
        if constant - end < max(2.0 * line, line + error):
            return False if constant - end < min(line / 2.0, line - error) else None
    kept = (zero - end) / (zero - best) if zero - best > line else 1.0
    return True if kept > 0.7 else False if kept < 0.3 else None


def trials(family: Family, count: int) -> Iterator[tuple[int, float]]:
    """Seeds and learning rates: evenly between the two ends, in an order that mixes them."""
    low, high = family.octaves
    for i in range(count):
        yield i, 2.0 ** (low + (high - low) * ((i * 0.618034) % 1.0))


def score(family: Family, count: int) -> dict[str, int]:
    """The errors in `count` runs."""
    row = {"false": 0, "missed": 0, "either": 0}
    asked = list(trials(family, count))
    for (seed, lr), run in zip(asked, family.own.hold(asked, family.steps), strict=True):
        unharmed, losses = by_hand(family, seed, lr)
        assert np.allclose(run.losses[:2], losses[:2], rtol=1e-3), "not the same run"
        harmless = run.detector.judgement().outcome in HARMLESS
        row["either"] += unharmed is None
        row["false"] += unharmed is True and not harmless
        row["missed"] += unharmed is False and harmless
    return row


def trained(models: Iterator[tuple[str, Own]], count: int, steps: int, each: int = 6) -> tuple[int, list[str]]:
    """How many of so many runs there were, and those that were called trained or harmless."""
    lrs, done, found = cycle(2.0**k for k in OCTAVES), 0, []
    for name, own in islice(models, math.ceil(count / each)):
        asked = [(done + i, next(lrs)) for i in range(min(each, count - done))]
        for (seed, lr), run in zip(asked, own.hold(asked, steps), strict=True):
            outcome = run.detector.judgement().outcome
            found += [f"{name}, seed {seed}, lr {lr:g}: {outcome}"] if outcome in HARMLESS else []
        done += len(asked)
    return done, found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="runs of each family")
    parser.add_argument("--family", default="", help="those whose name has this in it")
    parser.add_argument("--random", type=int, default=1000, help="runs of random labels")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':32}    runs   false  missed  either")
    for name, family in families().items():
        if args.family in name:
            row = score(family, args.runs)
            print(f"{name:32}  {args.runs:6}" + "".join(f"  {value:6}" for value in row.values()), flush=True)
    for name, models in (
        ("random labels", random_labels()),
        ("random numbers", random_numbers()),
        ("constant predictors", constants()),
    ):
        count, found = trained(models, args.random if name == "random labels" else 180 * bool(args.random), 50)
        print(
            f"{name:32}  {count:6}  {len(found)} called trained" + "".join(f"\n  {line}" for line in found), flush=True
        )


if __name__ == "__main__":
    main()
