"""Batches as a shock gives them: noise, other targets, one token, one batch again, fewer examples, other data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stresstest.engine.train import Batches
from stresstest.experiments.shock.disturbance import Scene
from stresstest.tasks import load_task
from stresstest.tasks.images import ImageTask
from stresstest.tasks.masked import MaskedTask
from stresstest.tasks.task import Batch, Task
from stresstest.tasks.translation import TranslationTask
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch, UserBatches
from stresstest.user_model.changed import Change, changed, with_targets
from stresstest.user_model.micro_batches import MicroBatches, Split

_LEFT = ("mask", "position", "len")  # in the names of tensors that say what counts and where it stands: left as it is


def uniform(scene: Scene, k: int) -> Any:
    """Inputs and targets drawn anew: whole numbers uniformly between the least and the greatest, others normally.

    Negative whole numbers, which mark what is left out of the loss, stay.
    """
    return _changed(scene.batch(scene.step + k), partial(_drawn_anew, _generator_of(scene, k)))


def shuffled(scene: Scene, k: int) -> Any:
    """The targets in another order, but for those that are left out of the loss."""
    permuted = partial(_permuted, _generator_of(scene, k))
    batch = scene.batch(scene.step + k)
    if isinstance(batch, Batch):
        return batch._replace(targets=permuted(batch.targets))
    return [replace(one, data=with_targets(one.data, scene.targets, permuted)) for one in batch]


def constant(scene: Scene, k: int) -> Any:
    """One token, or number, throughout inputs and targets: the first of each that counts."""
    return _changed(scene.batch(scene.step + k), _one_throughout)


def repeated(scene: Scene, k: int) -> Any:
    """The batch of the step before, again and again."""
    return scene.batch(scene.step - 1)


BAD: Mapping[str, Callable[[Scene, int], Any]] = {
    "uniform": uniform,
    "shuffled": shuffled,
    "constant": constant,
    "repeated": repeated,
}


def first_examples(batch: Any, size: int) -> Any:
    """The first examples of a batch."""
    if isinstance(batch, Batch):
        return batch._replace(inputs=batch.inputs[:, :size], targets=batch.targets[:, :size])
    return [replace(one, data=_first(one, size)) for one in batch]


@dataclass
class OtherData:
    """The batches of another source of the built-in task, loaded when the first is asked for."""

    data: str
    _source: Batches | UserBatches | None = field(default=None, init=False)

    def __call__(self, scene: Scene, k: int) -> Any:
        """The other source's batch of the same step."""
        if self._source is None:
            self._source = self.source(scene.batches)
        return self._source.batch([scene.seed], scene.step + k)

    def source(self, batches: Any) -> Batches | UserBatches:
        """The batches of the other source; a `UserCodeError` where it does not fit, or they are the model's own."""
        if isinstance(batches, UserBatches) and batches.own:
            raise UserCodeError("the run draws its own batches, which have one source; leave it out")
        task = load_task(_kind_of(batches.task), self.data, batches.task.batch_size, _length_of(batches.task))
        for what in ("num_classes", "num_inputs"):
            ours, theirs = getattr(batches.task, what), getattr(task, what)
            if ours != theirs:
                size = {"num_classes": "classes", "num_inputs": "numbers in an example"}[what]
                raise UserCodeError(f"data {self.data} has {theirs} {size}, and the run's own {ours}; give others")
        return batches.of(task, batches.batch_size) if isinstance(batches, UserBatches) else batches.of(task)


def _kind_of(task: Task) -> str:
    kinds = {MaskedTask: "masked-language", ImageTask: "images", TranslationTask: "translation"}
    return next((name for kind, name in kinds.items() if isinstance(task, kind)), "language")


def _length_of(task: Task) -> int:
    return int(getattr(task, "seq_len", 1))


def _generator_of(scene: Scene, k: int) -> torch.Generator:
    generator = scene.generator()
    return generator.manual_seed(generator.initial_seed() + k + 1)


def _drawn_anew(generator: torch.Generator, name: str, values: Tensor) -> Tensor:
    if _is_left(name, values):
        return values
    if values.is_floating_point():
        noise = torch.randn(values.shape, generator=generator).to(values)
        return noise * values.std() + values.mean() if values.numel() > 1 else noise
    counted = values[values >= 0]
    if not counted.numel():
        return values
    low, high = int(counted.min()), int(counted.max())
    drawn = torch.randint(low, high + 1, values.shape, generator=generator).to(values)
    return torch.where(values >= 0, drawn, values)


def _one_throughout(name: str, values: Tensor) -> Tensor:
    if _is_left(name, values):
        return values
    if values.is_floating_point():
        return values.flatten()[:1].expand(values.shape).clone()
    counted = values[values >= 0]
    return torch.where(values >= 0, counted[0], values) if counted.numel() else values


def _is_left(name: str, values: Tensor) -> bool:
    countable = values.is_floating_point() or not (values.is_complex() or values.dtype == torch.bool)
    return not countable or not values.numel() or any(part in name for part in _LEFT)


def _permuted(generator: torch.Generator, targets: Tensor) -> Tensor:
    """Numbers example by example, classes each by itself."""
    if targets.is_floating_point():
        return targets[torch.randperm(len(targets), generator=generator).to(targets.device)]
    found = targets.clone()
    counted = targets[targets >= 0]
    found[targets >= 0] = counted[torch.randperm(len(counted), generator=generator).to(targets.device)]
    return found


def _changed(batch: Any, change: Change) -> Any:
    if isinstance(batch, Batch):
        return batch._replace(inputs=change("inputs", batch.inputs), targets=change("targets", batch.targets))
    return [replace(one, data=changed(one.data, change)) for one in batch]


def _first(one: UserBatch, size: int) -> Any:
    data = one.data.parts[0] if isinstance(one.data, MicroBatches) else one.data
    try:
        return Split(size)(data).parts[0]
    except UserCodeError:
        raise UserCodeError("its batches have no axis of examples that they could be cut along; leave it out") from None
