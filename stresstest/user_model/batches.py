"""Batches for the user's own model: those of a built-in task, or those that the user's `batch` draws."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresstest.engine.train import Batches
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION, Task, splitmix64
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.brought import BatchStream, SizedStream
from stresstest.user_model.dtypes import cast, input_dtype
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.micro_batches import MicroBatches, Split, parts_of
from stresstest.user_model.wrapped import uncompiled

FRESH = 3  # a stream beside those of tasks: batches for statistics, which no seed trains on or is judged by
_MOST_BYTES = 1 << 28  # of batches for statistics
_FEWEST = 12  # batches for statistics, at least
_LEFT_OVER = 1_000_003  # steps from which on other streams take their batches where batch() reads the step alone


@dataclass(frozen=True)
class UserBatch:
    """One replica's batch, as the user's code takes it, and the seed of all that its step draws: not the batch's.

    `parts`: the micro-batches in which its loss and gradient are taken.
    """

    data: Any
    seed: int
    split: Split | None = None

    @property
    def parts(self) -> MicroBatches:
        """The whole batch, or its micro-batches."""
        return parts_of(self.data) if self.split is None else self.split(self.data)


class UserBatches:
    """Batches by seed and step, one a replica: `Batches` for a model that has no replica axis.

    `baseline_loss` and `chance_loss` are NaN and `constant_loss` is not to be had until `judge` says what they are.
    """

    def __init__(self, factory: Factory, task: Task, device: torch.device, module: nn.Module, batch_size: int) -> None:
        self.device = device
        self.batch_size = batch_size
        self._factory = factory
        self._as_images = False
        self._input_dtype = input_dtype(module)
        self._shifts_labels = is_causal(factory, module)
        self._built_in = None if factory.draws else Batches(task, device)
        self._task = task
        self._as_images = has_convolutions(module) or self._wants_images(module)
        self._constant: Callable[[UserBatch, torch.device], Tensor] | None = None
        self._fresh: list[UserBatch] = []
        self._split: Split | None = None
        self._several = 1
        self.baseline_loss = math.nan
        self.chance_loss = math.nan

    def batch(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> list[UserBatch]:
        """Each replica's batch: a function of (seed, step, stream) alone."""
        return [replace(one, split=self._split) for one in self._whole(seeds, step, stream)]

    def _whole(self, seeds: Sequence[int], step: int, stream: int) -> list[UserBatch]:
        keys = splitmix64(splitmix64(np.array(seeds, np.uint64)) + np.uint64(step * 4 + stream))
        drawn = [_seed(key) for key in keys]
        steps = [_seed(key) for key in splitmix64(keys)]  # a loss that draws noise does not draw the batch's again
        if stream == FRESH and self._built_in is not None:
            step, stream = step + _LEFT_OVER, INITIAL
        if self._factory.stream is not None:
            drawn_by = self._factory.stream
            several = self._several if stream == TRAINING else 1
            parts = [self._of_stream(drawn_by, seed, step, stream, several) for seed in seeds]
            return [UserBatch(data, own) for data, own in zip(parts, steps, strict=True)]
        if self._factory.batch is not None:
            return [UserBatch(self._users(step, stream, seed), own) for seed, own in zip(drawn, steps, strict=True)]
        assert self._built_in is not None, "one of both draws the batches"
        batch = self._built_in.batch(seeds, step, stream)
        return [
            UserBatch(self._adapted(x, y), seed) for x, y, seed in zip(batch.inputs, batch.targets, steps, strict=True)
        ]

    def _of_stream(self, drawn_by: BatchStream, seed: int, step: int, stream: int, several: int) -> Any:
        """A batch, or as many as make a step, whose losses have equal shares, as trainers give them."""
        drawn = [moved(drawn_by.draw(seed, several * step + i, stream), self.device) for i in range(several)]
        return drawn[0] if several == 1 else MicroBatches(tuple(drawn), (1.0 / several,) * several)

    def fresh(self, count: int) -> list[UserBatch]:
        """Batches that no seed trains on or is judged by; fewer where the data end before, or are large."""
        while len(self._fresh) < count:
            size = sum(part.nbytes for one in self._fresh[:1] for part in tensors(one.data))
            if len(self._fresh) >= _FEWEST and len(self._fresh) * size > _MOST_BYTES:
                break
            try:
                self._fresh.append(self.batch([0], len(self._fresh), FRESH)[0])
            except UserCodeError:
                if len(self._fresh) < _FEWEST:
                    raise
                break
        return self._fresh[:count]

    def check_repeatable(self) -> None:
        """A batch is the same when it is drawn again; else a `UserCodeError`. A stream sees to that itself."""
        if self._factory.stream is not None:
            getattr(self._factory.stream, "check_repeatable", lambda: None)()
            return
        one, again = (tensors(self.batch([0], 0, INITIAL)[0].data) for _ in range(2))
        if any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(one, again, strict=True)):
            raise UserCodeError(
                "batch() gave two batches for the same step and generator; draw from its arguments only, "
                "e.g. torch.randint(..., generator=generator)"
            )

    def constant_loss(self, batch: Sequence[UserBatch]) -> Tensor:
        """Loss of the best constant predictor on each batch, [R]; NaN where none is known."""
        if self._constant is None:
            return torch.full((len(batch),), self.baseline_loss, device=self.device)
        with uncompiled():
            return torch.stack([self._constant(one, self.device) for one in batch])

    def judge(
        self, baseline_loss: float, chance_loss: float, constant: Callable[[UserBatch, torch.device], Tensor] | None
    ) -> None:
        """Say what the best constant predictor and a uniform guess lose; the former on each batch, if that is known."""
        self.baseline_loss = baseline_loss
        self.chance_loss = chance_loss
        self._constant = constant

    def draw_several(self, count: int) -> None:
        """Let `count` batches of the stream make a step of training; what is judged stays single batches."""
        self._several = count

    def accumulate(self, split: Split) -> None:
        """Hand out batches in micro-batches from now on."""
        self._split = split

    @property
    def own(self) -> bool:
        """Whether they are the user's, and of no built-in task."""
        return self._built_in is None

    @property
    def task(self) -> Task:
        """The built-in task, where they are not the user's own."""
        return self._task

    def of(self, task: Task, batch_size: int) -> UserBatches:
        """The same of another batch size, or of another task."""
        sized = copy.copy(self)
        sized.batch_size, sized._task, sized._fresh = batch_size, task, []
        sized._built_in = None if self._factory.draws else Batches(task, self.device)
        if isinstance(stream := self._factory.stream, SizedStream):
            sized._factory = replace(self._factory, stream=stream.of(batch_size))
        return sized

    def named(self, step: int, stream: int) -> str:
        """A batch, in words: the call that draws it."""
        if self._factory.stream is not None:
            return self._factory.stream.named(step, stream)
        if self._factory.batch is None:
            return f"batch {step} of the built-in task"
        return f"batch(step={self._step_of(step, stream)}, batch_size={self.batch_size}, generator)"

    @property
    def splits(self) -> bool:
        """Whether the user's data have a part that is held out: `batch` takes `split`, "train" or "validation"."""
        if self._factory.stream is not None:
            return self._factory.stream.held_out
        return self._factory.batch is not None and "split" in inspect.signature(self._factory.batch).parameters

    @property
    def log_prior(self) -> NDArray[np.float64] | None:
        """Log-probability of each class in the training part of a built-in task, [C]; `None` of the user's batches."""
        return None if self._built_in is None else self._task.log_prior

    @property
    def task_baseline(self) -> float:
        """Loss of the best constant predictor of the built-in task."""
        return self._task.baseline_loss

    @cached_property
    def by_step(self) -> bool:
        """Whether batches depend on the step alone: another seed gives the same."""
        if self._built_in is not None:
            return False
        first, second = (tensors(self.batch([seed], 0)[0].data) for seed in (1, 2))
        return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=False))

    def description(self) -> dict[str, int | str | float]:
        """What a result stores of the data."""
        if self._built_in is not None:
            stored = dict(self._task.description)
        else:
            digest = hashlib.blake2b(digest_size=8)
            for step in range(4):
                for part in tensors(self.batch([0], step)[0].data):
                    digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            stored = {"hash": digest.hexdigest()}
            if self._factory.stream is not None:
                stored |= self._factory.stream.description()
        return stored

    def none_left(self, steps: int) -> bool:
        """Whether the first batch for statistics is one of the `steps` that are trained on."""
        if not self.by_step:
            return False
        fresh = tensors(self.fresh(1)[0].data)
        drawn = (tensors(self.batch([0], step)[0].data) for step in range(steps))
        return any(
            all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(fresh, parts, strict=True)) for parts in drawn
        )

    def _users(self, step: int, stream: int, seed: int) -> Any:
        """A batch of the user's; where it reads the step alone, other streams are later steps."""
        if self._step_of(step, stream) != step:
            with suppress(UserCodeError):  # no batch is left over: those that are trained on must do
                data = self._drawn(self._step_of(step, stream), stream, seed)
                if all(part.numel() for part in tensors(data)):
                    return data
        return self._drawn(step, stream, seed)

    def _step_of(self, step: int, stream: int) -> int:
        return step if stream == TRAINING or not self.by_step else _LEFT_OVER * stream + step

    def _drawn(self, step: int, stream: int, seed: int) -> Any:
        assert self._factory.batch is not None, "asked for where there is one"
        generator = torch.Generator().manual_seed(seed)
        more = {"split": "validation" if stream == VALIDATION else "train"} if self.splits else {}
        with user_code(f"batch(step={step}, batch_size={self.batch_size}, generator)"):
            try:
                data = self._factory.batch(step, self.batch_size, generator, **more)
            except StopIteration:
                raise UserCodeError(
                    f"ran out of data at step {step}; draw by step or generator, or repeat the data (itertools.cycle)"
                ) from None
        return moved(data, self.device)

    def _wants_images(self, module: nn.Module) -> bool:
        """Whether a model that has no convolutions fails with pixels in a row, and not with images."""
        if self._built_in is None:
            return False
        x = cast(self._built_in.batch([0], 0, INITIAL).inputs[0], self._input_dtype, (torch.float32,))
        return x.is_floating_point() and not _takes(module, x) and _takes(module, _images(x))

    def _adapted(self, x: Tensor, y: Tensor) -> Any:
        x, y = x.contiguous(), y.contiguous()  # as a loader's are: models call view() on them
        if self._shifts_labels:
            return {"input_ids": x, "labels": x}
        x = cast(x, self._input_dtype, (torch.float32,))
        if self._as_images and x.is_floating_point():
            return _images(x), y
        return x, y


