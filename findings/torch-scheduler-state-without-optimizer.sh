#!/usr/bin/env bash
# torch 2.13.0: a scheduler's restored state sets no learning rate, and whether the schedule finds its way back depends on its form.
#
# Guess before the run: after scheduler.load_state_dict the optimizer has the learning rate of the step where it was saved,
# get_last_lr() says so, and every schedule goes on as it would have.
# Seen: get_last_lr() says the saved rate while the optimizer still has the one that it was built with: the first step after a
# resume that lost the optimizer's state is taken at the peak. LambdaLR is right from the second step on, since it computes each
# rate from the step; CosineAnnealingLR multiplies the rate that the optimizer has, and stays too high to its end.
#
# Output (peak 1.0, saved at step 50 of 100, where both schedules are at 0.5):
#   LambdaLR           said 0.5, step 51 at 1, step 52 at 0.49, step 76 at 0.25
#   CosineAnnealingLR  said 0.5, step 51 at 1, step 52 at 0.969, step 76 at 0.293
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

warnings.simplefilter("ignore")
SCHEDULES = {
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda step: 1.0 - step / 100),
    "CosineAnnealingLR": lambda optimizer: CosineAnnealingLR(optimizer, 100),
}
seen = []
for name, schedule in SCHEDULES.items():
    first = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(first)
    for _ in range(50):
        first.step()
        scheduler.step()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    resumed = schedule(optimizer)
    resumed.load_state_dict(scheduler.state_dict())
    said, taken = resumed.get_last_lr()[0], {}
    for step in range(51, 101):
        taken[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        resumed.step()
    line = f"{name:18} said {said:.3g}, " + ", ".join(f"step {step} at {taken[step]:.3g}" for step in (51, 52, 76))
    print(line)
    seen.append(line)
sys.exit(
    seen
    != [
        "LambdaLR           said 0.5, step 51 at 1, step 52 at 0.49, step 76 at 0.25",
        "CosineAnnealingLR  said 0.5, step 51 at 1, step 52 at 0.969, step 76 at 0.293",
    ]
)
PY
