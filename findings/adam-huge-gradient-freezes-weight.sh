#!/usr/bin/env bash
# torch 2.13.0: one gradient element that is huge and finite, as a flipped exponent bit leaves it, freezes its weight under Adam
# for good; clipping does not scale it down but drops the whole step; and neither leaves a NaN to be seen.
#
# Guess before the run: the weight takes one step of about the learning rate (Adam divides by what it saw), is slow for the
# thousand steps that beta2 = 0.999 remembers, and then moves as its neighbour does. Clipped to 1, the gradient keeps its
# direction, so that the huge element takes the whole step.
# Seen: its square overflows, exp_avg_sq is infinite and decays no more: this step and every later one divides by infinity. Under
# clip_grad_norm_ the norm overflows too, the factor is 0, and all gradients of the step become 0; its error_if_nonfinite is
# off by default.
#
# Output (two weights towards 1, the first with one huge gradient at step 0):
#   Adam           after 20000 steps: huge 0, neighbour 1
#   Adam, clipped  after 20000 steps: huge 1, neighbour 1
#   clipped to 1, the gradients of that step: 0 and 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
from torch.nn.utils import clip_grad_norm_

torch.set_num_threads(1)
HUGE = 2.0**100


def trained(clipped):
    """Two weights after 20,000 steps towards 1, and the gradients of the first step as they are applied."""
    weights = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weights], lr=1e-3)
    first = []
    for step in range(20_000):
        optimizer.zero_grad()
        (0.5 * (weights - 1.0).square().sum()).backward()
        if step == 0:
            weights.grad[0] = -HUGE
        if clipped:
            clip_grad_norm_([weights], 1.0)
        first = first or weights.grad.abs().tolist()
        optimizer.step()
    return weights.tolist(), first


seen = []
for name, clipped in (("Adam", False), ("Adam, clipped", True)):
    (huge, neighbour), first = trained(clipped)
    seen.append(f"{name:13}  after 20000 steps: huge {huge:.3g}, neighbour {neighbour:.3g}")
    print(seen[-1])
seen.append(f"clipped to 1, the gradients of that step: {first[0]:.3g} and {first[1]:.3g}")
print(seen[-1])
sys.exit(
    seen
    != [
        "Adam           after 20000 steps: huge 0, neighbour 1",
        "Adam, clipped  after 20000 steps: huge 1, neighbour 1",
        "clipped to 1, the gradients of that step: 0 and 0",
    ]
)
PY
