#!/usr/bin/env bash
# torch 2.13.0: the first backward pass that begins with a tensor imports sympy; one that begins with a scalar does not.
#
# Guess before the run: eager autograd imports nothing; sympy is there for torch.compile, whose first call is known to be slow.
# Seen: torch.autograd.grad(y, x, v) and y.backward(v) compare the shapes of y and v by a function of symbolic shapes, so
# that the first of each process imports some 450 modules of sympy and torch.fx, 0.6 s on a busy core, in an otherwise eager
# program. (y * v).sum().backward() has the same gradient to the bit and imports none. So a Hessian-vector product, a
# Jacobian or a vmap-free vjp makes each worker's first step slow, and a timing of one step measures an import.
#
# Output:
#   after loss.backward(): sympy False
#   after (y * v).sum(): sympy False, same gradient True
#   after torch.autograd.grad(y, x, v): sympy True, 300 modules more or above: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > products.py <<'PY'
import sys

import torch


def has_sympy():
    return "sympy" in sys.modules


x = torch.linspace(-1, 2, 7, requires_grad=True)
v = torch.linspace(3, -2, 7)
x.exp().sum().backward()
first = has_sympy()
print(f"after loss.backward(): sympy {first}")
(by_sum,) = torch.autograd.grad((x.sin() * v).sum(), x)
second, before = has_sympy(), len(sys.modules)
(by_tensor,) = torch.autograd.grad(x.sin(), x, v)
third, many = has_sympy(), len(sys.modules) - before >= 300
same = torch.equal(by_sum, by_tensor)
print(f"after (y * v).sum(): sympy {second}, same gradient {same}")
print(f"after torch.autograd.grad(y, x, v): sympy {third}, 300 modules more or above: {many}")
raise SystemExit((first, second, same, third, many) != (False, False, True, True, True))
PY
"$folder/venv/bin/python" products.py
