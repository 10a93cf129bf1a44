"""Image classification: generated shapes, CIFAR-10's binary files, or scikit-learn's digits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stresstest.errors import ConfigError
from stresstest.lazy import numpy as np
from stresstest.registry import Registry
from stresstest.tasks.shapes import generate_images
from stresstest.tasks.task import TRAINING, VALIDATION, Batch, Source, draw_places

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # pixels [N, I] of 0 to 255, classes [N]

NUM_CLASSES = 10
SYNTHETIC_IMAGES = (10_000, 2_000)  # for training, for validation
_CIFAR_RECORD = 3073  # a class, then 32 x 32 pixels of each of three channels
_CIFAR_TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR_VALIDATION = "test_batch.bin"
_DIGITS_VALIDATION = 360  # of 1,797, as they come


@cache  # another batch size asks for it again
def _load_synthetic(argument: str) -> tuple[Labelled, Labelled]:
    if argument:
        raise ConfigError(f"data 'synthetic:{argument}': synthetic has no argument; write synthetic")
    (pixels, classes), (held_out, held_out_classes) = (
        generate_images(seed, count) for seed, count in enumerate(SYNTHETIC_IMAGES)
    )
    return (pixels.reshape(len(pixels), -1), classes), (held_out.reshape(len(held_out), -1), held_out_classes)


def _load_digits(argument: str) -> tuple[Labelled, Labelled]:
    if argument:
        raise ConfigError(f"data 'digits:{argument}': digits has no argument; write digits")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError("data 'digits' needs scikit-learn; pip install scikit-learn, or use synthetic") from None
    pixels, classes = load_digits(return_X_y=True)
    pixels, classes = (pixels * 255.0 / 16.0).round().astype(np.uint8), classes.astype(np.uint8)
    split = len(pixels) - _DIGITS_VALIDATION
    return (pixels[:split], classes[:split]), (pixels[split:], classes[split:])


def _load_cifar10(argument: str) -> tuple[Labelled, Labelled]:
    folder = Path(argument).expanduser()
    if not argument or not folder.is_dir():
        raise ConfigError(f"data folder '{argument}' does not exist; give --data cifar10:FOLDER of the binary version")
    if (folder / "data_batch_1").is_file() and not (folder / _CIFAR_TRAINING[0]).is_file():
        raise ConfigError(
            f"data folder '{argument}' is CIFAR-10's Python version, whose pickles are not read, as they may run code; "
            "give the binary version, cifar-10-binary.tar.gz"
        )
    parts = [_read_cifar10(folder / name) for name in (*_CIFAR_TRAINING, _CIFAR_VALIDATION)]
    training = (np.concatenate([p for p, _ in parts[:-1]]), np.concatenate([c for _, c in parts[:-1]]))
    return training, parts[-1]


def _read_cifar10(path: Path) -> Labelled:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"data file '{path}' cannot be read ({error.strerror}); the folder of CIFAR-10's binary version holds "
            f"{_CIFAR_TRAINING[0]} to {_CIFAR_TRAINING[-1][-5:]} and {_CIFAR_VALIDATION}"
        ) from None
    if not data or len(data) % _CIFAR_RECORD:
        raise ConfigError(
            f"data file '{path}' has {len(data)} bytes, which is not a multiple of the record size {_CIFAR_RECORD}"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)
    if records[:, 0].max() >= NUM_CLASSES:
        raise ConfigError(f"data file '{path}' contains class {records[:, 0].max()}; CIFAR-10 has classes 0 to 9")
    return records[:, 1:], records[:, 0]


IMAGE_SOURCES: Registry[Source[tuple[Labelled, Labelled]]] = Registry(
    "image source",
    [
        Source(
            "synthetic",
            "Generated shapes, 12,000 of 32 x 32 x 3 in 10 classes: polarity, place, size, noise vary (the default).",
            "this project",
            _load_synthetic,
        ),
        Source("digits", "scikit-learn's 1,797 digits of 8 x 8 (needs scikit-learn).", "UCI", _load_digits),
        Source(
            "cifar10", "CIFAR-10's binary version, e.g. cifar10:cifar-10-batches-bin.", "Krizhevsky 2009", _load_cifar10
        ),
    ],
)


@dataclass(frozen=True)
class ImageTask:
    """Labelled images, and the losses they are judged against."""

    training: Labelled
    validation: Labelled
    batch_size: int

    @property
    def num_inputs(self) -> int:
        """Pixels times channels."""
        return int(self.training[0].shape[1])

    @property
    def num_classes(self) -> int:
        """Classes of images."""
        return NUM_CLASSES

    @property
    def chance_loss(self) -> float:
        """Loss of a uniform guess."""
        return math.log(NUM_CLASSES)

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Share of each class in the training part, [10]."""
        return np.asarray(np.bincount(self.training[1], minlength=NUM_CLASSES) / len(self.training[1]))

    @cached_property
    def log_prior(self) -> NDArray[np.float64]:
        """Log-share of each class in the training part, [10]; an unseen class gets a half count."""
        counts = np.bincount(self.training[1], minlength=NUM_CLASSES)
        return np.asarray(np.log(np.maximum(counts, 0.5) / len(self.training[1])))

    @cached_property
    def baseline_loss(self) -> float:
        """Entropy of the classes in the training part: the best constant predictor's loss."""
        return float(-self.log_prior[self.training[1]].mean())

    @cached_property
    def description(self) -> dict[str, int | str | float]:
        """What a result stores of the data."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (*self.training, *self.validation):
            digest.update(array.tobytes())
        return {
            "images": len(self.training[1]) + len(self.validation[1]),
            "bytes": sum(array.nbytes for array in (*self.training, *self.validation)),
            "hash": digest.hexdigest(),
            "baseline_loss": self.baseline_loss,
            "chance_loss": self.chance_loss,
        }

    def arrays(self, stream: int) -> tuple[NDArray[np.generic], ...]:
        """Pixels and classes of a stream's part."""
        return self.validation if stream == VALIDATION else self.training

    def places(self, seeds: Sequence[int], step: int, stream: int = TRAINING) -> NDArray[np.int64]:
        """Which images make each replica's batch, [R, B], with replacement."""
        return draw_places(seeds, step, stream, self.batch_size, len(self.arrays(stream)[1]))

    def read(self, arrays: tuple[Tensor, ...], places_RB: Tensor) -> Batch:
        """Pixels scaled to -1 to 1, [R, B, I], float32 (as in ReZero's experiment), and classes [R, B]."""
        pixels, classes = arrays
        return Batch(pixels[places_RB].float() / 127.5 - 1.0, classes[places_RB].long())


@lru_cache(maxsize=4)
def load_images(data: str, batch_size: int) -> ImageTask:
    """The task on the images of `data` (NAME[:argument]); a `ConfigError` if they do not suffice."""
    name, _, argument = data.partition(":")
    task = ImageTask(*IMAGE_SOURCES[name].load(argument), batch_size)
    if task.baseline_loss == 0.0:
        raise ConfigError(f"data '{data}' has only one class, so there is nothing to learn")
    return task
