"""Which bits matter? One bit of one number flips, in one trained model; run by hand:

    python tests/benchmarks/shock_bit_flips.py FOLDER [--variant pre-ln] [--weights 32] [--others 8] [--markdown]

A decoder of two blocks of width 16 trains 100 steps by Adam at a quarter of its boundary, in float32. Of each of the
32 bits so many flips hit weights, a gradient, or what a product of matrices puts out in a forward pass, each in a
place drawn at random, and every run goes on for 150 steps beside its undisturbed twin. The curves stay in FOLDER.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from shock_lines import UNDISTURBED, Array, branched
from tables import show

from stresstest.experiments.shock.bits import Flips
from stresstest.experiments.shock.damage import Damage, Twin, damage_of
from stresstest.experiments.shock.disturbance import Disturbance
from stresstest.experiments.shock.line import Line
from stresstest.experiments.shock.noise import null_noise
from stresstest.experiments.shock.search import WORSE
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench, CellPlan
from stresstest.measurements.boundary import measure_boundary

PLACES = ("weight", "gradient", "activation")
NULLS = 12
GROUPS = (  # bits of a float32, from the sign down
    ("31, sign", range(31, 32)),
    ("30, exponent", range(30, 31)),
    ("29, exponent", range(29, 30)),
    ("28 to 26, exponent", range(26, 29)),
    ("25 to 23, exponent", range(23, 26)),
    ("22 to 20, mantissa", range(20, 23)),
    ("19 to 0, mantissa", range(20)),
)


def flip(where: str, bit: int) -> Disturbance:
    """One flip of a bit."""
    flips = Flips(1, bit)
    if where == "weight":
        return Disturbance(state=flips.in_weights)
    if where == "gradient":
        return Disturbance(steps=1, gradient=flips.in_gradient)
    return Disturbance(steps=1, forward=flips.in_activations)


def base_of(bench: Bench, spec: ShockSpec) -> Line:
    """The run up to the flips."""
    found = measure_boundary(bench, spec, [CellPlan("", spec.variant[0], spec.depth, 0)])[0]
    stable = found.metrics["max_stable_lr"].low
    assert stable is not None, "it trains somewhere"
    line = Line.fresh(bench, 0, np.full(spec.total, spec.lr_share * stable))
    line.go(spec.after)
    return line


def train_all(folder: Path, variant: str, numbers: dict[str, int]) -> None:
    """Train what is not there: a file for each place and bit."""
    spec = ShockSpec(variant=(variant,), width=16, depth=2, heads=2, batch_size=4, seq_len=32)
    bench = make_bench(spec, variant, spec.depth, spec.optimizer, "cpu")
    base = base_of(bench, spec)
    nulls = [(f"null {k}", Disturbance(state=null_noise)) for k in range(NULLS)]
    losses = branched(bench, base, [UNDISTURBED, *nulls])
    np.savez(folder / "twin.npz", losses=losses, baseline=bench.batches.baseline_loss, lr=base.lr_N[0])
    for bit in reversed(range(32)):
        for where in PLACES:
            path = folder / f"{where}_{bit}.npy"
            if not path.exists():
                flips = [(f"{where} {bit} {k}", flip(where, bit)) for k in range(numbers[where])]
                np.save(path, branched(bench, base, flips))
                print(path.stem, flush=True)


def judge(folder: Path, markdown: bool) -> None:
    """What became of each, by bit."""
    stored = np.load(folder / "twin.npz")
    twin = Twin(stored["losses"][0], stored["losses"][1:], float(stored["baseline"]))
    print(f"LR {float(stored['lr']):.3g}, learned {twin.learned:.3g} nats, floor {twin.floor:.2g}")
    for where in PLACES:
        rows = []
        for name, bits in GROUPS:
            paths = [folder / f"{where}_{bit}.npy" for bit in bits]
            curves = np.concatenate([np.load(path) for path in paths if path.exists()])
            rows.append([name, *_words(curves, twin)])
        all_of_them = np.concatenate([np.load(path) for path in sorted(folder.glob(f"{where}_*.npy"))])
        rows.append(["all", *_words(all_of_them, twin)])
        show(["bit", where, *WORSE, "not finite", "peak excess: median, most (nats)"], rows, markdown)


def _words(curves: Array, twin: Twin) -> list[str]:
    damages = [damage_of(loss_T, twin, 0) for loss_T in curves]
    said = [damage.survival for damage in damages]
    gone = sum(math.isnan(damage.lasting) for damage in damages)
    return [
        str(len(said)),
        *(f"{100 * said.count(each) / len(said):.1f} %" for each in WORSE),
        str(gone),
        _peak(damages),
    ]


def _peak(damages: Sequence[Damage]) -> str:
    peaks = [damage.peak_excess for damage in damages if math.isfinite(damage.peak_excess)]
    return f"{statistics.median(peaks):.2g}, {max(peaks):.2g}" if peaks else "-"


def main() -> None:
    """Train and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="pre-ln")
    parser.add_argument("--weights", type=int, default=32)
    parser.add_argument("--others", type=int, default=8)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    others = arguments.others
    train_all(
        arguments.folder, arguments.variant, {"weight": arguments.weights, "gradient": others, "activation": others}
    )
    judge(arguments.folder, arguments.markdown)


if __name__ == "__main__":
    main()
