"""What people train with, in the form that this package trains: a loader, a trainer, a module with its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from stresstest.errors import ConfigError
from stresstest.user_model.copies import copied


class BatchStream(Protocol):
    """Batches by seed and step, of a stream of `tasks.task`: the same in every run.

    `held_out`: whether VALIDATION is data of its own. What is drawn belongs to the caller, who may change it.
    One whose batches have the size that is asked for is a `SizedStream`.
    """

    held_out: bool

    def draw(self, seed: int, step: int, stream: int) -> Any:
        """The batch, on the CPU; a `UserCodeError` where there is none."""
        ...

    def named(self, step: int, stream: int) -> str:
        """A batch in words that follow "on": "batch 3 of the DataLoader"."""
        ...

    def words(self) -> str:
        """Where batches come from, in words that follow "from"."""
        ...

    def description(self) -> Mapping[str, int | str | float]:
        """What a result stores beside the hash of the first batches."""
        ...


@runtime_checkable
class SizedStream(BatchStream, Protocol):
    """A stream whose batches have as many examples as `--batch-size` says."""

    def of(self, batch_size: int) -> BatchStream:
        """The same with batches of another size."""
        ...


# One step of training up to the gradient: (model, batch, scale) -> loss. The gradient, times `scale`, is left in
# `.grad` of the parameters, which is `None` before; the loss is a scalar without `scale`.
Backward = Callable[[nn.Module, Any, float], Tensor]
# A whole step of training: (model, batch, lr) -> the number that is judged.
Step = Callable[[nn.Module, Any, float], Any]


@dataclass(frozen=True)
class Brought:
    """All that a training script says, for the preflight and the measurements; `None` where it says nothing.

    `build` is called with the global generators seeded and gives a freshly initialised module of its own each time.
    `optimizer(model, lr)` gives its optimizers. `settings` stand where the user says nothing; `fixed` cannot be
    changed.
    `adopt` gives the module in what a function of the user's returns when it is called anew, for another seed.
    `notes` are printed before training. `key` decides a cell beside the code of the user's file.
    """

    what: str  # "transformers.Trainer", in messages
    build: Callable[..., nn.Module] | None = None
    adopt: Callable[[Any], nn.Module] | None = None
    stream: BatchStream | None = None
    loss_fn: Callable[[nn.Module, Any], Any] | None = None
    loss_words: str = "loss_fn(model, batch)"
    backward: Backward | None = None
    step: Step | None = None
    optimizer: Callable[..., Any] | None = None
    optimizer_words: str = ""  # where that comes from, if from no function of the user's
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    key: str = ""
    pick: Callable[[Any], nn.Module] | None = None  # the model in what the user's function returns when called anew


@dataclass(frozen=True)
class Kind:
    """A kind of object that people have: how it is known without importing its library, and what it brings."""

    matches: Callable[[Any], bool]
    brings: Callable[[Any], Brought]


def is_instance(thing: Any, *names: str) -> bool:
    """Whether an object is of a class with one of these full names, or of a subclass, without importing any."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(thing).__mro__)


def _module(module: nn.Module) -> Brought:
    note = "every seed starts from the weights that the module has, so seeds differ by batches and dropout alone"
    return Brought("a module", build=lambda: copied(module), notes=(note,))


def _of_trainer(trainer: Any) -> Brought:
    from stresstest.user_model.trainer.from_trainer import from_trainer

    return from_trainer(trainer)


def _is_made(thing: Any) -> bool:
    if not isinstance(thing, tuple | list | dict):
        return False
    from stresstest.user_model.made import is_made

    return is_made(thing)


def _of_made(thing: Any) -> Brought:
    from stresstest.user_model.made import from_made

    return from_made(thing)


TRAINER = "transformers.trainer.Trainer"

KINDS: list[Kind] = [
    Kind(lambda thing: isinstance(thing, Brought), lambda thing: thing),
    Kind(lambda thing: is_instance(thing, TRAINER), _of_trainer),
    Kind(_is_made, _of_made),
]


def brings(thing: Any) -> bool:
    """Whether an object is of a kind that brings something."""
    return any(kind.matches(thing) for kind in KINDS)


def brought(thing: Any) -> Brought | None:
    """What an object brings; `None` of one that is of no such kind."""
    return next((kind.brings(thing) for kind in KINDS if kind.matches(thing)), None)


def as_model(thing: Any, name: str = "") -> Brought | None:
    """What an object brings that stands where a factory may; a module is one that every seed starts from."""
    of_it = f"{name}: " if name else ""
    try:
        found = brought(thing)
    except ConfigError as error:
        raise error if str(error).startswith(of_it) else ConfigError(f"{of_it}{error}") from None
    if found is None and isinstance(thing, nn.Module):
        found = _module(thing)
    if found is not None and found.build is None:
        raise ConfigError(
            f"{of_it}{found.what} has no model; give one with it: from_dataloader(loader, build), or a factory, "
            f"--model FILE.py:build --batch-fn {name or 'FILE.py:NAME'}"
        )
    return found
