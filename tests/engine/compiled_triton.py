"""Compile the Triton kernel of the deep MLP for an H100 or H200, without one, and print what it uses at a width.

As JSON, of each pass: bytes of shared memory of a program, and of each thread's stack, where registers do not suffice;
how often it names tf32, to whose 10 bits of mantissa the interpreter does not round.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stresstest.models import mlp_triton_kernel
from stresstest.models.mlp_triton import launch_sizes

HOPPER = GPUTarget("cuda", 90, 32)
EVERYTHING = {"NORM": 1, "PRE": 1, "OUT": 1, "POST": 1, "SKIP": 1, "GATE": 2}
SUMS = {"SUMS": 9, "PRE_SUM": 1, "OUT_SUM": 3, "POST_SUM": 5, "SKIP_SUM": 7, "GATE_SUM": 8}
TYPES = {"rows_at": "*i32", "strides_at": "*i64"}


def compiled(kernel: Any, width: int, constants: dict[str, int]) -> dict[str, int]:
    """What one pass uses at a width, of a variant that has everything everywhere."""
    sizes = launch_sizes(width)
    warps = sizes.pop("num_warps")
    fixed = {**constants, **sizes}
    signature = {
        name: "constexpr" if name in fixed else TYPES.get(name, "*fp32" if name.endswith("_at") else "i32")
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(name),): value for name, value in fixed.items()})
    made = triton.compile(source, target=HOPPER, options={"num_warps": warps})
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    stack = re.search(r"STACK:(\d+)", said.stdout + said.stderr)
    assert stack is not None, said
    return {"shared": made.metadata.shared, "stack": int(stack.group(1)), "tf32": made.asm["ptx"].count("tf32")}


if __name__ == "__main__":
    at = int(sys.argv[1])
    print(
        json.dumps(
            {
                "forward": compiled(mlp_triton_kernel.forward, at, EVERYTHING),
                "backward": compiled(mlp_triton_kernel.backward, at, EVERYTHING | SUMS),
            }
        )
    )
