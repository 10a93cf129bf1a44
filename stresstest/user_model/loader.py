"""Batches from a DataLoader: batch t of seed s is the same in every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from stresstest.tasks.task import VALIDATION
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.brought import KINDS, Brought, Kind, is_instance


class LoaderStream:
    """Batches of a DataLoader by seed and step; see `BatchStream`."""

    def __init__(self, loader: Any, validation: Any = None) -> None:
        self.held_out = validation is not None
        self._loader = loader
        self._validation = validation
        self._passes: dict[tuple[int, int], tuple[int, Iterator[Any]]] = {}  # by seed and stream: the next step

    def draw(self, seed: int, step: int, stream: int) -> Any:
        """The batch, on the CPU; a `UserCodeError` where there is none."""
        at, batches = self._passes.get((seed, stream), (0, iter(())))
        if at > step or not at:
            at, batches = 0, self._pass(seed, stream)
        with user_code(self.named(step, stream)):
            for _ in range(step - at + 1):
                try:
                    data = next(batches)
                except StopIteration:
                    raise UserCodeError(f"the DataLoader ended before step {step}") from None
        self._passes[seed, stream] = step + 1, batches
        return data

    def named(self, step: int, stream: int) -> str:
        """A batch in words."""
        return f"batch {step} of the DataLoader"

    def words(self) -> str:
        """Where batches come from, in words."""
        return "the DataLoader"

    def description(self) -> Mapping[str, int | str | float]:
        """What a result stores."""
        return {}

    def _pass(self, seed: int, stream: int) -> Iterator[Any]:
        import torch

        loader = self._validation if stream == VALIDATION and self.held_out else self._loader
        torch.manual_seed(seed)
        while True:
            yield from loader


def from_dataloader(
    loader: Any,
    build: Callable[..., nn.Module] | None = None,
    *,
    validation: Any = None,
    loss_fn: Callable[[nn.Module, Any], Any] | None = None,
    optimizer: Callable[..., Any] | None = None,
) -> Brought:
    """What a DataLoader brings, with a model's factory or for one that stands beside it."""
    return Brought(
        "a DataLoader", build=build, stream=LoaderStream(loader, validation), loss_fn=loss_fn, optimizer=optimizer
    )


KINDS.append(Kind(lambda thing: is_instance(thing, "torch.utils.data.dataloader.DataLoader"), from_dataloader))
