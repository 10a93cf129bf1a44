#!/usr/bin/env bash
# heavyball 3.2.1 (with torch 2.13.0): Muon's step in float32 depends on torch's global generator.
#
# Guess before the run: a step is a function of parameters, gradient and state; only data order, dropout and
# initialisation need a seed.
# Seen: from the same weights and gradient, two global seeds give other weights after one step (AdamW of the same
# package does not). Whoever compares two learning rates, or resumes a run, gets another course of training unless the
# generator's state at every step is the same too: seed it before each step.
#
# Output:
#   AdamW: same seed differs by 0, another seed by 0
#   Muon:  same seed differs by 0, another seed by 0.0006
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 heavyball==3.2.1
"$folder/venv/bin/python" - <<'PY'
import warnings

warnings.simplefilter("ignore")
import heavyball
import torch


def stepped(kind, seed):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(64, 64) * 0.02)
    gradient = torch.randn(64, 64)
    optimizer = kind([weight], lr=0.1)
    torch.manual_seed(seed)
    weight.grad = gradient.clone()
    optimizer.step()
    return weight.detach().clone()


found = {}
for kind in (heavyball.AdamW, heavyball.Muon):
    first, again, other = stepped(kind, 1), stepped(kind, 1), stepped(kind, 2)
    found[kind.__name__] = float((first - again).abs().max()), float((first - other).abs().max())
    print("{}: same seed differs by {:.1g}, another seed by {:.1g}".format(kind.__name__, *found[kind.__name__]))
as_seen = found["AdamW"] == (0.0, 0.0) and found["Muon"][0] == 0.0 and found["Muon"][1] > 0.0
raise SystemExit(0 if as_seen else 1)
PY
