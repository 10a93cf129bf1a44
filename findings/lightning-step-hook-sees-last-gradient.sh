#!/usr/bin/env bash
# pytorch-lightning 2.6.6, torch 2.13.0: an optimizer's step pre-hook sees the gradient of the step before, already clipped.
#
# Guess before the run: as in a plain loop, a hook from torch's register_step_pre_hook reads the gradient that the step is
# about to use: 1 in step 1, 2 in step 2, 3 in step 3, or 0.5 each time, after gradient_clip_val=0.5.
# Seen: Lightning runs forward, backward and clipping inside the closure that it hands to optimizer.step, and torch calls
# pre-hooks before it. The hook finds no gradient in step 1, and then that of the step before, after clipping, since
# Lightning zeroes gradients inside the closure too. What logs or checks gradients there is one step late.
# Lightning's own on_before_optimizer_step sees 1, 2, 3.
#
# Output:
#   gradients:                1 2 3
#   step pre-hook:            None 0.5 0.5
#   on_before_optimizer_step: 1 2 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 pytorch-lightning==2.6.6
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PY'
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

GRADIENTS = (1.0, 2.0, 3.0)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.in_hook, self.in_lightning = [], []

    def gradient(self):
        return None if self.weight.grad is None else round(float(self.weight.grad), 3)

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).mean()  # its gradient is the batch

    def on_before_optimizer_step(self, optimizer):
        self.in_lightning.append(self.gradient())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        optimizer.register_step_pre_hook(lambda *_: self.in_hook.append(self.gradient()))
        return optimizer


net = Net()
trainer = pl.Trainer(
    max_epochs=1, gradient_clip_val=0.5, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(net, DataLoader(torch.tensor(GRADIENTS), batch_size=1))


def line(values):
    return " ".join("None" if value is None else f"{value:g}" for value in values)


print(f"gradients:                {line(GRADIENTS)}")
print(f"step pre-hook:            {line(net.in_hook)}")
print(f"on_before_optimizer_step: {line(net.in_lightning)}")
raise SystemExit(0 if (net.in_hook, net.in_lightning) == ([None, 0.5, 0.5], [1.0, 2.0, 3.0]) else 1)
PY
