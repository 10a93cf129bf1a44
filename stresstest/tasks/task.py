"""What every task gives: batches drawn by (seed, step), and the losses that a run is judged against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from stresstest.lazy import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Streams of batches that never meet: training, the loss at initialisation, validation.
TRAINING, INITIAL, VALIDATION = range(3)


Examples = TypeVar("Examples")


@dataclass(frozen=True)
class Source(Generic[Examples]):
    """One place that examples come from; `load` takes what stands behind the colon of NAME:argument."""

    name: str
    summary: str
    source: str
    load: Callable[[str], Examples]


class Batch(NamedTuple):
    """What every replica reads in one step, [R, B, ...], the classes it shall predict, and keys of what a step draws.

    `first` counts the examples of the step that come before these.
    """

    inputs: Tensor
    targets: Tensor
    keys_R: NDArray[np.uint64] | None = None
    first: int = 0


class Task(Protocol):
    """A set of examples, split into a training and a validation part; all losses in nats."""

    @property
    def batch_size(self) -> int:
        """Examples that a replica reads in one step."""
        ...

    @property
    def num_inputs(self) -> int:
        """Numbers in one example."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes that a prediction chooses from."""
        ...

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each class among the targets of the training part, [C]."""
        ...

    @property
    def log_prior(self) -> NDArray[np.float64]:
        """Log-probability of each class under the best constant predictor, [C]."""
        ...

    @property
    def baseline_loss(self) -> float:
        """Loss of the best constant predictor."""
        ...

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess."""
        ...

    @property
    def description(self) -> dict[str, int | str | float]:
        """What a result stores of the data: at least its bytes and their hash."""
        ...

    def arrays(self, stream: int) -> tuple[NDArray[np.generic], ...]:
        """The examples of a stream's part, to be moved to the device once."""
        ...

    def places(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> NDArray[np.int64]:
        """Which examples make each replica's batch, [R, B]: a function of (seed, step, stream) only."""
        ...

    def read(self, arrays: tuple[Tensor, ...], places_RB: Tensor) -> Batch:
        """The batch at these places."""
        ...


def draw_places(seeds: Sequence[int], step: int, stream: int, batch_size: int, num_places: int) -> NDArray[np.int64]:
    """Uniform places, [R, B]: integers only, so that batches are the same on every machine."""
    keys = splitmix64(np.array(seeds, np.uint64) * np.uint64(4) + np.uint64(stream))
    counts = np.arange(batch_size, dtype=np.uint64) + np.uint64(step * batch_size)
    counters: NDArray[np.uint64] = keys[:, None] + counts
    return (splitmix64(counters) % np.uint64(num_places)).astype(np.int64)


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Steele et al. 2014: the mixing function of a counter-based generator."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
