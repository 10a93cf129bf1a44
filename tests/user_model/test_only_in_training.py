"""A model that returns its loss in training mode alone, as detection models and some forecasters do."""

from pathlib import Path

import pytest

from stresstest import lr_range

_MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x, targets):
        assert self.training or not ONLY, "give no targets"
        return nn.functional.mse_loss(self.body(x), targets)


def build():
    return Net()


def batch(step, batch_size, generator):
    x = torch.randn(16, 4, generator=generator)
    return x, x.sum(1, keepdim=True)


def loss_fn(model, batch):
    return model(*batch)
"""


def test_such_a_model_is_validated_in_training_mode_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for only in (True, False):
        file = tmp_path / f"only_{only}.py"
        file.write_text(_MODEL.replace("ONLY", str(only)))
        result = lr_range(
            f"{file}:build", seeds=1, num_steps=40, hold_steps=30, theory=False, run_dir=tmp_path / str(only)
        )
        found.append((result.cells[0].metrics["max_stable_lr"], result.cells[0].status))
        said = "".join(capsys.readouterr())
        assert ("the loss fails in evaluation mode" in said) == only
    assert found[0] == found[1]
    assert found[0][1] == "done"
