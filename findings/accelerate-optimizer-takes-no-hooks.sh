#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.13.0: the optimizer that prepare() returns is a torch Optimizer that takes none of its hooks.
#
# Guess before the run: isinstance(optimizer, torch.optim.Optimizer) is true, so register_step_post_hook works on it as on
# the optimizer that was handed over, and the hook is called at each step.
# Seen: the wrapper never runs Optimizer.__init__, so that the tables of hooks are missing, and each of the four
# register_* methods raises AttributeError, naming a private attribute. transformers' Trainer hands this wrapper to its
# callbacks. A hook on the optimizer inside, optimizer.optimizer, is called at each step.
#
# Output:
#   an Optimizer: True
#   register_step_pre_hook: AttributeError
#   register_step_post_hook: AttributeError
#   register_state_dict_pre_hook: AttributeError
#   register_load_state_dict_post_hook: AttributeError
#   calls of a hook on optimizer.optimizer in 2 steps: 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
from accelerate import Accelerator

HOOKS = (
    "register_step_pre_hook",
    "register_step_post_hook",
    "register_state_dict_pre_hook",
    "register_load_state_dict_post_hook",
)


def answer(optimizer, name):
    try:
        getattr(optimizer, name)(lambda *_: None)
    except AttributeError:
        return "AttributeError"
    return "registered"


model = torch.nn.Linear(2, 1)
model, optimizer = Accelerator(cpu=True).prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
calls = []
optimizer.optimizer.register_step_post_hook(lambda *_: calls.append(1))
for _ in range(2):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()

answers = {name: answer(optimizer, name) for name in HOOKS}
is_optimizer = isinstance(optimizer, torch.optim.Optimizer)
print(f"an Optimizer: {is_optimizer}")
for name, said in answers.items():
    print(f"{name}: {said}")
print(f"calls of a hook on optimizer.optimizer in 2 steps: {len(calls)}")
expected = (True, {"AttributeError"}, 2)
raise SystemExit((is_optimizer, set(answers.values()), len(calls)) != expected)
PY
