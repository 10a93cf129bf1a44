#!/usr/bin/env bash
# torch-optimi 0.3.3, triton 3.7.1, torch 2.13.0: where Triton is installed StableAdamW asks for a GPU, on a CPU as well.
#
# Guess before the run: its Triton kernels are for parameters on a GPU, and parameters on a CPU are updated by torch's
# operations, whether Triton is installed or not. So it is for six of its other optimizers.
# Seen: StableAdamW's first step on a CPU raises RuntimeError, "0 active drivers", with triton=None, its default. torch's
# own wheels for Linux bring Triton along, so that this is what a laptop or a login node has. With triton=False it steps.
#
# Output:
#   AdamW: steps
#   Adan: steps
#   Lion: steps
#   RAdam: steps
#   Ranger: steps
#   SGD: steps
#   StableAdamW: RuntimeError
#   StableAdamW(triton=False): steps
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -q --no-deps triton==3.7.1 torch-optimi==0.3.3 packaging==26.0
cd "$folder"
unset TRITON_INTERPRET
CUDA_VISIBLE_DEVICES="" "$folder/venv/bin/python" - <<'PY'
import optimi
import torch


def outcome(name, **options):
    model = torch.nn.Linear(4, 2)
    optimizer = getattr(optimi, name)(model.parameters(), lr=1e-3, **options)
    model(torch.ones(1, 4)).sum().backward()
    try:
        optimizer.step()
    except RuntimeError:
        return "RuntimeError"
    return "steps"


found = {name: outcome(name) for name in ("AdamW", "Adan", "Lion", "RAdam", "Ranger", "SGD", "StableAdamW")}
found["StableAdamW(triton=False)"] = outcome("StableAdamW", triton=False)
for name, said in found.items():
    print(f"{name}: {said}")
raise SystemExit({name for name, said in found.items() if said != "steps"} != {"StableAdamW"})
PY
