#!/usr/bin/env bash
# torch 2.13.0, CPU: batch_norm under torch.vmap updates running statistics that are contiguous, and loses the update of those
# that are a view with a gap, without an error or a warning.
#
# Guess before the run: the statistics are updated in place, as without vmap and as in a loop, whatever their strides; or what
# cannot be done in place raises, as other in-place operations under vmap do.
# Seen: an ensemble whose replicas keep mean and variance in one tensor [replica, 2, channel] trains well, validates by its own
# batch, and has at its end the mean and the variance that it began with in evaluation mode. Made contiguous first, it is right.
#
# Output (running mean of three replicas with four channels, after one batch, momentum 0.1):
#   contiguous, vmap: moved in 3 of 3 replicas
#   a view,     loop: moved in 3 of 3 replicas
#   a view,     vmap: moved in 0 of 3 replicas
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F

x = torch.randn(3, 16, 4, 5, 5, generator=torch.Generator().manual_seed(0)) + 1.0


def norm(batch, mean, variance):
    return F.batch_norm(batch, mean, variance, training=True, momentum=0.1)


def moved(mean):
    return f"moved in {int((mean != 0).all(dim=1).sum())} of 3 replicas"


seen = []
mean, variance = torch.zeros(3, 4), torch.ones(3, 4)
torch.vmap(norm)(x, mean, variance)
seen.append(f"contiguous, vmap: {moved(mean)}")
kept = torch.stack([torch.zeros(3, 4), torch.ones(3, 4)], dim=1)  # [replica, 2, channel]
for replica in range(3):
    norm(x[replica], kept[replica, 0], kept[replica, 1])
seen.append(f"a view,     loop: {moved(kept[:, 0])}")
kept = torch.stack([torch.zeros(3, 4), torch.ones(3, 4)], dim=1)
torch.vmap(norm)(x, kept[:, 0], kept[:, 1])
seen.append(f"a view,     vmap: {moved(kept[:, 0])}")
print("\n".join(seen))
expected = """
contiguous, vmap: moved in 3 of 3 replicas
a view,     loop: moved in 3 of 3 replicas
a view,     vmap: moved in 0 of 3 replicas
"""
sys.exit(seen != expected.strip().splitlines())
PY
