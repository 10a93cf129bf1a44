#!/usr/bin/env bash
# torch 2.13.0: torch.optim.Muon computes the update of float32 and of float64 parameters in bfloat16, without an option for
# another type: each entry of a step is a bfloat16 number, with three significant digits.
#
# Guess before the run: the Newton-Schulz iterations run in the type of the parameter, at least in float64, so that a float64 run
# can serve as the reference of a float32 one, as it does for Adam.
# Seen: the step of a float64 parameter is the same as that of a float32 one and consists of bfloat16 numbers; Adam's does not.
# Two implementations of Muon (a float32 one, say) thus differ by some 1e-2 of a step from the first one on, and a CPU without
# bfloat16 units spends most of a step on it. The state has the type of the parameter.
#
# Output:
#   Muon, float32: steps are bfloat16 numbers: True; state in torch.float32
#   Muon, float64: steps are bfloat16 numbers: True; state in torch.float64
#   Adam, float64: steps are bfloat16 numbers: False; state in torch.float64
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch

seen = []
for kind, dtype, slot in (
    (torch.optim.Muon, torch.float32, "momentum_buffer"),
    (torch.optim.Muon, torch.float64, "momentum_buffer"),
    (torch.optim.Adam, torch.float64, "exp_avg"),
):
    weight = torch.nn.Parameter(torch.zeros(48, 48, dtype=dtype))
    weight.grad = torch.randn(48, 48, generator=torch.Generator().manual_seed(0)).to(dtype)
    optimizer = kind([weight], lr=1.0, weight_decay=0.0)
    optimizer.step()
    step = weight.detach()
    coarse = torch.equal(step, step.bfloat16().to(dtype))
    name = f"{kind.__name__}, {str(dtype).removeprefix('torch.')}"
    seen.append(f"{name}: steps are bfloat16 numbers: {coarse}; state in {optimizer.state[weight][slot].dtype}")
    print(seen[-1])
expected = """
Muon, float32: steps are bfloat16 numbers: True; state in torch.float32
Muon, float64: steps are bfloat16 numbers: True; state in torch.float64
Adam, float64: steps are bfloat16 numbers: False; state in torch.float64
"""
sys.exit(seen != expected.strip().splitlines())
PY
