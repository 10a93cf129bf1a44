"""Small Trainers, `trainer.train()` watched step by step, and the same steps as this package trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.user_model.bench import UserBench, resolve_user_model, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.factory import register_callable
from stresstest.user_model.trainer.stream import micro_batches
from tests.user_model.hand_loop import keys, seed_everything

LR = 1e-3


class Text(Dataset[dict[str, Tensor]]):
    """Sentences of which every other word follows from the one before; their last words are masked."""

    def __init__(self, count: int = 40, length: int = 12, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.randint(0, 50, (count, length), generator=generator)
        self.words[:, 1::2] = (self.words[:, ::2] * 7 + 3) % 50
        self.ends = torch.randint(4, length, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        labels = self.words[index].clone()
        labels[int(self.ends[index]) :] = -100
        return {"input_ids": self.words[index], "labels": labels}


class Stream(IterableDataset[dict[str, Tensor]]):
    """The same without a length."""

    def __iter__(self) -> Any:
        yield from (Text()[i] for i in range(len(Text())))


def gpt2(depth: int = 1, width: int = 16, drop: float = 0.1) -> GPT2LMHeadModel:
    """A language model of 50 words."""
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": width, "n_layer": depth, "n_head": 2}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), drop)
    return GPT2LMHeadModel(GPT2Config(**sizes, **drops, bos_token_id=0, eos_token_id=0))


def arguments(**given: Any) -> TrainingArguments:
    """On the CPU, silent, at one learning rate."""
    return TrainingArguments(
        **{
            "output_dir": "/tmp/stresstest-trainer",
            "per_device_train_batch_size": 4,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_strategy": "no",
            "lr_scheduler_type": "constant",
            "learning_rate": LR,
            **given,
        }
    )


def make_trainer(
    depth: int = 1,
    width: int = 16,
    kind: type[Trainer] = Trainer,
    data: Any = None,
    drop: float = 0.1,
    **given: Any,
) -> Trainer:
    """A Trainer whose weights are drawn anew for each seed; what is `given` goes to it or to its arguments."""
    names = ("eval_dataset", "callbacks", "optimizers", "optimizer_cls_and_kwargs", "compute_loss_func", "model")
    beside = {name: given.pop(name) for name in names if name in given}
    if "model" not in beside:
        beside["model_init"] = lambda: gpt2(depth, width, drop)
    return kind(args=arguments(**given), train_dataset=data or Text(), **beside)


@dataclass
class Steps:
    """What each step trained on and came to."""

    batches: list[list[Mapping[str, Tensor]]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)


class Watch(TrainerCallback):
    """Keeps the weights after each step, and lets each step draw what this package lets it draw."""

    def __init__(self, seed: int, steps: Steps) -> None:
        self.seed = seed
        self.steps = steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        seed_everything(keys(self.seed, state.global_step)[1])
        if len(self.steps.losses) == state.global_step:  # a step may begin twice where no length is known
            self.steps.batches.append([])
            self.steps.losses.append(0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.steps.weights.append(trainable(model))


def trainable(model: Any) -> Tensor:
    """The trainable weights in one row."""
    return torch.cat([p.detach().flatten().clone() for p in model.parameters() if p.requires_grad])


def natively(make: Callable[..., Trainer], seed: int = 3, num_steps: int = 20) -> Steps:
    """`trainer.train()`."""
    steps = Steps()
    trainer = make(seed=seed, callbacks=[Watch(seed, steps)], max_steps=num_steps)
    inner = trainer.training_step

    def watched(model: Any, inputs: Any, *more: Any) -> Tensor:
        steps.batches[-1].append({key: value.clone() for key, value in inputs.items()})
        loss = inner(model, inputs, *more)
        steps.losses[-1] += float(loss)
        return loss

    trainer.training_step = watched  # type: ignore[method-assign]  # to look at it
    trainer.train()
    return steps


def here(trainer: Any, seed: int = 3, num_steps: int = 20, lr: float = LR) -> Steps:
    """The same as this package trains it."""
    steps = Steps()
    with register_callable(trainer, {}) as name:
        bench, accumulation = bench_of(name, Constant("")), trainer.args.gradient_accumulation_steps
        population = bench.populate([seed], [lr])
        for step in range(num_steps):
            batch = bench.batches.batch([seed], step)
            data = batch[0].data
            steps.batches.append([batch for group in micro_batches(data, accumulation) for batch in group])
            steps.losses.append(float(population.step(batch, torch.tensor([lr])).loss_R[0]))
            steps.weights.append(population.theta_RP[0].clone())
    return steps


def bench_of(name: str, constant: Constant | None = None, **settings: Any) -> UserBench:
    """What trains a model of this name."""
    spec = resolve_user_model(LrRangeSpec(model=name, **settings), False)
    return user_bench(spec, "as-built", 1, spec.optimizer, "cpu", constant=constant)


def assert_equal(ours: Steps, theirs: Steps) -> None:
    """Batches and weights to the bit, losses to 1e-6."""
    assert len(ours.batches) == len(theirs.batches)
    for step, (mine, native) in enumerate(zip(ours.batches, theirs.batches, strict=True)):
        assert len(mine) == len(native), f"step {step}"
        for one, other in zip(mine, native, strict=True):
            assert set(one) == set(other)
            assert all(torch.equal(one[key], other[key]) for key in other), f"batch of step {step}"
    for step, (row, other) in enumerate(zip(ours.weights, theirs.weights, strict=True)):
        assert torch.equal(row, other), f"weights after step {step}"
    assert max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True)) <= 1e-6
    assert not torch.equal(theirs.weights[0], theirs.weights[-1])
