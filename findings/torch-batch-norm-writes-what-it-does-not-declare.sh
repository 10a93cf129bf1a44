#!/usr/bin/env bash
# torch 2.13.0: a batch norm in training writes its running statistics by an operation whose schema declares no write.
#
# Guess before the run: an operation marks each argument that it writes, as Tensor(a!), so that a tool which keeps a copy
# of what is marked (to undo a step, to record one, to find what a graph changes) misses nothing.
# Seen: on a CPU F.batch_norm calls aten::native_batch_norm, which marks nothing and writes running_mean and running_var.
# The operation beside it that does mark them, _native_batch_norm_legit, is not the one that is called. A step that is
# undone by what its schemas say leaves the statistics one step ahead, and no training loss shows it: they are read in
# evaluation alone.
#
# Output:
#   called: aten::native_batch_norm
#   declares a write: False
#   running_mean written: True
#   _native_batch_norm_legit declares a write: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode


def declares(operation):
    return any(a.alias_info is not None and a.alias_info.is_write for a in operation._schema.arguments)


class Listen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.called.append(operation)
        return operation(*args, **(kwargs or {}))


mean, variance = torch.zeros(3), torch.ones(3)
with Listen() as heard:
    F.batch_norm(torch.full((4, 3), 2.0) + torch.arange(4)[:, None], mean, variance, training=True)
norms = [operation for operation in heard.called if "batch_norm" in operation._schema.name]
written = bool((mean != 0).all())
legit = declares(torch.ops.aten._native_batch_norm_legit.default)
names = {operation._schema.name for operation in norms}
declared = any(declares(operation) for operation in heard.called)
print(f"called: {' '.join(sorted(names))}")
print(f"declares a write: {declared}")
print(f"running_mean written: {written}")
print(f"_native_batch_norm_legit declares a write: {legit}")
raise SystemExit((names, declared, written, legit) != ({"aten::native_batch_norm"}, False, True, True))
PY
