"""What a resume in plain torch takes up again, by what its checkpoint has. Run by hand:

    python tests/benchmarks/shock_torch_resume.py [--markdown]

A linear model trains 200 steps by Adam under a cosine schedule over 400 from an LR of 0.01, is stored, and goes on for
50 steps from parts of its checkpoint. The same is done under LambdaLR, which computes each LR from its own count.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tables import show
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

PEAK, STEPS, STORED, MORE = 1e-2, 400, 200, 50
SCHEDULES: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "CosineAnnealingLR": lambda optimizer: CosineAnnealingLR(optimizer, STEPS),
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * step / STEPS))),
}
PARTS = ("optimizer", "scheduler", "data")
BUILT = "a new scheduler"  # after the optimizer was loaded
KEPT = (
    PARTS,
    ("optimizer", BUILT, "scheduler", "data"),
    ("optimizer", "data"),
    ("scheduler", "data"),
    ("optimizer", "scheduler"),
    (),
)


@dataclass
class Run:
    """All that a training has."""

    schedule: str
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    data: torch.Generator

    @classmethod
    def fresh(cls, schedule: str) -> Run:
        """As its script builds it."""
        torch.manual_seed(0)
        model = nn.Linear(8, 1)
        optimizer = Adam(model.parameters(), lr=PEAK)
        return cls(schedule, model, optimizer, SCHEDULES[schedule](optimizer), torch.Generator().manual_seed(1))

    @property
    def lr(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train(self, steps: int) -> float:
        """The last loss."""
        loss = torch.tensor(math.nan)
        for _ in range(steps):
            x = torch.randn(32, 8, generator=self.data)
            loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """A checkpoint."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scheduler")}
        return {**parts, "data": self.data.get_state()}

    def take(self, state: dict[str, Any], parts: tuple[str, ...]) -> None:
        """Take up these parts of it, and the model."""
        for name in ("model", *parts):
            if name == BUILT:
                self.scheduler = SCHEDULES[self.schedule](self.optimizer)
            elif name == "data":
                self.data.set_state(state[name])
            else:
                getattr(self, name).load_state_dict(state[name])


def rows(schedule: str) -> list[list[str]]:
    """A row for each checkpoint, the undisturbed run first."""
    run = Run.fresh(schedule)
    run.train(STORED)
    file = io.BytesIO()
    torch.save(run.state(), file)
    found = [
        ["(not interrupted)", f"{run.lr:.4g}", f"{run.train(1):.4g}", f"{run.lr:.4g}", f"{run.train(MORE - 1):.4g}"]
    ]
    for parts in KEPT:
        resumed = Run.fresh(schedule)
        file.seek(0)  # read anew: an optimizer goes on in the very tensors that it was given
        resumed.take(torch.load(file, weights_only=True), parts)
        lr, loss = resumed.lr, resumed.train(1)
        words = ", ".join(("model", *parts))
        found.append([words, f"{lr:.4g}", f"{loss:.4g}", f"{resumed.lr:.4g}", f"{resumed.train(MORE - 1):.4g}"])
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true")
    markdown = parser.parse_args().markdown
    for schedule in SCHEDULES:
        print(schedule)
        headings = ["taken up", "LR of its first step", "loss", "LR of its second step", f"loss of step {MORE}"]
        show(headings, rows(schedule), markdown)


if __name__ == "__main__":
    main()
