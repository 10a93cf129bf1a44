"""Batches as a shock gives them: noise, other targets, one token, one batch again, fewer examples, other data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stresstest.engine.train import Batches
from stresstest.experiments.shock.disturbance import Scene
from stresstest.tasks import load_task
from stresstest.tasks.task import Batch
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.constants.targets import classes_of
from stresstest.user_model.micro_batches import num_examples

_MASK = "mask"  # in the name of a tensor that says what counts, and is left as it is


def uniform(scene: Scene, k: int) -> Any:
    """Inputs and targets drawn anew: whole numbers uniformly between the least and the greatest, others normally."""
    return _mapped(scene.batch(scene.step + k), _drawn_anew(_generator_of(scene, k)))


def shuffled(scene: Scene, k: int) -> Any:
    """The targets in another order."""
    generator = _generator_of(scene, k)

    def permuted(targets: Tensor) -> Tensor:
        order = torch.randperm(targets.numel(), generator=generator).to(targets.device)
        return targets.flatten()[order].view_as(targets)

    batch = scene.batch(scene.step + k)
    if isinstance(batch, Batch):
        return batch._replace(targets=permuted(batch.targets))
    return [replace(one, data=_with_targets(one.data, permuted)) for one in batch]


def constant(scene: Scene, k: int) -> Any:
    """One token, or number, throughout inputs and targets: the first of each."""
    return _mapped(scene.batch(scene.step + k), lambda values: values.flatten()[:1].expand(values.shape).clone())


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
    return [replace(one, data=_sliced(one.data, size), split=None) for one in batch]


@dataclass(frozen=True)
class OtherData:
    """The batches of another source of the built-in task."""

    data: str

    def __call__(self, scene: Scene, k: int) -> Any:
        """The other source's batch of the same step."""
        return self._source(scene).batch([scene.seed], scene.step + k)

    def _source(self, scene: Scene) -> Batches:
        batches = scene.batches
        if not isinstance(batches, Batches):
            raise UserCodeError("shift: its batches are its own, and there is no other source of them; leave it out")
        known = _SOURCES.get(id(batches.task), (None, None, ""))
        if known[0] is not batches.task or known[2] != self.data:
            task = load_task(*_kind_of(batches), self.data, batches.task.batch_size, _length_of(batches))
            _SOURCES[id(batches.task)] = known = (batches.task, batches.of(task), self.data)
        assert known[1] is not None, "made above"
        return known[1]


_SOURCES: dict[int, tuple[Any, Batches | None, str]] = {}


def _kind_of(batches: Batches) -> tuple[str]:
    name = type(batches.task).__name__.removesuffix("Task").lower()
    return ({"masked": "masked-language", "image": "images"}.get(name, name),)


def _length_of(batches: Batches) -> int:
    return int(getattr(batches.task, "seq_len", 1))


def _generator_of(scene: Scene, k: int) -> torch.Generator:
    generator = scene.generator()
    torch.randint(1 << 30, (1,), generator=generator)
    return generator.manual_seed(generator.initial_seed() + k + 1)


def _drawn_anew(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    def drawn(values: Tensor) -> Tensor:
        if values.is_floating_point():
            noise = torch.randn(values.shape, generator=generator).to(values)
            return noise * values.std() + values.mean() if values.numel() > 1 else noise
        if values.dtype == torch.bool or not values.numel():
            return values
        low, high = int(values.min()), int(values.max())
        return torch.randint(low, high + 1, values.shape, generator=generator).to(values)

    return drawn


def _mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A batch whose tensors are changed, but for masks and targets that are left out of the loss."""
    if isinstance(batch, Batch):
        targets = torch.where(batch.targets >= 0, change(batch.targets.clamp(min=0)), batch.targets)
        return batch._replace(inputs=change(batch.inputs), targets=targets)
    return [replace(one, data=_changed(one.data, change)) for one in batch]


def _changed(data: Any, change: Callable[[Tensor], Tensor], name: str = "") -> Any:
    if isinstance(data, Tensor):
        return data if _MASK in name else change(data)
    if isinstance(data, Mapping):
        return {key: _changed(value, change, str(key)) for key, value in data.items()}
    if isinstance(data, list | tuple) and not hasattr(data, "_fields"):
        return type(data)(_changed(value, change) for value in data)
    return data


def _with_targets(data: Any, change: Callable[[Tensor], Tensor]) -> Any:
    for targets in classes_of(data):
        mine = targets(data)
        changed = change(mine)
        return _replaced(data, mine, changed)
    raise UserCodeError("bad-batch kind=shuffled: no targets are known in its batches; use kind=uniform")


def _replaced(data: Any, old: Tensor, new: Tensor) -> Any:
    if data is old:
        return new
    if isinstance(data, Mapping):
        return {key: _replaced(value, old, new) for key, value in data.items()}
    if isinstance(data, list | tuple) and not hasattr(data, "_fields"):
        return type(data)(_replaced(value, old, new) for value in data)
    return data


def _sliced(data: Any, size: int) -> Any:
    number = num_examples(data)

    def first(values: Tensor) -> Tensor:
        return values[:size] if values.ndim and len(values) == number else values

    return _changed_all(data, first)


def _changed_all(data: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(data, Tensor):
        return change(data)
    if isinstance(data, Mapping):
        return {key: _changed_all(value, change) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str) and not hasattr(data, "_fields"):
        return type(data)(_changed_all(value, change) for value in data)  # type: ignore[call-arg]  # a list or tuple
    return data


def of_user(batch: Any) -> bool:
    """Whether a batch is one of the user's own model."""
    return isinstance(batch, list) and all(isinstance(one, UserBatch) for one in batch)
