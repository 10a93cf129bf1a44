#!/usr/bin/env bash
# torch 2.13.0: a state that is kept in memory can be loaded into an optimizer once; the second rollback is a wrong one.
#
# Guess before the run: optimizer.load_state_dict copies what it is given, as module.load_state_dict does.
# Seen: the optimizer goes on in the very tensors of the dict and updates them in place. A loop that goes back to its last
# good state twice begins the second time with the moments and the count of the first try. A deep copy at each load helps, and
# so does a file (github.com/pytorch/pytorch/issues/196083).
#
# Output:
#   kept:              exp_avg 0.1, step 1
#   after one retry:   exp_avg 0.19, step 2
#   with a deep copy:  exp_avg 0.1, step 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import copy

import torch


def words(state):
    entry = state["state"][0]
    return f"exp_avg {entry['exp_avg'].item():.3g}, step {entry['step'].item():g}"


def retried(state):
    """Load a state, take one step, and say what became of the state."""
    optimizer = torch.optim.Adam([weight])
    optimizer.load_state_dict(state)
    weight.grad = torch.ones(1)
    optimizer.step()


weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.ones(1)
first = torch.optim.Adam([weight])
first.step()
kept = copy.deepcopy(first.state_dict())
good = words(kept)
print("kept:             ", good)
retried(copy.deepcopy(kept))
copied = words(kept)
retried(kept)
shared = words(kept)
print("after one retry:  ", shared)
print("with a deep copy: ", copied)
raise SystemExit(0 if copied == good and shared != good else 1)
PY
