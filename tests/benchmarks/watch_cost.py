"""What watching costs: two loops of the same model take turns, one of them watched. Run by hand:

    python tests/benchmarks/watch_cost.py [--width 256] [--rounds 15] [--chunk 40] [--markdown]

CPU time on one thread; ratios are taken round by round. The watched loops write their log and take their copies.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tables import show
from torch import nn
from turns import ratio, take_turns

from stresstest.watch import Watch

TOKENS, LENGTH, BATCH, DEPTH = 256, 64, 8, 4
CPU = torch.device("cpu")


class Decoder(nn.Module):
    """A pre-norm transformer over bytes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Linear(width, TOKENS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(tokens), mask=self.mask, is_causal=True))


def loop(width: int, folder: Path | None, **settings: Any) -> Callable[[int], None]:
    """A loop that trains so many more steps; without settings it is bare, and reads its loss each step."""
    torch.manual_seed(0)
    model = Decoder(width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    watch = None
    if folder is not None:
        watch = Watch(model, optimizer, log=folder / "watch.jsonl", **settings)
    at = 0

    def chunk(steps: int) -> None:
        nonlocal at
        for _ in range(steps):
            tokens = torch.randint(TOKENS, (BATCH, LENGTH))
            loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if watch is None:
                loss.item()
            else:
                watch.update(loss, at)
            at += 1

    return chunk


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--chunk", type=int, default=40)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chunks = {
            "bare": loop(asked.width, None),
            "watched, probes off": loop(asked.width, folder / "off", probes="off"),
            "economy": loop(asked.width, folder / "economy"),
            "economy, a copy every 200 steps": loop(
                asked.width, folder / "copies", checkpoint=folder / "kept", save_every=200
            ),
            "full": loop(asked.width, folder / "full", probes="full"),
        }
        times = take_turns(chunks, asked.rounds, asked.chunk, CPU)
    rows = [
        [name, f"{statistics.median(found):.2f}", "" if name == "bare" else ratio(found, times["bare"])]
        for name, found in times.items()
    ]
    show(["loop", "ms per step", f"over bare, median of {asked.rounds} rounds (min to max)"], rows, asked.markdown)


if __name__ == "__main__":
    main()
