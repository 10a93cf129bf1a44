"""What is checked of the user's own `step(model, batch, lr)` before any long work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stresstest.engine.replicas import FIRST_LR
from stresstest.errors import ConfigError
from stresstest.tasks.task import INITIAL
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.bench import UserBench
from stresstest.user_model.factory import seeded
from stresstest.user_model.step.plain_loop import number
from stresstest.user_model.step.whole_copy import copied

_STEPS = 3
_KEEP = "keep all that a step leaves for the next on the model (model.opt = ...)"


@dataclass
class _Taken:
    """A module that some steps have trained: the numbers that they returned."""

    module: nn.Module
    numbers: list[float]

    def state(self) -> list[Tensor]:
        """Its parameters as they are, frozen ones too."""
        return [parameter.detach().clone() for parameter in self.module.parameters()]


def check_step(bench: UserBench, one: UserBatch, name: str, notes: list[str]) -> tuple[float, int]:
    """The number at initialisation and the bytes that a step keeps; a `ConfigError` where it would mean nothing.

    A step must train the model that it is given, at the LR that it is given, and keep nothing anywhere else.
    """
    first, kept = _first_number(bench, one)
    if not math.isfinite(first):
        raise ConfigError(f"{name}: the number at initialisation is {first}; check the initialisation and the data")
    batches = [bench.batches.batch([0], step, INITIAL)[0] for step in range(_STEPS)]
    alone = _Taken(_fresh(bench, 0), [])
    for batch in batches:
        _step(bench, alone, batch, FIRST_LR)
    _beside_another(bench, batches, alone, name)
    _as_a_copy(bench, batches, alone, name)
    _moves(bench, batches[0], alone, name, notes)
    return first, kept


def _first_number(bench: UserBench, one: UserBatch) -> tuple[float, int]:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    taken = _Taken(_fresh(bench, 0), [])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _step(bench, taken, one, 0.0)
    for parameter in taken.module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return taken.numbers[0], sum(kept.values())


def _beside_another(bench: UserBench, batches: list[UserBatch], alone: _Taken, name: str) -> None:
    """The same steps of the same model give the same, while another model takes its own between them."""
    again, other = _Taken(_fresh(bench, 0), []), _Taken(_fresh(bench, 1), [])
    for batch in batches:
        _step(bench, other, batch, 2.0 * FIRST_LR)
        _step(bench, again, batch, FIRST_LR)
    pairs = zip(alone.numbers, again.numbers, strict=True)
    step, (before, after) = next(((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]), (0, (0.0, 0.0)))
    if before != after:
        raise ConfigError(
            f"{name}: the same step from the same start returns {before:.9g}, then {after:.9g} (step {step}); {_KEEP}, "
            "nothing in globals or closures, and draw random numbers only from the global generators of torch, numpy "
            "or Python, which are seeded"
        )
    if not _alike(alone.state(), again.state()):
        raise ConfigError(
            f"{name}: the same steps from the same start end at other weights, while another model is trained between "
            f"them; {_KEEP}, nothing in globals or closures"
        )


def _as_a_copy(bench: UserBench, batches: list[UserBatch], alone: _Taken, name: str) -> None:
    """A copy goes on as the model does and leaves it alone: the number is read of copies."""
    twin = _Taken(copied(alone.module), [])
    before = alone.state()
    _step(bench, twin, batches[0], FIRST_LR)
    if not _alike(before, alone.state()):
        raise ConfigError(
            f"{name}: a step of a copy of the model trains the model itself; keep no function on the model that refers "
            "to it by a closure (a lambda)"
        )
    _step(bench, alone, batches[0], FIRST_LR)
    if alone.numbers[-1] != twin.numbers[-1] or not _alike(alone.state(), twin.state()):
        raise ConfigError(f"{name}: a copy of the model takes another step than the model itself; {_KEEP}")


def _moves(bench: UserBench, one: UserBatch, alone: _Taken, name: str, notes: list[str]) -> None:
    """The step moves the parameters of the model, and at LR 0 none."""
    start = _Taken(_fresh(bench, 0), [])
    names = [key for key, _ in start.module.named_parameters()]
    trained = {key for key, parameter in start.module.named_parameters() if parameter.requires_grad}
    if [key for key, _ in alone.module.named_parameters()] != names:
        raise ConfigError(f"{name}: step() adds or removes parameters; build them in the factory")
    moved = _moved(names, start.state(), alone.state()) & trained
    if not moved:
        raise ConfigError(
            f"{name}: {_STEPS + 1} steps at LR {FIRST_LR:g} change no parameter of the model; train model.parameters() "
            "in place, with an optimizer of each model's own (model.opt = ...)"
        )
    if left := sorted(trained - moved, key=names.index):
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        notes.append(f"  warning: {name}: step() never changes {left[0]}{more}; freeze it (requires_grad_(False))")
    still = _Taken(copied(alone.module), [])
    _step(bench, still, one, 0.0)
    at_zero = _moved(names, alone.state(), still.state()) & trained
    if at_zero == moved:
        raise ConfigError(
            f"{name}: step() at LR 0 still moves the parameters, so its lr does not set the step; set it before each: "
            "for group in model.opt.param_groups: group['lr'] = lr"
        )
    if at_zero:
        found = sorted(at_zero, key=names.index)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        notes.append(f"  note: {name}: {found[0]}{more} moves at LR 0 too: an LR of its own, or an average")


def _fresh(bench: UserBench, seed: int) -> nn.Module:
    return bench.model.make(seed).to(bench.training.device)


def _step(bench: UserBench, taken: _Taken, one: UserBatch, lr: float) -> None:
    step = bench.model.factory.step
    assert step is not None, "checked where there is one"
    with seeded(one.seed):
        taken.numbers.append(float(number(step, bench.model.factory.loss_words, taken.module, one.data, lr)))


def _moved(names: list[str], before: list[Tensor], after: list[Tensor]) -> set[str]:
    return {name for name, a, b in zip(names, before, after, strict=True) if not torch.equal(a, b)}


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
