#!/usr/bin/env bash
# torch 2.13.0: torch.manual_seed on a machine without a GPU formats its caller's whole stack, once for each absent kind.
#
# Guess before the run: without a GPU it sets the CPU's generator, some microseconds whoever calls it.
# Seen: it queues the seed for CUDA, XPU and MTIA, should they be initialised later, and each call keeps the text of the
# stack that it came from, every frame with its source line. So its time grows with the depth of the call: 1.5 ms below 80
# frames (a framework, a test runner), 0.3 ms at the top, 1.4 us for torch.default_generator.manual_seed, which draws the
# same numbers. A loop that seeds each batch or each dropout may spend more on this than on a small model's step.
#
# Output:
#   stacks formatted by one call: 3
#   each grows with the depth of the call, by 80 frames or more below 80 calls: True
#   the CPU's own generator: 0 stacks, same numbers: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > seeds.py <<'PY'
import traceback

import torch

lengths = []
format_stack = traceback.format_stack


def counted(*args, **kwargs):
    lengths.append(sum(1 for _ in traceback.walk_stack(None)))
    return format_stack(*args, **kwargs)


def below(frames, call):
    return below(frames - 1, call) if frames else call()


def stacks_of(call):
    lengths.clear()
    call()
    return list(lengths)


traceback.format_stack = counted
top = stacks_of(lambda: torch.manual_seed(7))
by_torch = torch.rand(5)
deep = stacks_of(lambda: below(80, lambda: torch.manual_seed(7)))
own = stacks_of(lambda: torch.default_generator.manual_seed(7))
same = torch.equal(by_torch, torch.rand(5))
print(f"stacks formatted by one call: {len(top)}")
grows = all(after >= before + 80 for before, after in zip(top, deep, strict=True))
print(f"each grows with the depth of the call, by 80 frames or more below 80 calls: {grows}")
print(f"the CPU's own generator: {len(own)} stacks, same numbers: {same}")
raise SystemExit((len(top), grows, len(own), same) != (3, True, 0, True))
PY
"$folder/venv/bin/python" seeds.py
