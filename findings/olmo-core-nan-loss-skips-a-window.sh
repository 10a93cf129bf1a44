#!/usr/bin/env bash
# ai2-olmo-core 3.0.0, torch 2.13.0: SkipStepAdamW, which leaves out steps whose loss or gradient norm is 6 standard deviations
# above the last 128, trains nothing for 129 steps after one loss that is NaN.
#
# Guess before the run: the step of the NaN is left out, and the next one is taken: that is what the guard is for.
# Seen: the NaN stays among the losses whose mean and deviation later ones are held against; both are NaN while it does, no
# comparison with NaN holds, and every step is left out until it has left the window, though all their losses are ordinary.
# A loss that is merely large, at the same place, costs its own step alone.
#
# Output:
#   NaN at step 200: left out 129 steps, 200 to 328
#   100 at step 200: left out 1 steps, 200 to 200
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 PyYAML==6.0.4 cached_path==1.8.10 dataclass-extensions==0.5.0 bettermap==1.3.1
"$folder/venv/bin/pip" install -q --no-deps ai2-olmo-core==3.0.0
"$folder/venv/bin/python" - <<'PY'
import math
import sys

import torch
from olmo_core.optim import SkipStepAdamW


def left_out(odd):
    """The steps that change nothing, where the loss of step 200 is odd."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = SkipStepAdamW([weight], lr=1e-2)
    found = []
    for step in range(400):
        weight.grad = torch.ones(4) * (1.0 + 0.1 * torch.randn(1))
        optimizer.latest_loss = torch.tensor(odd) if step == 200 else 2.0 + 0.01 * torch.randn(())
        optimizer.latest_grad_norm = weight.grad.norm()
        before = weight.detach().clone()
        optimizer.step()
        if torch.equal(before, weight.detach()):
            found.append(step)
    return found


seen = []
for name, odd in (("NaN", math.nan), ("100", 100.0)):
    steps = left_out(odd)
    seen.append(f"{name} at step 200: left out {len(steps)} steps, {steps[0]} to {steps[-1]}")
    print(seen[-1])
sys.exit(
    seen != ["NaN at step 200: left out 129 steps, 200 to 328", "100 at step 200: left out 1 steps, 200 to 200"]
)
PY
