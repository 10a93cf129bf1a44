"""What the user's code prints and warns of is shown once, on stderr: results alone are on stdout."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stresstest.user_code import heard_once

_LOUD = """
import warnings
import torch
from torch import nn

print("IMPORTED")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)
        self.calls = 0

    def forward(self, x):
        print("FORWARD")
        self.calls += 1
        print("CALL", self.calls)
        warnings.simplefilter("always")
        warnings.warn("SLOW", stacklevel=1)
        return self.body(x)


def batch(step, batch_size, generator):
    print("BATCH")
    x = torch.randn(8, 4, generator=generator)
    return x, x.sum(1, keepdim=True)
"""


def test_prints_and_warnings_are_shown_once_and_leave_the_json_alone(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(_LOUD)
    words = "lr-range --model loud.py:Net --seeds 1 --num-steps 30 --hold-steps 20 --no-theory -j 1 -q --json".split()
    done = subprocess.run(
        [sys.executable, "-m", "stresstest", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["cells"][0]["status"] == "done"
    for words in ("IMPORTED", "FORWARD", "BATCH", "UserWarning: SLOW"):
        assert done.stderr.count(words) == 1, words
    assert 1 <= done.stderr.count("CALL") <= 20
    assert "what else the model's code prints is not shown" in done.stderr


_LOGGED = """
import logging
import warnings
from torch import nn

print("IMPORTED")
logging.warning("LOGGED AT IMPORT")


def build():
    print("BUILT")
    logging.warning("LOGGED")
    warnings.warn("WARNED", stacklevel=1)
    return nn.Sequential(nn.Embedding(256, 4), nn.Linear(4, 256))
"""


def test_what_a_file_and_its_factory_say_is_shown_once_with_workers_too(tmp_path: Path) -> None:
    (tmp_path / "logged.py").write_text(_LOGGED)
    words = "lr-range --model logged.py:build --seeds 2 --num-steps 30 --hold-steps 20 --no-theory -j 2 -q".split()
    done = subprocess.run(
        [sys.executable, "-m", "stresstest", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for words in ("IMPORTED", "LOGGED AT IMPORT", "BUILT", "root:LOGGED\n", "UserWarning: WARNED"):
        assert done.stderr.count(words) == 1, words


def test_a_line_without_end_is_cut_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with heard_once():
        kept = vars(sys.stdout)
        for part in range(3000):
            print(f"{part:999d}", end=" ")
        assert max(len(text) for text in kept.values() if isinstance(text, str)) <= 2000
        print("\nSHORT")
    long, short = shown.getvalue().splitlines()
    assert (len(long), short) == (2000, "SHORT")
