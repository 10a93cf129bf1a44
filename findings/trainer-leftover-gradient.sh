#!/usr/bin/env bash
# transformers 5.24.0: on an iterable dataset with accumulation, an epoch's leftover batch joins the next epoch's first step.
#
# Guess before the run: 4 batches an epoch and gradient_accumulation_steps=3 give a step of 3 batches and one of the last
# batch, each with the mean gradient of its batches (1 here), as Trainer does with a dataset that has a length.
# Seen: of a dataset without a length the last batch's gradient is neither stepped with nor zeroed. It stays, weighs as much
# as a whole step, and is added to the first step of the next epoch, whose gradient is twice what it should be.
#
# Output:
#   with a length:    gradients 1 1 1 1
#   without a length: gradients 1 2 2 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PY'
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer, TrainingArguments

BATCHES = 4


class Sized(Dataset):
    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        return {"x": torch.ones(1)}


class Unsized(IterableDataset):
    def __iter__(self):
        return ({"x": torch.ones(1)} for _ in range(BATCHES))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return {"loss": (self.weight * x).mean()}  # its gradient is 1 in every batch


def steps(dataset):
    model, seen = Net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer.register_step_pre_hook(lambda *_: seen.append(float(model.weight.grad)))
    args = TrainingArguments(
        "out", per_device_train_batch_size=1, gradient_accumulation_steps=3, max_steps=4, max_grad_norm=0.0,
        report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(model=model, args=args, train_dataset=dataset, optimizers=(optimizer, None))
    trainer.log = lambda *args, **kwargs: None
    trainer.train()
    return seen


sized, unsized = steps(Sized()), steps(Unsized())
print("with a length:    gradients", *(f"{value:g}" for value in sized))
print("without a length: gradients", *(f"{value:g}" for value in unsized))
raise SystemExit(0 if (sized, unsized) == ([1.0] * 4, [1.0, 2.0, 2.0, 2.0]) else 1)
PY
