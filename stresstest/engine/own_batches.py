"""Batches for the user's own model: those of a built-in task, or those that the user's `batch` draws."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresstest.engine.train import Batches
from stresstest.models.contract import Contract
from stresstest.models.own import Factory
from stresstest.tasks.task import TRAINING, VALIDATION, Task, splitmix64
from stresstest.user_code import UserCodeError, user_code

_STATISTICS_BATCHES = 16  # that the constant predictor is fitted to
_IGNORED = -100  # torch's ignore_index


@dataclass(frozen=True)
class OwnBatch:
    """One replica's batch, as the user's code takes it, and the seed of all that is random in its step."""

    data: Any
    seed: int


@dataclass(frozen=True)
class Constant:
    """The best constant predictor, as far as one is known.

    `log_prior` over classes or `mean` over outputs; `baseline_loss` is its loss, `chance_loss` that of a uniform
    guess. Where nothing is known both losses are NaN.
    """

    baseline_loss: float = math.nan
    chance_loss: float = math.nan
    log_prior: Tensor | None = None
    mean: Tensor | None = None


class OwnBatches:
    """Batches by seed and step, one a replica: `Batches` for a model that has no replica axis.

    `constant` is known once a `Contract` says what is predicted: see `fitted`.
    """

    def __init__(self, factory: Factory, task: Task, device: torch.device, as_images: bool, batch_size: int) -> None:
        self.device = device
        self.batch_size = batch_size
        self._factory = factory
        self._as_images = as_images
        self._built_in = None if factory.batch is not None else Batches(task, device)
        self._task = task
        self._targets: Any = None
        self.constant = Constant()

    def batch(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> list[OwnBatch]:
        """Each replica's batch: a function of (seed, step, stream) alone."""
        keys = splitmix64(splitmix64(np.array(seeds, np.uint64)) + np.uint64(step * 4 + stream))
        drawn = [int(key >> np.uint64(1)) for key in keys]
        if self._factory.batch is not None:
            return [OwnBatch(self._users(step, stream, seed), seed) for seed in drawn]
        assert self._built_in is not None, "one of both draws the batches"
        batch = self._built_in.batch(seeds, step, stream)
        return [OwnBatch(self._adapted(x, y), seed) for x, y, seed in zip(*batch, drawn, strict=True)]

    def constant_loss(self, batch: Sequence[OwnBatch]) -> Tensor:
        """Loss of the best constant predictor on each batch, [R]; NaN where none is known."""
        return torch.stack([self._constant(one.data) for one in batch])

    def fit(self, contract: Contract) -> None:
        """Fit the constant predictor to what the contract predicts, unless the file says what its loss is."""
        known = self._factory.baseline_loss
        self._targets = contract.targets
        self.constant = self._fit(contract) if known is None else Constant(known, known)

    @property
    def splits(self) -> bool:
        """Whether the user's `batch` takes `split`, "train" or "validation"."""
        return self._factory.batch is not None and "split" in inspect.signature(self._factory.batch).parameters

    @property
    def baseline_loss(self) -> float:
        """Loss of the best constant predictor, in the unit of the user's loss; NaN where none is known."""
        return self.constant.baseline_loss

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess; NaN where nothing is known of it."""
        return self.constant.chance_loss

    def description(self) -> dict[str, int | str | float]:
        """What a result stores of the data."""
        if self._built_in is not None:
            stored = dict(self._task.description)
        else:
            digest = hashlib.blake2b(digest_size=8)
            for step in range(4):
                for part in tensors(self.batch([0], step)[0].data):
                    digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
            stored = {"hash": digest.hexdigest()}
        return stored

    def _users(self, step: int, stream: int, seed: int) -> Any:
        assert self._factory.batch is not None, "asked for where there is one"
        generator = torch.Generator().manual_seed(seed)
        more = {"split": "validation" if stream == VALIDATION else "train"} if self.splits else {}
        with user_code(f"batch(step={step}, batch_size={self.batch_size}, generator)"):
            try:
                data = self._factory.batch(step, self.batch_size, generator, **more)
            except StopIteration:
                raise UserCodeError(
                    f"ran out of data at step {step}; draw by step or generator, or start over (itertools.cycle)"
                ) from None
        return moved(data, self.device)

    def _adapted(self, x: Tensor, y: Tensor) -> Any:
        if self._factory.shifts_labels:
            return {"input_ids": x, "labels": x}
        if self._as_images and x.is_floating_point():
            channels = 3 if x.shape[-1] % 3 == 0 else 1
            side = math.isqrt(x.shape[-1] // channels)
            return x.view(-1, channels, side, side), y
        return x, y

    def _constant(self, data: Any) -> Tensor:
        constant = self.constant
        if self._targets is None or (constant.log_prior is None and constant.mean is None):
            return torch.tensor(constant.baseline_loss, device=self.device)
        targets = self._targets(data)
        if constant.log_prior is not None:
            last = len(constant.log_prior) - 1  # for a class that was not there when the prior was fitted
            return -constant.log_prior[targets[targets != _IGNORED].clamp(max=last)].mean()
        assert constant.mean is not None, "checked above"
        loss: Tensor = (targets.float() - constant.mean).square().mean()
        return loss

    def _fit(self, contract: Contract) -> Constant:
        if contract.targets is None:
            return Constant()
        drawn = [contract.targets(self.batch([0], step)[0].data) for step in range(_STATISTICS_BATCHES)]
        if not contract.num_classes:
            values = torch.cat([part.float() for part in drawn])
            mean = values.mean(0)
            baseline = float((values - mean).square().mean())
            return Constant(baseline, baseline, mean=mean)
        labels = torch.cat([part.flatten() for part in drawn])
        counts = torch.bincount(labels[labels != _IGNORED], minlength=contract.num_classes).double()
        if self._built_in is not None and len(counts) >= len(self._task.log_prior):
            share = torch.zeros_like(counts)
            share[: len(self._task.log_prior)] = torch.from_numpy(self._task.log_prior).exp().to(share)
        else:
            share = (counts + 1.0 / len(counts)) / (counts.sum() + 1.0)  # one more example, spread over all
        log_prior = share.clamp(min=1e-12).log()
        baseline = self._task.baseline_loss if self._built_in is not None else -float((share * log_prior).sum())
        return Constant(baseline, math.log(contract.num_classes), log_prior.float().to(self.device))


def moved(data: Any, device: torch.device) -> Any:
    """The tensors of a batch on the device; whatever else there is stays as it is."""
    if isinstance(data, Tensor):
        return data.to(device)
    if isinstance(data, np.ndarray):
        return torch.from_numpy(data).to(device)
    if isinstance(data, Mapping):
        return {key: moved(value, device) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(moved(part, device) for part in data)
    return data


def tensors(data: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(data, Tensor):
        return [data]
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def has_convolutions(module: nn.Module) -> bool:
    """Whether a model reads images as [B, C, H, W]."""
    return any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in module.modules())
