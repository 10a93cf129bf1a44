#!/usr/bin/env bash
# torch 2.13.0: ASGD takes a learning rate that is set between steps one step late, an LR finder's too.
#
# Guess before the run: as with every torch optimizer, group["lr"] is read by the step that follows.
# Seen: ASGD steps with eta, which it works out from lr at the *end* of the step before. A range test that sets the
# LR before each step plots each loss against the LR of one step later (here: 10 times too high); SGD does not.
#
# Output:
#   SGD:  the LRs set are 0.001 0.01 0.1; the steps taken are 0.001 0.01 0.1
#   ASGD: the LRs set are 0.001 0.01 0.1; the steps taken are 0.001 0.001 0.01
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch

LRS = (1e-3, 1e-2, 1e-1)
found = {}
for kind in (torch.optim.SGD, torch.optim.ASGD):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = kind([weight], lr=LRS[0])
    steps = []
    for lr in LRS:
        optimizer.param_groups[0]["lr"] = lr
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
        steps.append(float(f"{before - weight.item():.1g}"))
    found[kind.__name__] = steps
    set_, taken = (" ".join(f"{value:g}" for value in values) for values in (LRS, steps))
    print(f"{kind.__name__ + ':':5} the LRs set are {set_}; the steps taken are {taken}")
raise SystemExit(0 if found == {"SGD": [1e-3, 1e-2, 1e-1], "ASGD": [1e-3, 1e-3, 1e-2]} else 1)
PY
