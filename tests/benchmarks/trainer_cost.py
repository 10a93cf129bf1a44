"""What a step costs beside `trainer.train()`'s own loop on the same Trainer. Run by hand:

    python tests/benchmarks/trainer_cost.py [--rounds 7] [--chunk 12] [--width 256] [--markdown]

Both draw batches, accumulate, clip and step; train() also calls its callbacks, and logs and saves nothing. They take
turns in chunks of steps on one thread, by CPU time, and ratios are taken round by round. A chunk of train() begins
anew, with weights and batches from the start, so what it does before its first step is taken off: a chunk of one step
is timed too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from tables import show
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from turns import now

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.runs.identity import environment
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.factory import register_callable

CPU = torch.device("cpu")


class Text(Dataset[dict[str, Tensor]]):
    """Random words."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        words = torch.randint(0, 256, (64,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": words}


class Clock(TrainerCallback):
    """CPU time from the end of the first step on."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(now(CPU))


def make_trainer(width: int, depth: int, clock: Clock | None = None, **given: Any) -> Trainer:
    """A GPT-2 in batches of 8 x 64."""
    config = GPT2Config(vocab_size=256, n_positions=64, n_embd=width, n_layer=depth, n_head=4)
    args = TrainingArguments(
        output_dir="/tmp/stresstest-trainer",
        per_device_train_batch_size=8,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        **given,
    )
    callbacks = [] if clock is None else [clock]
    return Trainer(model_init=lambda: GPT2LMHeadModel(config), args=args, train_dataset=Text(), callbacks=callbacks)


def ours(width: int, depth: int, **given: Any) -> Callable[[int], float]:
    """Milliseconds a step of a population of one, by the number of steps."""
    with register_callable(make_trainer(width, depth, **given), {}) as name:
        spec = resolve_user_model(LrRangeSpec(model=name), False)
        bench = user_bench(spec, "as-built", 1, "own", "cpu", constant=Constant(""))
        population = bench.populate([0], [1e-3])
    at = 0

    def chunk(steps: int) -> float:
        nonlocal at
        started = now(CPU)
        for _ in range(steps):
            population.step(bench.batches.batch([0], at), torch.tensor([1e-3]))
            at += 1
        return 1000.0 * (now(CPU) - started) / steps

    return chunk


def theirs(width: int, depth: int, **given: Any) -> Callable[[int], float]:
    """The same of train(), from the end of its first step to the end of its last."""

    def chunk(steps: int) -> float:
        clock = Clock()
        make_trainer(width, depth, clock, max_steps=steps + 1, **given).train()
        return 1000.0 * (clock.times[-1] - clock.times[0]) / steps

    return chunk


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunk", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for words, given in (("as it comes", {}), ("2 batches accumulated", {"gradient_accumulation_steps": 2})):
        mine, native = ours(asked.width, asked.depth, **given), theirs(asked.width, asked.depth, **given)
        times = [(mine(asked.chunk), native(asked.chunk)) for _ in range(asked.rounds + 1)][1:]
        ratios = sorted(a / b for a, b in times)
        rows.append(
            [
                words,
                f"{statistics.median(b for _, b in times):.1f}",
                f"{statistics.median(a for a, _ in times):.1f}",
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            ]
        )
    show(["Trainer", "train(), ms", "here, ms", "ratio"], rows, asked.markdown)
    print(
        f"GPT-2 of width {asked.width}, depth {asked.depth}, batches of 8 x 64; {environment('cpu', 'float32')['key']}"
    )


if __name__ == "__main__":
    main()
