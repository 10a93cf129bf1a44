"""Two processes of one run: the same verdict on both, one of them writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys
import torch
import torch.distributed as dist
from stresstest.watch import Watch
dist.init_process_group("gloo")
rank = dist.get_rank()
model = torch.nn.Linear(2, 1)
watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), on_break="stop", checkpoint="kept")
steps = 0
for step in range(60):
    loss = 1.0 + rank + 1.0 / (1 + step) + 0.01 * (step * 7 % 5)
    watch.update(float("nan") if rank == 1 and step == 40 else loss, step)
    steps += 1
    if watch.should_stop:
        break
verdict = watch.close()
print(json.dumps([rank, steps, verdict.outcome, verdict.first_bad_step]), flush=True)
dist.destroy_process_group()
"""


def test_a_loss_that_is_not_finite_on_one_rank_stops_both_and_rank_0_writes(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "run.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sorted(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert found == [[0, 41, "nonfinite", 40], [1, 41, "nonfinite", 40]]
    rows = [json.loads(line) for line in (tmp_path / "watch.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "step" in row] == [*range(41)]
    assert rows[1]["loss"] == 2.5
    assert done.stderr.count("stresstest watch: step 40: nonfinite") == 1
