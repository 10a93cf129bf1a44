"""Golden runs: a checkout's results, to hold beside those of another checkout with `tests.golden.compare`.

    python -m tests.golden.runs CHECKOUT FOLDER [NAME...]

About 5 minutes on an idle core. What a checkout of before reads must not be newer than it is: the commands use
settings that both have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
_SMALL = "--variant post-ln,pre-ln --depth 2 --width 32 --heads 2 --seq-len 32 --seeds 2"
_RACE = "--train-steps 80 --start-lr 0.002 --end-lr 0.016"
_MAP = "--warmup-steps 0,30 --num-lrs 3 --start-lr 0.001 --end-lr 0.1 --train-steps 60 --trials 4 --trials-at-once 2"
_DEEP = "--depths 50,1000 --num-steps 40 --hold-steps 20 --train-steps 20"
_BATCHES = "--batch-sizes 16,64 --tokens 60000 --start-lr 0.002 --end-lr 0.064"
RUNS = {
    "smoke": "run smoke",
    "own": "lr-range --model model.py:build --variant pre-ln,post-ln --seeds 2",
    "deep": f"depth-sweep --model mlp --variant rezero,residual --seeds 2 {_DEEP}",
    "warmup": f"warmup {_SMALL} {_MAP}",
    "race": f"race {_SMALL} {_RACE}",
    "batch": f"batch-sweep --optimizer adam,lamb --width 32 --heads 2 --depth 2 --seeds 2 {_BATCHES}",
    "check": "check gate.yaml --fresh -o json:check.json",
    "ci": "run ci",
}


def main(checkout: str, folder: str, *names: str) -> None:
    """Each run in a process of its own, on one thread; its output beside its run directory."""
    root, out = Path(checkout).resolve(), Path(folder).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for path in (HERE / "model.py", HERE / "gate.yaml"):
        shutil.copy(path, out)
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    for name in names or RUNS:
        where = [] if name == "check" else ["--run-dir", name]
        command = [sys.executable, "-m", "stresstest", *RUNS[name].split(), *where, "-j", "1", "-q"]
        start = time.monotonic()
        done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)
        (out / f"{name}.txt").write_text(done.stdout + done.stderr)
        print(f"{name}: exit {done.returncode}, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
