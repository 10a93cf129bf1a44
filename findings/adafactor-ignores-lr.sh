#!/usr/bin/env bash
# pytorch_optimizer 4.1.0 (with torch 2.13.0): AdaFactor(params, lr=...) does not use its lr.
#
# Guess before the run: an lr that is given is used; transformers' Adafactor refuses lr together with
# relative_step=True, and torch.optim.Adafactor has no relative_step at all.
# Seen: relative_step is True by default, and then the lr is without effect and without a word: five steps at
# lr 0.001 and at lr 1000 end bit-equal. A learning-rate sweep or an LR finder over it shows one curve many times.
# With relative_step=False the lr sets the step.
#
# Output:
#   default:             lr 0.001 and 1000 end bit-equal: True; moved by 0.0248
#   relative_step=False: lr 0.001 and 1000 end bit-equal: False; moved by 0.00247
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 pytorch_optimizer==4.1.0
"$folder/venv/bin/python" - <<'PY'
import torch
from pytorch_optimizer import AdaFactor


def trained(lr, **options):
    torch.manual_seed(0)
    start = torch.randn(8, 8)
    weight = torch.nn.Parameter(start.clone())
    optimizer = AdaFactor([weight], lr=lr, **options)
    for _ in range(5):
        weight.grad = torch.randn(8, 8)
        optimizer.step()
    return weight.detach(), float((weight.detach() - start).abs().max())


same = {}
for name, options in (("default", {}), ("relative_step=False", {"relative_step": False})):
    (small, moved), (large, _) = trained(1e-3, **options), trained(1e3, **options)
    same[name] = torch.equal(small, large)
    print(f"{name + ':':20} lr 0.001 and 1000 end bit-equal: {same[name]}; moved by {moved:.3g}")
raise SystemExit(0 if same == {"default": True, "relative_step=False": False} else 1)
PY
