"""How often the gate cries wolf, and how often it sees a loss: simulated from measured scatter. Run by hand:

    python tests/benchmarks/gate_errors.py --measure     # trains 3 variants x 32 seeds, twice
    python tests/benchmarks/gate_errors.py [--gates 10000]

The scatter of max_stable_lr is that of scenarios/ci.yaml, in tests/benchmarks/gate_scatter.json: of each seed with
the fused attention kernel, and with the same formula written out, which differs by rounding alone. A gate without a
change is drawn from it in two ways: `redrawn`, both sides independently, as if a change had touched every random
number and nothing else (nothing pairs them); `rounding`, both sides of one seed, as they were measured. A loss of
one octave is then taken from the head of one line. The gate is the one that `stresstest check` decides by.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics as st
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from tables import show

from stresstest.gate import statistics
from stresstest.scenario.library import find_scenario
from stresstest.scenario.reader import load_scenario

STORED = Path(__file__).with_name("gate_scatter.json")
SEEDS, LOOKS, ALPHA, TOLERANCE = 8, (8, 16), 0.05, 0.5  # what `stresstest check ci` has
Scatter = dict[str, dict[str, list[float]]]  # by line, log2 of max_stable_lr of each seed with each kernel
Draw = Callable[[random.Random, dict[str, list[float]]], tuple[float, float]]


def measure(kernel: str) -> tuple[str, dict[str, list[float]]]:
    """log2 of max_stable_lr by variant, of 32 seeds with one attention kernel."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from stresstest import api

    torch.set_num_threads(1)
    (experiment,) = load_scenario(find_scenario("ci")).experiments
    settings = {**experiment.given, "seeds": 32, "quiet": True}
    with sdpa_kernel(SDPBackend.MATH) if kernel == "plain" else nullcontext():
        result = api.lr_range(settings.pop("model", "decoder"), **settings)
    found = {}
    for row in result.summary:
        values = row.metrics["max_stable_lr"].per_seed
        assert all(value.low is not None for value in values.values()), "every seed trains somewhere"
        found[row.variant] = [math.log2(value.low) for _, value in sorted(values.items()) if value.low is not None]
    return kernel, found


def redrawn(rng: random.Random, line: dict[str, list[float]]) -> tuple[float, float]:
    """Base and head of a seed, independent of each other."""
    return rng.choice(line["fused"]), rng.choice(line["fused"])


def rounding(rng: random.Random, line: dict[str, list[float]]) -> tuple[float, float]:
    """Base and head of a seed, that differ by rounding."""
    pair = rng.choice(list(zip(line["fused"], line["plain"], strict=True)))
    return pair if rng.random() < 0.5 else pair[::-1]


def gate(rng: random.Random, scatter: Scatter, draw: Draw, losses: list[float]) -> tuple[str, bool]:
    """The verdict of one gate of all lines, with its looks; and whether any median is down by more than 10 %."""
    pairs = [[draw(rng, line) for _ in range(LOOKS[-1])] for line in scatter.values()]
    pairs = [[(base, head - loss) for base, head in line] for line, loss in zip(pairs, losses, strict=True)]
    first = [line[:SEEDS] for line in pairs]
    naive = any(st.median(h for _, h in line) - st.median(b for b, _ in line) < math.log2(0.9) for line in first)
    settled: dict[int, str] = {}
    for seeds in LOOKS:
        left = [k for k in range(len(pairs)) if k not in settled]
        bounds = [([(h - b, h - b) for b, h in pairs[k][:seeds]], TOLERANCE) for k in left]
        for k, (verdict, _) in zip(left, statistics.decide(bounds, ALPHA / len(LOOKS), len(pairs)), strict=True):
            if verdict != "inconclusive" or seeds == LOOKS[-1]:
                settled[k] = verdict
    found = set(settled.values())
    return ("regressed" if "regressed" in found else "inconclusive" if "inconclusive" in found else "passed"), naive


def simulate(number: int, scatter: Scatter) -> list[list[str]]:
    """Rows of the table."""
    rows = []
    for name, draw in (("redrawn", redrawn), ("rounding", rounding)):
        for loss in (0.0, 0.5, 1.0, 1.5):
            rng, verdicts, naive = random.Random(0), dict.fromkeys(("regressed", "inconclusive", "passed"), 0), 0
            for _ in range(number):
                losses = [loss if k == 0 else 0.0 for k in range(len(scatter))]
                rng.shuffle(losses)
                verdict, down = gate(rng, scatter, draw, losses)
                verdicts[verdict] += 1
                naive += down
            shares = [f"{verdicts[verdict] / number:.2%}" for verdict in verdicts]
            rows.append([name, f"{loss:g} oct" if loss else "none", *shares, f"{naive / number:.2%}"])
    return rows


def main() -> None:
    """Measure, or simulate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--measure", action="store_true", help="train, and write gate_scatter.json")
    parser.add_argument("--gates", type=int, default=10_000, help="simulated gates a row")
    asked = parser.parse_args()
    if asked.measure:
        with ProcessPoolExecutor(2) as pool:
            kernels = dict(pool.map(measure, ("fused", "plain")))
        lines = {variant: {kernel: kernels[kernel][variant] for kernel in kernels} for variant in kernels["fused"]}
        STORED.write_text(json.dumps(lines) + "\n")
    scatter: Scatter = json.loads(STORED.read_text())
    table = []
    for variant, line in scatter.items():
        moved = [b - a for a, b in zip(line["fused"], line["plain"], strict=True)]
        same = sum(move == 0.0 for move in moved) / len(moved)
        words = [
            f"{st.stdev(line['fused']):.2f}",
            f"{same:.0%}",
            f"{st.pstdev(moved):.2f}",
            f"{max(map(abs, moved)):g}",
        ]
        table.append([variant, str(len(moved)), f"{2 ** st.median(line['fused']):.3g}", *words])
    show(["variant", "seeds", "median", "over seeds, sd in octaves", "rounding: equal", "sd", "largest"], table, True)
    print(
        f"\n{asked.gates:,} gates a row: {len(scatter)} lines, looks at {LOOKS} seeds, tolerance {TOLERANCE} octaves\n"
    )
    headers = [
        "without a change",
        "loss, of one line",
        "regressed",
        "inconclusive",
        "passed",
        "median down more than 10 %",
    ]
    show(headers, simulate(asked.gates, scatter), True)


if __name__ == "__main__":
    main()
