#!/usr/bin/env bash
# torch 2.13.0: ReduceLROnPlateau reduces a tensor LR once for each parameter group.
#
# An LR is a tensor where the optimizer's step is compiled, so that a new LR compiles nothing again; two groups, with and
# without weight decay, are the usual ones.
# Guess before the run: a plateau halves the LR with factor=0.5, as it does a float; an ExponentialLR is the same for both.
# Seen: groups without an LR of their own hold one and the same tensor. The scheduler goes from group to group and fills
# it with `factor` times what it finds there: two groups leave a quarter in place of a half, and eight a 256th. ExponentialLR,
# which works out all LRs before it sets one, does not.
#
# Output (LR after 1 plateau or 1 step, from 0.1, factor 0.5):
#   ReduceLROnPlateau, float  LR, 2 groups: 0.05
#   ReduceLROnPlateau, tensor LR, 1 group:  0.05
#   ReduceLROnPlateau, tensor LR, 2 groups: 0.025
#   ReduceLROnPlateau, tensor LR, 8 groups: 0.000390625
#   ExponentialLR,     tensor LR, 8 groups: 0.05
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau


def after_one(name: str, tensor: bool, groups: int) -> float:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(groups)]
    lr = torch.tensor(0.1, dtype=torch.float64) if tensor else 0.1
    optimizer = torch.optim.AdamW([{"params": [w], "weight_decay": 0.1 * (w is weights[0])} for w in weights], lr=lr)
    plateau = name == "ReduceLROnPlateau"
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0) if plateau else ExponentialLR(optimizer, 0.5)
    for weight in weights:
        weight.grad = torch.ones(1)
    optimizer.step()
    if plateau:
        scheduler.step(1.0)
        scheduler.step(1.0)  # no better than before
    else:
        scheduler.step()
    return float(f"{float(optimizer.param_groups[0]['lr']):.9g}")


asked = [("ReduceLROnPlateau", False, 2), *(("ReduceLROnPlateau", True, n) for n in (1, 2, 8)), ("ExponentialLR", True, 8)]
found = [after_one(*each) for each in asked]
for (name, tensor, groups), lr in zip(asked, found):
    many = f"{groups} group{'s: ' if groups > 1 else ':  '}"
    print(f"{name + ',':18} {'tensor' if tensor else 'float '} LR, {many}{lr:.9g}")
raise SystemExit(0 if found == [0.05, 0.05, 0.025, 0.000390625, 0.05] else 1)
PY
