"""Faults planted in a small transformer, one a run: does the report name the layer and the cause?

    python tests/benchmarks/planted_faults.py [--runs 10] [--clean 20]

Each run plants the fault in another block and takes another seed; clean runs have none, half of them in float16.
Named means that a suspect of the planted kind at the planted place is found in the cell, and no other.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stresstest
from stresstest.results.records import Result

DEPTH, WIDTH, HEADS = 6, 64, 4


@dataclass(frozen=True)
class Fault:
    """What is wrong, and what a report must say of it."""

    cause: str
    place: str  # with a {} for the block
    settings: tuple[tuple[str, str], ...] = ()


FAULTS = {
    "init x 100": Fault("init", "blocks.{}.fc1.weight"),
    "missing norm": Fault("missing-norm", "blocks.{}.norm2"),
    "attention scale forgotten": Fault("attention-scale", "blocks.{}"),
    "float16 overflow": Fault("overflow", "blocks.{}.scale", (("dtype", "float16"),)),
    "frozen layer": Fault("frozen", "blocks.{}.fc1.weight"),
    "eps too large": Fault("eps", "eps 0.1", (("optimizer", "adam:eps=0.1"),)),
}


class Scale(nn.Module):
    """A factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Block(nn.Module):
    """A Pre-LN block with its attention written out."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.norm2: nn.Module = nn.Identity() if fault == "missing norm" else nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.scale = Scale(3e4 if fault == "float16 overflow" else 1.0)
        self.attention_scale = 1.0 if fault == "attention scale forgotten" else (WIDTH / HEADS) ** -0.5
        for matrix in (self.qkv, self.out, self.fc1, self.fc2):
            nn.init.xavier_normal_(matrix.weight)
        if fault == "init x 100":
            self.fc1.weight.data.mul_(100.0)
        if fault == "frozen layer":
            self.fc1.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, time, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        logits = (q @ k.mT * self.attention_scale).masked_fill(torch.ones(time, time).triu(1).bool(), -math.inf)
        x = x + self.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, WIDTH))
        return x + self.scale(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class Net(nn.Module):
    """A causal transformer over bytes."""

    def __init__(self, fault: str, block: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(256, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.Sequential(*(Block(fault if i == block else "") for i in range(DEPTH)))
        self.norm, self.output = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)
        nn.init.normal_(self.output.weight, std=WIDTH**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.norm(self.blocks(self.embedding(x) + self.positions.weight[: x.shape[1]])))


def build(fault: str = "", block: int = 0) -> Net:
    """The model with a fault in one block."""
    return Net(fault, block)


def run(fault: str, block: int, seed: int, **more: object) -> Result:
    """An LR range test of it."""
    settings: dict[str, object] = {"num_steps": 60, "hold_steps": 20, "theory": False, "batch_size": 4, "seq_len": 32}
    settings |= (dict(FAULTS[fault].settings) if fault else {}) | more
    return stresstest.lr_range(build, args={"fault": fault, "block": block}, seeds=f"{seed},", quiet=True, **settings)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--clean", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| planted | named, and nothing else | what else was said |\n|---|---:|---|")
    for name, fault in FAULTS.items():
        named, otherwise = 0, []
        for i in range(asked.runs):
            wanted = (fault.cause, fault.place.format(i % DEPTH))
            (cell,) = run(name, i % DEPTH, i).cells
            said = [(s["cause"], s["place"]) for s in cell.why.get("suspects", [])]
            named += said == [wanted]
            otherwise += [f"{i}: {said or cell.error or 'nothing'}"] if said != [wanted] else []
        print(f"| {name} | {named} of {asked.runs} | {'; '.join(otherwise)} |", flush=True)
    wrong = []
    for seed in range(asked.clean):
        (cell,) = run("", 0, 100 + seed, dtype=("float32", "float16")[seed % 2]).cells
        wrong += [f"{seed}: {cell.why['suspects']}"] if cell.why["suspects"] else []
    print(f"| nothing (clean) | {asked.clean - len(wrong)} of {asked.clean} silent | {'; '.join(wrong)} |")


if __name__ == "__main__":
    sys.exit(main())