def image_shape(pixels: int) -> tuple[int, int, int]:
    """Channels, height and width of a built-in image of so many numbers."""
    channels = 3 if pixels % 3 == 0 else 1
    side = math.isqrt(pixels // channels)
    return channels, side, side


def _images(x: Tensor) -> Tensor:
    return x.view(-1, *image_shape(x.shape[-1]))


def _takes(module: nn.Module, x: Tensor) -> bool:
    was_training = module.training
    try:
        with torch.no_grad(), seeded(0):
            module.eval()(x)
    except Exception:
        return False
    finally:
        module.train(was_training)
    return True


def _seed(key: np.uint64) -> int:
    """What a generator takes: 63 bits of a key."""
    return int(key >> np.uint64(1))


def moved(data: Any, device: torch.device) -> Any:
    """The tensors of a batch on the device; whatever else there is stays as it is."""
    if isinstance(data, Tensor):
        return data.to(device)
    if isinstance(data, np.ndarray):
        return torch.from_numpy(data).to(device)
    if callable(getattr(data, "to", None)):  # a graph, a batch of tokens: theirs knows what it holds
        return data.to(device)
    if isinstance(data, Mapping):
        return {key: moved(value, device) for key, value in data.items()}
    if isinstance(data, list | tuple):
        parts = [moved(part, device) for part in data]
        if isinstance(data, list):
            return parts
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    if is_dataclass(data) and not isinstance(data, type):
        held = {field.name: getattr(data, field.name) for field in fields(data) if field.init}
        return replace(data, **{name: moved(value, device) for name, value in held.items()})
    return data


def tensors(data: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(data, Tensor):
        return [data]
    if isinstance(data, Mapping):
        parts: Iterable[Any] = data.values()
    elif isinstance(data, list | tuple):
        parts = data
    else:
        parts = vars(data).values() if hasattr(data, "__dict__") and not callable(data) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def is_causal(factory: Factory, module: nn.Module) -> bool:
    """Whether it is a causal language model of Hugging Face's, which takes its own inputs as labels."""
    name = type(module).__name__
    return factory.shifts_labels or (hasattr(module, "config") and name.endswith(("ForCausalLM", "LMHeadModel")))


def has_convolutions(module: nn.Module) -> bool:
    """Whether a model reads images as [B, C, H, W]."""
    return any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in module.modules())
