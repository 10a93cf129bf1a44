#!/usr/bin/env bash
# Triton 3.7.1, torch 2.13.0: under TRITON_INTERPRET=1 a dot of float32 is exact, where the compiled one rounds to TF32.
#
# Guess before the run: tl.dot of float32 takes TF32 by default, so that the interpreter rounds both factors to its 10 bits
# of mantissa, as the GPU does, and an identity times 1 + 2^-12 gives 1. The interpreter knows the rounding: it does it for
# tensor descriptors.
# Seen: the interpreter gives 1 + 2^-12 for each input_precision. Compiled for sm_90, which needs no GPU, the default
# rounds its factors to tf32, and "ieee" does not. So a kernel that is right to 1e-7 under the interpreter may be right to
# 1e-3 on a GPU: ask for input_precision="ieee" where float32 is meant, and look for tf32 in the PTX.
#
# Output:
#   interpreted, default: error 0
#   interpreted, tf32: error 0
#   interpreted, ieee: error 0
#   compiled for sm_90, default: tf32 True
#   compiled for sm_90, ieee: tf32 False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -q --no-deps triton==3.7.1
cd "$folder"
export TRITON_CACHE_DIR="$folder/cache"
cat > product.py <<'PY'
import triton
import triton.language as tl


@triton.jit
def by_default(x, w, y):
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(y + at, tl.dot(tl.load(x + at), tl.load(w + at)))


@triton.jit
def by_name(x, w, y, PRECISION: tl.constexpr):
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(y + at, tl.dot(tl.load(x + at), tl.load(w + at), input_precision=PRECISION))
PY
cat > interpreted.py <<'PY'
import torch
from product import by_default, by_name

x, w = torch.full((16, 16), 1 + 2.0**-12), torch.eye(16)
errors = {}
for name in ("default", "tf32", "ieee"):
    y = torch.empty(16, 16)
    if name == "default":
        by_default[(1,)](x, w, y)
    else:
        by_name[(1,)](x, w, y, PRECISION=name)
    errors[name] = (y - x).abs().max().item()
    print(f"interpreted, {name}: error {errors[name]:g}")
raise SystemExit(set(errors.values()) != {0.0})
PY
cat > compiled.py <<'PY'
import triton
from product import by_default, by_name
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

pointers = {"x": "*fp32", "w": "*fp32", "y": "*fp32"}
sources = {
    "default": ASTSource(by_default, pointers, {}),
    "ieee": ASTSource(by_name, pointers | {"PRECISION": "constexpr"}, {(3,): "ieee"}),
}
found = {}
for name, source in sources.items():
    found[name] = "tf32" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    print(f"compiled for sm_90, {name}: tf32 {found[name]}")
raise SystemExit(found != {"default": True, "ieee": False})
PY
TRITON_INTERPRET=1 "$folder/venv/bin/python" interpreted.py
"$folder/venv/bin/python" compiled.py
