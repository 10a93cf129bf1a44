"""How often is a run called scarred or broken that nothing happened to? Run by hand:

    python tests/benchmarks/shock_false_alarms.py FOLDER [--seeds 10] [--first-seed 0] [--markdown]

Null twins are undisturbed but for the last place of their weights. Of each variant, seed and share of the variant's
boundary, some set the noise as in `stresstest shock` (4, and 12 where that is not enough), and 20 others are judged as
a shock is. The curves stay in FOLDER, a file each: what is there is not trained again, and a rule that changes is
tried on the same curves. A population of all null twins trains at once, each as if it were alone.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shock_lines import UNDISTURBED, Array, branched
from tables import show

from stresstest.experiments.shock.damage import MORE_NULLS, Damage, Twin, damage_of
from stresstest.experiments.shock.disturbance import Disturbance
from stresstest.experiments.shock.line import Line
from stresstest.experiments.shock.noise import null_noise
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench, CellPlan
from stresstest.measurements.boundary import measure_boundary
from stresstest.results.outcome import TRAINED

VARIANTS = ("pre-ln", "post-ln", "normformer", "rezero", "deepnorm")
SHARES = (0.125, 0.25, 0.5)
SIZES = ((16, 2), (16, 2), (16, 2), (32, 4))  # widths and depths, by seed in turn
JUDGED = 20
FEW = 4


def spec_of(variant: str, width: int, depth: int) -> ShockSpec:
    """A small decoder, on short batches."""
    return ShockSpec(variant=(variant,), width=width, depth=depth, heads=2, batch_size=4, seq_len=32)


def boundary(folder: Path, spec: ShockSpec, bench: Bench) -> float | None:
    """The variant's `max_stable_lr`, of one seed."""
    path = folder / f"{spec.variant[0]}-{spec.width}-{spec.depth}.boundary"
    if not path.exists():
        found = measure_boundary(bench, spec, [CellPlan("", spec.variant[0], spec.depth, 0)])[0]
        path.write_text(str(found.metrics["max_stable_lr"].low))
    text = path.read_text()
    return None if text == "None" else float(text)


def train_arms(folder: Path, seeds: Iterable[int]) -> None:
    """Train what is not there, a file an arm."""
    for seed in seeds:
        width, depth = SIZES[seed % len(SIZES)]
        for variant in VARIANTS:
            spec = spec_of(variant, width, depth)
            bench = make_bench(spec, variant, depth, spec.optimizer, "cpu")
            stable = boundary(folder, spec, bench)
            for share in SHARES if stable is not None else ():
                path = folder / f"{variant}_{width}_{depth}_{share:g}_{seed}.npz"
                if not path.exists():
                    assert stable is not None, "asked for above"
                    _train_arm(path, bench, spec, seed, share * stable)
                    print(path.stem, flush=True)


def _train_arm(path: Path, bench: Bench, spec: ShockSpec, seed: int, lr: float) -> None:
    base = Line.fresh(bench, seed, np.full(spec.total, lr))
    base.go(spec.after)
    names = [*(f"null {k}" for k in range(MORE_NULLS)), *(f"judged {k}" for k in range(JUDGED))]
    twin = base.branch()
    twin.go(spec.total)
    losses = branched(bench, base, [UNDISTURBED, *((name, Disturbance(state=null_noise)) for name in names)])
    outcome = twin.run.detector.judgement().outcome
    np.savez(path, losses=losses, lr=lr, baseline=bench.batches.baseline_loss, outcome=outcome)


def judge(folder: Path, markdown: bool) -> None:
    """What the rule says of every null twin, by variant and share."""
    by_share: dict[float, list[tuple[Damage, Twin]]] = {}
    rows = []
    for variant in VARIANTS:
        for share in SHARES:
            said: list[tuple[Damage, Twin]] = []
            twins, more, untrained = [], 0, 0
            for path in sorted(folder.glob(f"{variant}_*_{share:g}_*.npz")):
                twin, judged_NT = _twin(np.load(path))
                if twin is None:
                    untrained += 1
                    continue
                more += len(twin.null_NT) > FEW
                twins.append(twin)
                said += [(damage_of(loss_T, twin, 0), twin) for loss_T in judged_NT]
            by_share.setdefault(share, []).extend(said)
            rows.append([variant, f"{share:g}", *_counts(said), f"{more}", f"{untrained}", *_noise(twins)])
    rows += [["all", f"{share:g}", *_counts(said), "", "", "", ""] for share, said in by_share.items()]
    headings = ["variant", "share", "null twins", "recovered", "scarred", "broke", "beyond noise", "not at once"]
    show(
        [*headings, "arms of 12", "untrained", "noise: median, least to most (nats)", "smallest scar told"],
        rows,
        markdown,
    )


def _twin(stored: Any) -> tuple[Twin | None, Array]:
    """The twin of an arm with its null twins, `None` where it did not train; the other null twins."""
    losses, baseline = stored["losses"], float(stored["baseline"])
    judged = losses[1 + MORE_NULLS :]
    twin = Twin(losses[0], losses[1 : 1 + FEW], baseline)
    if twin.is_noisy:
        twin = Twin(losses[0], losses[1 : 1 + MORE_NULLS], baseline)
    return (twin if twin.tells and str(stored["outcome"]) in TRAINED else None), judged


def _counts(said: Sequence[tuple[Damage, Twin]]) -> list[str]:
    """How many there were, how many recovered, the others; and how many exceed the noise, whatever a scar is."""
    outcomes = [damage.survival for damage, _ in said]
    share = 100 * outcomes.count("recovered") / len(said) if said else 0.0
    beyond = sum(abs(damage.lasting) > twin.sure * twin.noise for damage, twin in said)
    late = sum(damage.recovery_steps > 0.0 for damage, _ in said)
    counted = [outcomes.count("scarred"), outcomes.count("broke"), beyond, late]
    return [str(len(said)), f"{share:.1f} %", *map(str, counted)]


def _noise(twins: Sequence[Twin]) -> list[str]:
    """The noise in nats, and the smallest scar that is above it, as a share of what was learned: median and largest."""
    if not twins:
        return ["-", "-"]
    noises, floors = [twin.noise for twin in twins], [twin.floor / twin.learned for twin in twins]
    words = f"{statistics.median(noises):.2g}, {min(noises):.2g} to {max(noises):.2g}"
    return [words, f"{statistics.median(floors):.1%}, {max(floors):.1%}"]


def main() -> None:
    """Train and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    train_arms(arguments.folder, range(arguments.first_seed, arguments.first_seed + arguments.seeds))
    judge(arguments.folder, arguments.markdown)


if __name__ == "__main__":
    main()
