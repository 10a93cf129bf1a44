#!/usr/bin/env bash
# torch 2.13.0, CPU: LayerNorm of a finite stream whose squares overflow float32 is zeros at one width and NaN at the next, so
# that the same explosion is a run that "predicts the mean" in one model and a NaN loss in another.
#
# Guess before the run: a layer norm does not care how large its input is (its statistics are a mean and a standard deviation, and
# both are finite): rows of 1e20 come out as rows of 1 do, or at worst all widths give the same NaN.
# Seen: squares are summed in float32, so that from some 2e19 on the variance is infinite (zeros come out: the logits of a final
# norm are then its bias, and the loss is a constant predictor's) or not a number. Which of them it is depends on the width.
# RMSNorm gives zeros at all widths.
#
# Output (largest magnitude of what comes out, of the same ramp of numbers, times 1 and times 1e20):
#   width   8: 1.53 and nan, rms_norm 0
#   width  12: 1.59 and 0, rms_norm 0
#   width  32: 1.68 and nan, rms_norm 0
#   width  33: 1.68 and 0, rms_norm 0
#   width  64: 1.71 and 0, rms_norm 0
#   width  65: 1.71 and 0, rms_norm 0
#   width 768: 1.73 and 0, rms_norm 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F

seen = []
for width in (8, 12, 32, 33, 64, 65, 768):
    x = torch.linspace(-1.0, 1.0, width)[None]
    small, large = (F.layer_norm(scale * x, (width,)).abs().max().item() for scale in (1.0, 1e20))
    rms = F.rms_norm(1e20 * x, (width,)).abs().max().item()
    seen.append(f"width {width:3}: {small:.3g} and {large:.3g}, rms_norm {rms:.3g}")
    print(seen[-1])
expected = """
width   8: 1.53 and nan, rms_norm 0
width  12: 1.59 and 0, rms_norm 0
width  32: 1.68 and nan, rms_norm 0
width  33: 1.68 and 0, rms_norm 0
width  64: 1.71 and 0, rms_norm 0
width  65: 1.71 and 0, rms_norm 0
width 768: 1.73 and 0, rms_norm 0
"""
sys.exit(seen != expected.strip().splitlines())
PY
