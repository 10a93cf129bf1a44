#!/usr/bin/env bash
# prodigyopt 1.1.2 with torch 2.13.0's fully_shard: each rank trains its part of the weights with another step size.
#
# Guess before the run: Prodigy estimates one step size d from all parameters; with DTensors the sums that it takes are
# over all ranks, so that d is the same on each rank, and that of one process.
# Seen: .item() of such a sum is the rank's own part. Every rank has a d of its own, without an error or a warning, and the
# parts of one weight matrix are stepped differently. torch's own Adam agrees with one process on each rank.
#
# Output (the digits differ by rounding):
#   one process: d = 3.9e-02
#   two ranks: d = 4.0e-02 and 3.8e-02; largest difference of a weight from one process: 1.1e-01
#   Adam, the same: largest difference 0e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 prodigyopt==1.1.2
cd "$folder"
cat > train.py <<'PY'
import os

import torch
import torch.distributed as dist
from prodigyopt import Prodigy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

torch.set_num_threads(1)
STEPS = 20


def trained(kind, sharded, **settings):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    x, y = torch.randn(32, 8), torch.randn(32, 2)
    if sharded:
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = kind(model.parameters(), **settings)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    weights = [p.full_tensor() if sharded else p for p in model.parameters()]
    return optimizer.param_groups[0].get("d"), torch.cat([w.detach().flatten() for w in weights])


dist.init_process_group("gloo")
alone, expected = trained(Prodigy, False, lr=1.0)
mine, weights = trained(Prodigy, True, lr=1.0)
_, adam_alone = trained(torch.optim.Adam, False, lr=1e-3)
_, adam = trained(torch.optim.Adam, True, lr=1e-3)
each = [None] * dist.get_world_size()
dist.all_gather_object(each, float(mine))
if dist.get_rank() == 0:
    off, adam_off = float((weights - expected).abs().max()), float((adam - adam_alone).abs().max())
    print(f"one process: d = {float(alone):.1e}")
    print(f"two ranks: d = {each[0]:.1e} and {each[1]:.1e}; largest difference of a weight from one process: {off:.1e}")
    print(f"Adam, the same: largest difference {adam_off:.0e}")
    same = abs(each[0] - each[1]) < 1e-3 * max(each)
    os._exit(0 if not same and adam_off < 1e-5 else 1)
PY
"$folder/venv/bin/torchrun" --standalone --nproc-per-node 2 train.py 2> /dev/null
