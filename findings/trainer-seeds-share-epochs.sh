#!/usr/bin/env bash
# transformers 5.24.0 with accelerate 1.15.0: Trainer's seeds 42 and 43 shuffle alike, one epoch apart.
#
# Guess before the run: another TrainingArguments(seed=...) draws orders that have nothing to do with those of the first.
# Seen: Trainer has accelerate's SeedableRandomSampler by default, which seeds each epoch with seed + epoch. Epoch 2 of
# seed 42 is epoch 1 of seed 43, and so on: a mean over the seeds 42, 43, 44 has fewer orders in it than it seems.
# Seeds that lie further apart than there are epochs do not overlap.
#
# Output:
#   seed 42: [6, 3, 0, 7, 2, 1, 4, 5] [4, 5, 7, 1, 3, 2, 6, 0] [4, 7, 3, 2, 1, 5, 6, 0]
#   seed 43: [4, 5, 7, 1, 3, 2, 6, 0] [4, 7, 3, 2, 1, 5, 6, 0] [3, 2, 0, 6, 4, 1, 7, 5]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PY'
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

EXAMPLES, EPOCHS = 8, 3


class Numbers(Dataset):
    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        return {"x": torch.tensor([float(index)])}


class Notes(torch.nn.Module):
    """Writes down which examples it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x):
        self.seen += [int(value) for value in x.flatten()]
        return {"loss": (self.weight * x).sum()}


def orders(seed):
    model = Notes()
    quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    args = TrainingArguments("out", seed=seed, num_train_epochs=EPOCHS, use_cpu=True, **quiet)
    trainer = Trainer(model=model, args=args, train_dataset=Numbers())
    trainer.log = lambda *args, **kwargs: None
    trainer.train()
    return [model.seen[start : start + EXAMPLES] for start in range(0, EPOCHS * EXAMPLES, EXAMPLES)]


found = {seed: orders(seed) for seed in (42, 43)}
for seed, epochs in found.items():
    print(f"seed {seed}:", *epochs)
raise SystemExit(0 if found[42][1:] == found[43][:-1] and found[42][0] != found[43][0] else 1)
PY
